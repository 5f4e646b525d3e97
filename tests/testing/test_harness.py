"""The harness that users run their tests in, with real servers."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import unittest

import pytest

from headrace import flow, get_client, get_run_logger, task
from headrace.core.errors import ServerUnavailable
from headrace.settings import get_current_settings, temporary_settings
from headrace.testing import Harness, get_most_recent_flow_run, headrace_test_harness
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import RunFilter


@task
def double(number: int) -> int:
    get_run_logger().info("doubling %d", number)
    return 2 * number


@flow
def doubled(numbers: list[int]) -> list[int]:
    return double.map(numbers).result()


@flow
def other() -> None:
    pass


def _flow_names() -> list[str]:
    with get_client(sync_client=True) as client:
        return sorted(run.flow_name for run in client.iter_runs(RunFilter()) if not run.task_name)


def _own_threads() -> set[threading.Thread]:
    # gRPC's poller serves the whole process and stays.
    return {thread for thread in threading.enumerate() if "_poll_wrapper" not in thread.name}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_runs_and_their_lines_are_with_a_server_of_their_own() -> None:
    with headrace_test_harness() as harness:
        assert doubled([1, 2, 3]) == [2, 4, 6]
        with get_client(sync_client=True) as client:
            assert client.address == harness.address
            run = next(iter(client.iter_runs(RunFilter(flow_names=["doubled"]))))
            lines = client.iter_logs(LogFilter(root_run_ids=[run.root_run_id]))
            assert sorted(line.message for line in lines if line.message.startswith("doubling")) == [
                "doubling 1",
                "doubling 2",
                "doubling 3",
            ]


def test_nothing_is_left() -> None:
    settings, environment, threads = get_current_settings(), dict(os.environ), _own_threads()
    children = _children()
    with headrace_test_harness() as harness:
        doubled([1])
        server = int(_server_pid(harness))
        assert harness.home.exists()
    assert not harness.home.exists()
    assert not _is_alive(server)
    assert get_current_settings() is settings
    assert dict(os.environ) == environment
    assert _own_threads() == threads
    assert _children() == children


def _children() -> set[str]:
    """Processes that this one has started, those of other tests among them."""
    return set(pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def _server_pid(harness: Harness) -> str:
    return str(int((harness.home / "server.json").read_text().split('"pid":')[1].split(",")[0]))


def test_harnesses_nest_and_the_outer_one_goes_on() -> None:
    with headrace_test_harness() as outer:
        doubled([1])
        with headrace_test_harness() as inner:
            assert inner.address != outer.address
            other()
            assert _flow_names() == ["other"]
        doubled([2])
        assert _flow_names() == ["doubled", "doubled"]


def test_it_holds_in_every_thread_and_over_settings_that_were_temporary_before() -> None:
    seen: list[str] = []
    with (
        temporary_settings({"api_url": "off", "logging_level": "ERROR"}),
        headrace_test_harness() as harness,
    ):
        thread = threading.Thread(target=lambda: (other(), seen.append(get_current_settings().api_url)))
        thread.start()
        thread.join()
        assert seen == [get_current_settings().api_url] == [harness.address]
        assert get_current_settings().logging_level == "ERROR"
        with temporary_settings({"logging_level": "DEBUG"}) as settings:
            assert (settings.logging_level, settings.api_url) == ("DEBUG", harness.address)
        assert _flow_names() == ["other"]


def test_processes_started_inside_record_there_too(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from headrace import flow\n@flow\ndef elsewhere(): pass\nelsewhere()\n")
    with headrace_test_harness():
        subprocess.run([sys.executable, script], check=True, capture_output=True)
        assert _flow_names() == ["elsewhere"]


def test_what_fails_inside_comes_out_and_is_cleaned_up_after() -> None:
    with pytest.raises(ZeroDivisionError), headrace_test_harness() as harness:
        doubled([1])
        _ = 1 / 0
    assert not harness.home.exists()


async def test_it_works_around_coroutines() -> None:
    with headrace_test_harness():
        await asyncio.to_thread(other)
        async with get_client() as client:
            assert (await get_most_recent_flow_run(client)).flow_name == "other"


def test_the_most_recent_flow_run() -> None:
    with headrace_test_harness():
        with pytest.raises(LookupError, match=r"There is no flow run yet\."):
            asyncio.run(get_most_recent_flow_run())
        doubled([1])
        other()
        assert asyncio.run(get_most_recent_flow_run()).flow_name == "other"
        assert asyncio.run(get_most_recent_flow_run(flow_name="doubled")).flow_name == "doubled"


def test_variables_of_other_servers_are_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("HEADRACE_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/mine.db")
    monkeypatch.setenv("HEADRACE_API_AUTH_STRING", "me:secret")
    with headrace_test_harness():
        other()
        assert get_current_settings().api_auth_string is None
        assert _flow_names() == ["other"]
    assert not (tmp_path / "mine.db").exists()
    assert os.environ["HEADRACE_API_AUTH_STRING"] == "me:secret"


def test_a_server_that_does_not_come_in_time() -> None:
    before = get_current_settings()
    with (
        pytest.raises(ServerUnavailable, match=r"was not healthy after 0\.001 s"),
        headrace_test_harness(server_startup_timeout=0.001),
    ):
        raise AssertionError("not reached")
    assert get_current_settings() is before


def test_a_killed_test_process_leaves_neither_server_nor_home(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from headrace.testing import headrace_test_harness\n"
        "with headrace_test_harness() as harness:\n"
        "    print(harness.home, (harness.home / 'server.json').read_text(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    home, _, noted = done.stdout.partition(" ")
    server = int(noted.split('"pid":')[1].split(",")[0])
    deadline = time.monotonic() + 60
    while _is_alive(server) or pathlib.Path(home).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class InUnittest(unittest.IsolatedAsyncioTestCase):
    """Run by pytest, which runs unittest's classes as unittest does."""

    harness: Harness

    @classmethod
    def setUpClass(cls) -> None:
        cls.harness = cls.enterClassContext(headrace_test_harness())

    async def test_a_flow_in_a_loop(self) -> None:
        @flow
        async def asynchronous() -> int:
            return double(4)

        self.assertEqual(await asynchronous(), 8)
        run = await get_most_recent_flow_run(flow_name="asynchronous")
        self.assertEqual(run.name != "", True)

    async def test_a_harness_for_one_test(self) -> None:
        inner = self.enterContext(headrace_test_harness())
        other()
        self.assertNotEqual(inner.address, self.harness.address)


XDIST_SUITE = """
import os, pytest
from headrace import flow, get_client
from headrace.testing import headrace_test_harness
from headrace.v1.run_pb2 import RunFilter, RunView

@pytest.fixture(scope="session", autouse=True)
def harness():
    with headrace_test_harness() as made:
        yield made

@flow
def one(worker: str) -> str:
    return worker

@pytest.mark.parametrize("number", range(4))
def test_runs_of_other_workers_are_not_seen(harness, number):
    me = os.environ["PYTEST_XDIST_WORKER"]
    one(me)
    with get_client(sync_client=True) as client:
        runs = list(client.iter_runs(RunFilter(flow_names=["one"]), view=RunView.RUN_VIEW_FULL))
    assert runs and all(me in str(run.parameters) for run in runs)
"""


def test_each_worker_of_xdist_has_its_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_suite.py").write_text(XDIST_SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_start_and_end_are_quick(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    started = time.monotonic()
    with headrace_test_harness():
        other()
    # Below 2 s on a quiet machine; the tests beside this one are not quiet.
    assert time.monotonic() - started < 10
