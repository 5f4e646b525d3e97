"""Whole processes that record: killed, forked, ending, and meeting a network that swallows."""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from headrace.core.spool import SpoolMeta, read_durable, read_entries, read_sealed
from headrace.recorder import link
from headrace.v1.record_service_pb2 import RecordEntry
from tests.recorder.conftest import MakeRecorder
from tests.support.entries import log_entry, run_entry
from tests.support.proxy import Proxy
from tests.support.record_server import RecordServer

TIMEOUT = 30.0
ROOT = pathlib.Path(__file__).parent.parent.parent


def spawn(home: pathlib.Path, address: str, program: str, *arguments: str) -> subprocess.Popen[str]:
    head = """
        import os, sys
        from headrace.recorder import get_recorder
        from tests.support.entries import log_entry, run_entry, state_entry
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program), *arguments],
        env={**os.environ, "HEADRACE_HOME": str(home), "HEADRACE_API_URL": address},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def spools(home: pathlib.Path) -> list[pathlib.Path]:
    root = home / "spool"
    return sorted(root.iterdir()) if root.is_dir() else []


def lines_in(folder: pathlib.Path) -> dict[int, str]:
    return {seq: RecordEntry.FromString(data).log.message for seq, data in read_entries(folder)}


JOURNALLING = """
    journal = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    recorder = get_recorder()
    number = 0
    while True:
        seq = recorder.post(log_entry(str(number)), log_entry(f"{number} b"))
        os.write(journal, b"%d %d\\n" % (seq, number))
        number += 1
        if number == 500:
            print("going", flush=True)
"""


@pytest.mark.parametrize("has_server", [False, True])
def test_a_kill_loses_nothing_that_was_posted(tmp_path: pathlib.Path, has_server: bool) -> None:
    with RecordServer() as server:
        address = server.address if has_server else "auto"
        process = spawn(tmp_path, address, JOURNALLING, str(tmp_path / "journal"))
        assert process.stdout is not None and process.stdout.readline() == "going\n"
        if has_server:
            server.journal.wait_for(lambda journal: len(journal.entries()) > 500)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=TIMEOUT)
        posted = [line.split() for line in (tmp_path / "journal").read_text().splitlines()]
        assert len(posted) >= 500
        (folder,) = spools(tmp_path)
        assert read_sealed(folder) is None
        assert SpoolMeta.read(folder).address == address
        recorded = lines_in(folder)
        for seq, entry in enumerate(server.journal.entries(), start=1):
            assert recorded.setdefault(seq, entry.log.message) == entry.log.message
        for seq, number in posted:
            assert recorded[int(seq)] == f"{number} b"
            assert recorded[int(seq) - 1] == number


def test_the_end_of_the_program_waits_for_the_server(tmp_path: pathlib.Path) -> None:
    program = """
        for number in range(2000):
            get_recorder().post(log_entry(str(number)))
    """
    with RecordServer() as server:
        process = spawn(tmp_path, server.address, program)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert [e.log.message for e in server.journal.entries()] == [str(n) for n in range(2000)]
        (recorded,) = server.journal.recorders.values()
        assert recorded.is_sealed
    assert spools(tmp_path) == []


def test_the_end_of_the_program_does_not_wait_for_ever(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RECORDER_EXIT_TIMEOUT_SECONDS", "0.3")
    program = """
        recorder = get_recorder()
        recorder.durable(recorder.post(log_entry("0"))).result()
        print("posted", flush=True)
        sys.stdin.readline()
        recorder.post(log_entry("1"))
    """
    with RecordServer() as server, Proxy(server.address) as proxy:
        process = spawn(tmp_path, proxy.address, program)
        assert process.stdout is not None and process.stdout.readline() == "posted\n"
        proxy.swallows = True
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
    (folder,) = spools(tmp_path)
    assert lines_in(folder) == {1: "0", 2: "1"}
    assert (read_sealed(folder), read_durable(folder)) == (2, 1)


def test_a_program_without_runs_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    process = spawn(tmp_path / "home", "auto", "get_recorder().flush(1)")
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert not (tmp_path / "home").exists()


def test_a_forked_child_records_for_itself(tmp_path: pathlib.Path) -> None:
    program = """
        recorder = get_recorder()
        recorder.post(log_entry("parent before"))
        child = os.fork()
        if child == 0:
            assert get_recorder() is not recorder
            get_recorder().post(log_entry("child"))
            print(get_recorder().recorder_id, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        recorder.post(log_entry("parent after"))
        print(recorder.recorder_id, flush=True)
    """
    process = spawn(tmp_path, "auto", program)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    child, parent = output.split()
    assert lines_in(tmp_path / "spool" / parent) == {1: "parent before", 2: "parent after"}
    assert lines_in(tmp_path / "spool" / child) == {1: "child"}


def test_a_forked_child_does_not_keep_its_parents_spool_locked(tmp_path: pathlib.Path) -> None:
    program = """
        get_recorder().post(log_entry("parent"))
        if os.fork() == 0:
            print("child", flush=True)
            sys.stdin.readline()
            os._exit(0)
        os.kill(os.getpid(), 9)
    """
    process = spawn(tmp_path, "auto", program)
    assert process.stdout is not None and process.stdout.readline() == "child\n"
    process.wait(TIMEOUT)
    (folder,) = spools(tmp_path)
    with (folder / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    process.communicate("", timeout=TIMEOUT)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_record_and_seal(tmp_path: pathlib.Path, method: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, sys
        from headrace.recorder import get_recorder
        from tests.support.entries import log_entry

        def work(name):
            get_recorder().post(log_entry(name))

        if __name__ == "__main__":
            work("parent")
            context = multiprocessing.get_context(sys.argv[1])
            children = [context.Process(target=work, args=(f"child {n}",)) for n in range(2)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
        """)
    )
    home = tmp_path / "home"
    subprocess.run(
        [sys.executable, str(script), method],
        env={**os.environ, "HEADRACE_HOME": str(home), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=TIMEOUT,
    )
    assert sorted(line for folder in spools(home) for line in lines_in(folder).values()) == [
        "child 0",
        "child 1",
        "parent",
    ]
    assert [read_sealed(folder) for folder in spools(home)] == [1, 1, 1]


def test_a_network_that_swallows_is_noticed(
    make_recorder: MakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "STALL_SECONDS", 0.5)
    with RecordServer() as server, Proxy(server.address) as proxy:
        recorder = make_recorder(address=proxy.address)
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)
        proxy.swallows = True
        last = recorder.post(log_entry("into the void"))
        proxy.wait_for_connections(2)
        proxy.swallows = False
        recorder.durable(last).result(TIMEOUT)
        assert len(server.journal.entries()) == 2


