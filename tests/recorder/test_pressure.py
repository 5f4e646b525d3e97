"""What happens when there is no room: on the disk, in the budget, or in an entry."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator

import pytest

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, PayloadTooLarge, StorageFull
from headrace.core.spool import read_entries
from headrace.v1.record_service_pb2 import RecordEntry
from tests.recorder.conftest import MakeRecorder
from tests.support.entries import log_entry, run_entry, span_entry, state_entry
from tests.support.record_server import RecordServer

TIMEOUT = 20.0
MIB = 1024 * 1024


def spooled(home: pathlib.Path) -> list[RecordEntry]:
    return [
        RecordEntry.FromString(data)
        for folder in sorted((home / "spool").iterdir())
        for _, data in read_entries(folder)
    ]


def fill(recorder: object, share: float) -> None:
    """Post states until the spool holds that share of its budget."""
    entry = state_entry(message="x" * 8000)
    size = len(entry.SerializeToString()) + 8
    for _ in range(int(share * MIB / size) + 1):
        recorder.post(entry)  # type: ignore[attr-defined]


def test_spans_then_logs_are_left_out_with_a_notice(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = make_recorder(budget_bytes=MIB)
    fill(recorder, 0.81)
    for _ in range(3):
        recorder.post(span_entry("left out"))
    recorder.post(log_entry("kept"))
    fill(recorder, 0.10)
    before = recorder.last_seq
    assert recorder.post(log_entry("left out")) == before
    recorder.post(run_entry("kept"))
    entries = spooled(recorder.options.home)
    kinds = [entry.WhichOneof("kind") for entry in entries]
    assert "span" not in kinds
    assert [entry.log.message for entry in entries if entry.WhichOneof("kind") == "log"] == ["kept"]
    notices = [entry.dropped for entry in entries if entry.WhichOneof("kind") == "dropped"]
    assert (sum(n.spans for n in notices), sum(n.logs for n in notices)) == (3, 1)
    assert kinds[-2:] == ["dropped", "run"]
    assert caplog.text.count("left out") == 1


def test_a_budget_full_of_states_raises_when_told_to(make_recorder: MakeRecorder) -> None:
    recorder = make_recorder(budget_bytes=MIB, raise_when_full=True)
    with pytest.raises(StorageFull, match="no server has them"):
        fill(recorder, 1.1)
    before = len(spooled(recorder.options.home))
    assert before == recorder.last_seq


def test_a_budget_full_of_states_waits_for_the_server(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    waits = threading.Event()
    with RecordServer() as server:
        address = server.address
        recorder = make_recorder(budget_bytes=MIB, address=address, offline_allowed=True)
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)
    count = 400

    def post_all() -> None:
        for _ in range(count):
            recorder.post(state_entry(message="x" * 8000))
            if recorder.last_seq > 100:
                waits.set()

    poster = threading.Thread(target=post_all)
    poster.start()
    assert waits.wait(TIMEOUT)
    poster.join(0.3)
    assert poster.is_alive() and recorder.last_seq < count
    server.start()
    poster.join(TIMEOUT)
    assert not poster.is_alive()
    recorder.durable(recorder.last_seq).result(TIMEOUT)
    assert len(server.journal.entries()) == count + 1
    assert caplog.text.count("takes no more records") == 1
    server.stop()


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_half_written(
    small_disk: pathlib.Path, make_recorder: MakeRecorder
) -> None:
    recorder = make_recorder(home=small_disk, raise_when_full=True)
    with pytest.raises(StorageFull, match="disk is full"):
        for _ in range(10_000):
            recorder.post(state_entry(), state_entry(), state_entry())
    entries = spooled(small_disk)
    assert len(entries) == recorder.last_seq
    assert len(entries) % 3 == 0


def test_recording_goes_on_once_the_disk_has_room(
    small_disk: pathlib.Path, make_recorder: MakeRecorder
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    recorder = make_recorder(home=small_disk)
    done = threading.Event()

    def post_all() -> None:
        for _ in range(700):
            recorder.post(state_entry())
        done.set()

    threading.Thread(target=post_all, daemon=True).start()
    assert not done.wait(0.5)
    ballast.unlink()
    assert done.wait(TIMEOUT)
    assert len(spooled(small_disk)) == 700


def test_log_lines_are_left_out_when_the_disk_is_full(
    small_disk: pathlib.Path, make_recorder: MakeRecorder
) -> None:
    recorder = make_recorder(home=small_disk)
    recorder.post(run_entry())
    for _ in range(50):
        recorder.post(log_entry("x" * 10_000))
    kinds = [entry.WhichOneof("kind") for entry in spooled(small_disk)]
    assert 10 < kinds.count("log") < 40
    assert len(kinds) == recorder.last_seq


def test_an_entry_over_its_limit_is_refused_before_it_is_recorded(make_recorder: MakeRecorder) -> None:
    recorder = make_recorder()
    large_data = state_entry()
    large_data.state.state.data.inline = b"x" * (limits.INLINE_PAYLOAD_BYTES + 1)
    large_parameters = run_entry()
    large_parameters.run.parameters.inline = b"x" * (limits.INLINE_PAYLOAD_BYTES + 1)
    large_run = run_entry()
    large_run.run.labels["text"] = "x" * limits.MESSAGE_BYTES
    for entry, field in [
        (large_data, "state.data"),
        (large_parameters, "run.parameters"),
        (state_entry(message="x" * (limits.STATE_MESSAGE_BYTES + 1)), "state.message"),
        (large_run, "run"),
    ]:
        with pytest.raises(PayloadTooLarge) as refused:
            recorder.post(state_entry(), entry)
        assert refused.value.facts["field"] == field
    with pytest.raises(FieldsInvalid):
        recorder.post(RecordEntry())
    assert recorder.last_seq == 0


@pytest.mark.parametrize("character", ["x", "ö", "🚰"])
def test_a_long_log_line_is_cut_with_a_note(make_recorder: MakeRecorder, character: str) -> None:
    recorder = make_recorder()
    text = character * limits.LOG_MESSAGE_BYTES * 2
    entry = log_entry(text)
    recorder.post(entry)
    assert entry.log.message == text
    (kept,) = spooled(recorder.options.home)
    size = len(text.encode())
    assert kept.log.message.endswith(f"[{size} bytes, cut]")
    assert limits.LOG_MESSAGE_BYTES - 4 <= len(kept.log.message.encode()) <= limits.LOG_MESSAGE_BYTES
