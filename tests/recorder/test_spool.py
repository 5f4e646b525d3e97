"""The spool on disk, and what is sent from it."""

from __future__ import annotations

import fcntl
import os
import pathlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.errors import ConfigurationError
from headrace.core.ids import new_id
from headrace.core.spool import SpoolMeta, read_durable, read_entries, read_sealed, segments
from headrace.recorder.backlog import Backlog
from headrace.recorder.entries import batch_message, chunk
from headrace.recorder.spool import SpoolWriter
from headrace.v1.record_service_pb2 import RecordRequest
from tests.support.entries import log_entry


class SetClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def spool(tmp_path: pathlib.Path, clock: SetClock) -> SpoolWriter:
    return SpoolWriter(tmp_path, new_id(), "auto", clock, "1.2.3", segment_bytes=100)


def written(spool: SpoolWriter) -> list[bytes]:
    return [data for _, data in read_entries(spool.folder)]


def test_nothing_is_on_disk_before_the_first_entry(spool: SpoolWriter) -> None:
    assert not spool.folder.exists()
    assert spool.append([b"a", b"b"]) == 2
    assert written(spool) == [b"a", b"b"]
    meta = SpoolMeta.read(spool.folder)
    assert (meta.recorder_id, meta.address, meta.sdk_version) == (spool.folder.name, "auto", "1.2.3")


def test_segments_are_complete_and_contiguous(spool: SpoolWriter) -> None:
    entries = [bytes([index]) * 30 for index in range(20)]
    for entry in entries:
        spool.append([entry])
    assert len(segments(spool.folder)) > 5
    assert written(spool) == entries
    assert [seq for seq, _ in read_entries(spool.folder, after=7)] == list(range(8, 21))


@given(cut=st.integers(1, 37))
def test_a_torn_tail_costs_only_the_torn_entry(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    spool = SpoolWriter(tmp_path_factory.mktemp("spool"), new_id(), "auto", SetClock(), "1")
    spool.append([b"first", b"second" * 5])
    spool.abandon()
    _, path = segments(spool.folder)[-1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    assert written(spool) == [b"first"]


def test_a_damaged_entry_ends_the_reading(spool: SpoolWriter) -> None:
    spool.append([b"aaaa", b"bbbb", b"cccc"])
    _, path = segments(spool.folder)[-1]
    data = bytearray(path.read_bytes())
    data[data.index(b"bbbb")] ^= 1
    path.write_bytes(data)
    assert written(spool) == [b"aaaa"]


def test_the_lock_is_held_until_the_recorder_is_done(spool: SpoolWriter) -> None:
    spool.append([b"a"])
    with (spool.folder / "lock").open("rb+") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        spool.release(0, sealed=True)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert read_sealed(spool.folder) == 1


def test_a_spool_that_a_server_has_whole_is_removed(spool: SpoolWriter) -> None:
    spool.append([b"a", b"b"])
    spool.release(2, sealed=True)
    assert not spool.folder.exists()


def test_acknowledged_segments_linger_then_go(spool: SpoolWriter, clock: SetClock) -> None:
    for _ in range(10):
        spool.append([b"x" * 60])
    assert len(segments(spool.folder)) == 10
    spool.acknowledged(5)
    clock.seconds += 59
    spool.trim()
    assert len(segments(spool.folder)) == 10
    clock.seconds += 2
    spool.trim()
    assert [first for first, _ in segments(spool.folder)] == [6, 7, 8, 9, 10]
    assert spool.size == 5 * 68


def test_a_full_disk_takes_back_what_a_server_has(spool: SpoolWriter) -> None:
    spool.append([b"x" * 60])
    spool.append([b"y" * 60])
    spool.acknowledged(2)
    spool.reclaim(2)
    assert segments(spool.folder) == []
    assert spool.size == 0
    assert spool.append([b"z"]) == 3
    assert list(read_entries(spool.folder, after=2)) == [(3, b"z")]


@pytest.mark.parametrize("strikes", ["before", "after"])
def test_an_interrupt_leaves_all_of_a_write_or_nothing(
    spool: SpoolWriter, monkeypatch: pytest.MonkeyPatch, strikes: str
) -> None:
    """Ctrl-C and time limits raise between any two steps, also between the write and its count."""
    spool.append([b"first"])
    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        if strikes == "after":
            write(descriptor, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spool.append([b"lost", b"lost too"])
    assert spool.append([b"second"]) == 2
    assert list(read_entries(spool.folder)) == [(1, b"first"), (2, b"second")]


def test_the_durable_mark_is_a_note(spool: SpoolWriter) -> None:
    spool.append([b"x"])
    assert read_durable(spool.folder) == 0
    spool.write_durable(1)
    assert read_durable(spool.folder) == 1


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    spool = SpoolWriter(tmp_path / "file" / "spool", new_id(), "auto", SetClock(), "1")
    with pytest.raises(ConfigurationError, match="HEADRACE_HOME"):
        spool.append([b"a"])


@given(st.lists(st.text(max_size=300), min_size=1, max_size=20), st.integers(1, 2**40))
def test_a_batch_is_what_the_message_would_be(texts: list[str], first_seq: int) -> None:
    entries = [log_entry(text) for text in texts]
    request = RecordRequest.FromString(
        batch_message(first_seq, [chunk(entry.SerializeToString()) for entry in entries])
    )
    assert request.entries.first_seq == first_seq
    assert list(request.entries.entries) == entries


@example(memory_bytes=0, steps=[("add", 1), ("take", 1), ("add", 1), ("take", 1)])
@given(
    memory_bytes=st.integers(0, 400),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 20)),
            st.tuples(st.just("take"), st.integers(1, 200)),
            st.tuples(st.just("release"), st.integers(0, 10)),
            st.tuples(st.just("rewind"), st.integers(0, 30)),
        ),
        max_size=40,
    ),
)
def test_what_does_not_fit_in_memory_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, memory_bytes: int, steps: list[tuple[str, int]]
) -> None:
    """Whatever memory holds, the entries come in order, each as it was written."""
    spool = SpoolWriter(
        tmp_path_factory.mktemp("spool"), new_id(), "auto", SetClock(), "1", segment_bytes=150
    )
    backlog = Backlog(spool.folder, memory_bytes)
    entries: list[bytes] = []
    sent = durable = 0
    for step, amount in steps:
        if step == "add":
            for _ in range(amount):
                entries.append(b"entry %d" % (len(entries) + 1))
                backlog.add(spool.append([entries[-1]]), entries[-1], sent)
        elif step == "take" and sent < len(entries):
            batch = backlog.take(sent + 1, len(entries), amount)
            assert batch.chunks == [chunk(entry) for entry in entries[sent : sent + len(batch.chunks)]]
            assert len(batch.chunks) == 1 or batch.size <= amount
            assert batch.size == sum(map(len, batch.chunks))
            assert batch.chunks
            assert backlog.get(batch.last_seq) == entries[batch.last_seq - 1]
            sent = batch.last_seq
        elif step == "release":
            durable = min(sent, durable + amount)
            backlog.release(durable)
        elif step == "rewind":
            sent = max(durable, sent - amount)
    spool.abandon()