def test_what_a_killed_process_left_is_sent_by_the_next_one(tmp_path: pathlib.Path) -> None:
    dies = """
        import os
        last = [get_recorder().post(log_entry(f"dead {n}")) for n in range(1500)][-1]
        entry = state_entry()
        entry.state.want_verdict = True
        get_recorder().post(entry)
        os.kill(os.getpid(), 9)
    """
    lives = """
        recorder = get_recorder()
        recorder.durable(recorder.post(log_entry("alive"))).result()
    """
    with RecordServer() as server:
        address = server.address
    spawn(tmp_path, address, dies).communicate(timeout=TIMEOUT)
    (left,) = spools(tmp_path)
    server.start()
    spawn(tmp_path, address, lives).communicate(timeout=TIMEOUT)
    server.stop()
    assert spools(tmp_path) == []
    recorded = server.journal.recorders[left.name]
    assert [entry.log.message for entry in recorded.entries[:-1]] == [f"dead {n}" for n in range(1500)]
    assert not recorded.entries[-1].state.want_verdict
    assert not recorded.is_sealed


def test_children_forked_from_a_connected_process_are_recorded_too(tmp_path: pathlib.Path) -> None:
    program = """
        recorder = get_recorder()
        recorder.durable(recorder.post(log_entry("parent"))).result()
        for number in range(20):
            recorder.post(log_entry("busy"))
            child = os.fork()
            if child == 0:
                own = get_recorder()
                answer = own.propose(state_entry()).result(30)
                own.durable(own.post(log_entry(f"child {number}"))).result(30)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    with RecordServer() as server:
        process = spawn(tmp_path, server.address, program)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        lines = [entry.log.message for entry in server.journal.entries()]
    assert sorted(set(lines)) == sorted(["", "busy", "parent", *(f"child {n}" for n in range(20))])
    assert len(lines) == 1 + 20 + 2 * 20
    assert spools(tmp_path) == []
