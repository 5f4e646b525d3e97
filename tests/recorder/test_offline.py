"""Recording with the address `auto`: whether there is a server, and when, makes no difference to the runs."""

from __future__ import annotations

import json
import os
import pathlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.core.errors import RecorderSealed
from headrace.core.spool import SpoolMeta, read_entries, read_sealed
from headrace.core.verdicts import Accept
from headrace.recorder import runtime
from headrace.recorder.answers import Reach
from tests.recorder.conftest import MakeRecorder
from tests.support.entries import log_entry, run_entry, state_entry
from tests.support.record_server import RecordServer

TIMEOUT = 20.0


def announce(home: pathlib.Path, address: str) -> None:
    """Say, as a server does, that it serves the home."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.json").write_text(json.dumps({"pid": os.getpid(), "address": address, "version": "1"}))


def test_without_a_server_the_spool_is_enough(make_recorder: MakeRecorder) -> None:
    recorder = make_recorder()
    entry = state_entry()
    answer = recorder.propose(entry).result(TIMEOUT)
    assert answer == Accept(entry.state.state)
    recorder.durable(recorder.last_seq).result(TIMEOUT)
    assert recorder.reach is Reach.NONE
    recorder.finish()
    folder = recorder.options.spool_root / recorder.recorder_id
    assert [seq for seq, _ in read_entries(folder)] == [1]
    assert read_sealed(folder) == 1
    assert SpoolMeta.read(folder).address == "auto"


def test_a_server_that_appears_gets_everything(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LOOK_SECONDS", 0.02)
    recorder = make_recorder()
    last = [recorder.post(log_entry(str(index))) for index in range(100)][-1]
    recorder.durable(last).result(TIMEOUT)
    assert recorder.reach is Reach.NONE
    with RecordServer() as server:
        announce(recorder.options.home, server.address)
        server.journal.wait_for(lambda journal: len(journal.entries()) == last)
        assert [entry.log.message for entry in server.journal.entries()] == [str(i) for i in range(100)]


def test_a_home_whose_server_is_gone_is_no_server(make_recorder: MakeRecorder) -> None:
    recorder = make_recorder()
    home = recorder.options.home
    home.mkdir(parents=True)
    gone = max(int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()) + 1000
    (home / "server.json").write_text(json.dumps({"pid": gone, "address": "127.0.0.1:1"}))
    assert isinstance(recorder.propose(state_entry()).result(TIMEOUT), Accept)
    assert recorder.reach is Reach.NONE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_server_file_that_makes_no_sense_is_no_server(make_recorder: MakeRecorder, text: str) -> None:
    recorder = make_recorder()
    recorder.options.home.mkdir(parents=True)
    (recorder.options.home / "server.json").write_text(text)
    assert isinstance(recorder.propose(state_entry()).result(TIMEOUT), Accept)


def test_an_address_that_goes_silent_in_the_middle_does_not_stop_the_run(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    server = RecordServer().start()
    recorder = make_recorder(address=server.address, connect_timeout_seconds=0.2)
    recorder.durable(recorder.post(run_entry())).result(TIMEOUT)
    server.stop()
    entry = state_entry()
    assert recorder.propose(entry).result(TIMEOUT) == Accept(entry.state.state)
    recorder.durable(recorder.last_seq).result(TIMEOUT)
    assert "The run goes on" in caplog.text
    server.start()
    server.journal.wait_for(lambda journal: len(journal.entries()) == 2)
    server.stop()


def test_an_explicit_address_may_be_absent_where_that_is_allowed(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        address = server.address
    recorder = make_recorder(address=address, offline_allowed=True, connect_timeout_seconds=0.1)
    assert isinstance(recorder.propose(state_entry()).result(TIMEOUT), Accept)
    assert not recorder.flush(0) or recorder.reach is Reach.NONE


def test_after_the_end_nothing_is_taken(make_recorder: MakeRecorder) -> None:
    recorder = make_recorder()
    recorder.post(run_entry())
    recorder.finish()
    with pytest.raises(RecorderSealed):
        recorder.post(run_entry())


def test_threads_keep_their_order_and_nobody_comes_between(make_recorder: MakeRecorder) -> None:
    threads, posts = 8, 200
    start = threading.Barrier(threads)
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)

        def storm(name: int) -> list[int]:
            start.wait()
            return [
                recorder.post(log_entry(f"{name} {index} a"), log_entry(f"{name} {index} b"))
                for index in range(posts)
            ]

        with ThreadPoolExecutor(threads) as pool:
            seqs = list(pool.map(storm, range(threads)))
        recorder.durable(recorder.last_seq).result(TIMEOUT)
        lines = [entry.log.message for entry in server.journal.entries()]
    assert len(lines) == len(set(lines)) == threads * posts * 2
    for name, own in enumerate(seqs):
        assert own == sorted(own)
        for index, seq in enumerate(own):
            assert lines[seq - 2 : seq] == [f"{name} {index} a", f"{name} {index} b"]


def test_whoever_stops_waiting_disturbs_nobody(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)
        answer = recorder.propose(state_entry())
        safe = recorder.durable(recorder.last_seq)
        assert not answer.cancel()
        assert not safe.cancel()
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)
        assert isinstance(answer.result(TIMEOUT), Accept)
