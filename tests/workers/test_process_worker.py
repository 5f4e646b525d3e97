"""Runs in processes of their own: what they are given, what is kept of them, and how their end is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from headrace.client.api import HeadraceClient
from headrace.core.ids import new_id
from headrace.settings import get_current_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import AttemptRef, Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import StateType
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseWorkerResult, WorkerFacts
from headrace_workers.process.endings import explain_exit
from headrace_workers.process.worker import ProcessJobConfiguration, ProcessWorker
from headrace_workers.service import child_environment

FLOWS = """
import ctypes, json, os, pathlib, signal, subprocess, sys, time
from headrace import flow, get_run_logger, task

@flow
def facts(where: str):
    pathlib.Path(where).write_text(json.dumps({
        "pid": os.getpid(), "group": os.getpgid(0), "cwd": os.getcwd(), "argv": sys.argv,
        "env": dict(os.environ), "modules": sorted(sys.modules), "here": __file__,
    }))

@flow
def talk():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    get_run_logger().info("to the log")
    os.write(1, b"a line without an end")

@flow
def leave(code: int):
    os._exit(code)

@flow
def die(signum: int):
    os.kill(os.getpid(), signum)

@flow
def segfault():
    ctypes.string_at(0)

@flow
def grow():
    return len(bytearray(2 * 1024 ** 3))

@flow
def wait(where: str):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(where).write_text(str(child.pid))
    time.sleep(600)

@flow
def stubborn(where: str):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(where).write_text("ready")
    while True:
        time.sleep(1)

@task
def double(n):
    return 2 * n

@flow
async def in_a_loop(n: int):
    return double(n)
"""


@dataclass
class Handed:
    """One run that a worker was told to run."""

    run: Run
    task: asyncio.Task[BaseWorkerResult]
    identifiers: list[str] = field(default_factory=list)

    async def started(self) -> str:
        return str((await until(lambda: self.identifiers))[0])


@dataclass
class Bench:
    """A process worker without a stream."""

    worker: ProcessWorker
    client: HeadraceClient
    folder: pathlib.Path
    lines: list[str]

    async def hand(
        self,
        flow: str,
        parameters: dict[str, Any] | None = None,
        configuration: dict[str, Any] | None = None,
        entrypoint: str = "",
    ) -> Handed:
        """Make a run and have it run."""
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=f"a {flow}", flow_name=flow)
        run.state.id, run.state.type = new_id(), StateType.STATE_TYPE_SCHEDULED
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps(parameters or {}).encode()
        run = (await self.client.create_run(CreateRunRequest(run=run))).run
        assignment = Assignment(
            assignment_id=new_id(),
            attempt=AttemptRef(run_id=run.id, attempt=run.attempt, fence=run.fence),
            run=await self.client.get_run(run.id),
            entrypoint=entrypoint or f"flows.py:{flow}",
            path=str(self.folder),
        )
        assignment.job_variables.update(configuration or {})
        job = self.worker.configure(assignment, {})
        identifiers: list[str] = []
        task = asyncio.ensure_future(self.worker.run(job, assignment, identifiers.append))
        return Handed(run, task, identifiers)

    async def run(self, flow: str, *args: Any, **kwargs: Any) -> tuple[Run, BaseWorkerResult]:
        """Have a run run to its end; the run as it is then."""
        handed = await self.hand(flow, *args, **kwargs)
        result = await handed.task
        return await self.client.get_run(handed.run.id), result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "flows.py").write_text(FLOWS)
    (folder / "broken.py").write_text("import flows_that_are_not_there\n")
    return folder


@pytest.fixture(scope="module")
async def one_worker(client: HeadraceClient, folder: pathlib.Path) -> AsyncIterator[Bench]:
    lines: list[str] = []
    worker = ProcessWorker(spare=1)
    worker.facts = WorkerFacts("w", "p", child_environment(get_current_settings()), lines.append)
    async with worker:
        yield Bench(worker, client, folder, lines)


@pytest.fixture
async def bench(one_worker: Bench) -> Bench:
    one_worker.lines.clear()
    return one_worker


def is_there(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


async def test_a_run_completes_in_a_process_of_its_own(bench: Bench, tmp_path: pathlib.Path) -> None:
    seen: list[dict[str, Any]] = []
    for name in ("first", "second"):
        run, result = await bench.run("facts", {"where": str(tmp_path / name)})
        assert run.state.type == StateType.STATE_TYPE_COMPLETED
        assert result.status_code == 0
        seen.append(json.loads((tmp_path / name).read_text()))
    assert len({facts["pid"] for facts in seen} | {os.getpid()}) == 3
    assert all(facts["group"] == facts["pid"] for facts in seen)


async def test_it_is_given_environment_folder_and_arguments(bench: Bench, tmp_path: pathlib.Path) -> None:
    working = tmp_path / "working"
    working.mkdir()
    (working / "flows.py").write_text(FLOWS)
    handed = await bench.hand(
        "facts",
        {"where": str(tmp_path / "facts")},
        {"env": {"COLOUR": "green", "NUMBER": 3}, "working_dir": str(working)},
        entrypoint=f"{working}/flows.py:facts",
    )
    await handed.task
    facts = json.loads((tmp_path / "facts").read_text())
    assert (facts["env"]["COLOUR"], facts["env"]["NUMBER"]) == ("green", "3")
    assert facts["env"]["HEADRACE__FLOW_RUN_ID"] == handed.run.id
    assert facts["argv"] == ["headrace flow-run execute", handed.run.id]
    assert facts["cwd"] == str(bench.folder), "the path of the deployment"
    assert facts["here"] == f"{working}/flows.py"
    assert "tests.workers.test_process_worker" not in facts["modules"], "nothing of its parent's"


async def test_without_a_working_directory_a_temporary_one_is_made_and_removed(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    assert bench.worker._folder is not None
    handed = await bench.hand("wait", {"where": str(tmp_path / "pid")})
    identifier = await handed.started()
    await until(lambda: _read(tmp_path / "pid"))
    assert len(list(bench.worker._folder.path.glob("run-*"))) == 1
    os.kill(int(identifier.rpartition(":")[2]), signal.SIGKILL)
    await handed.task
    assert not list(bench.worker._folder.path.glob("run-*"))


@pytest.mark.parametrize("entrypoint", ["flows:talk", "flows.talk"])
async def test_a_flow_is_found_by_its_module_too(bench: Bench, entrypoint: str) -> None:
    run, _ = await bench.run("talk", entrypoint=entrypoint)
    assert run.state.type == StateType.STATE_TYPE_COMPLETED


async def test_a_coroutine_function_runs_too(bench: Bench) -> None:
    run, _ = await bench.run("in_a_loop", {"n": 4})
    assert run.state.type == StateType.STATE_TYPE_COMPLETED


async def test_what_it_prints_is_shown_and_kept_once(bench: Bench) -> None:
    run, _ = await bench.run("talk")

    async def kept() -> dict[str, str]:
        filter = LogFilter(run_ids=[run.id])
        found = {line.message: line.logger async for line in bench.client.iter_logs(filter)}
        return found if "a line without an end" in found else {}

    lines = await until(kept)
    assert lines["to stdout"] == "stdout"
    assert lines["to stderr"] == "stderr"
    assert lines["to the log"] == "headrace.flow_runs"
    assert not [text for text in lines if "to the log" in text and text != "to the log"]
    assert any(line.endswith("to the log") for line in bench.lines), "shown, with the run's name before it"
    assert "a talk | to stdout" in bench.lines


async def test_output_can_be_kept_without_being_shown(bench: Bench) -> None:
    await bench.run("talk", configuration={"stream_output": False})
    assert not bench.lines


@pytest.mark.parametrize(
    ("flow", "parameters", "code", "words"),
    [
        ("leave", {"code": 0}, 0, "without having reported"),
        ("leave", {"code": 3}, 3, "exit code 3"),
        ("leave", {"code": 127}, 127, "not found"),
        ("die", {"signum": signal.SIGKILL}, 137, "probably because memory ran out"),
        ("segfault", {}, 139, "SIGSEGV"),
    ],
)
async def test_an_end_that_nobody_reported_is_explained(
    bench: Bench, flow: str, parameters: dict[str, Any], code: int, words: str
) -> None:
    _, result = await bench.run(flow, parameters)
    assert result.status_code == code
    assert words in result.message
    assert not result.never_started


async def test_the_last_lines_of_a_crash_are_in_the_message(bench: Bench) -> None:
    _, result = await bench.run("segfault")
    assert "Fatal Python error: Segmentation fault" in result.message


async def test_a_memory_limit_is_an_error_of_the_flow_not_the_end_of_the_machine(bench: Bench) -> None:
    run, _ = await bench.run("grow", configuration={"memory_limit": "1g"})
    assert run.state.type == StateType.STATE_TYPE_FAILED
    assert "MemoryError" in run.state.message


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("broken.py:f", "flows_that_are_not_there"),
        ("gone.py:f", "not there"),
        ("flows.py:tlak", "Did you mean 'talk'?"),
    ],
)
async def test_code_that_cannot_be_loaded_is_named(bench: Bench, entrypoint: str, words: str) -> None:
    _, result = await bench.run("talk", entrypoint=entrypoint)
    assert result.status_code == 1
    assert words in result.message


async def test_what_it_has_started_ends_with_it(bench: Bench, tmp_path: pathlib.Path) -> None:
    handed = await bench.hand("wait", {"where": str(tmp_path / "pid")})
    identifier = await handed.started()
    grandchild = int(await until(lambda: _read(tmp_path / "pid")))
    assert identifier.startswith(socket.gethostname())
    await bench.worker.kill_infrastructure(identifier, ProcessJobConfiguration(), 0)
    result = await handed.task
    assert result.status_code == 137
    await until(lambda: not is_there(grandchild), 2)


async def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    handed = await bench.hand("stubborn", {"where": str(tmp_path / "ready")})
    identifier = await handed.started()
    await until(lambda: _read(tmp_path / "ready"))
    await bench.worker.kill_infrastructure(identifier, ProcessJobConfiguration(), 0.3)
    assert (await handed.task).status_code == 137


async def test_a_process_that_obeys_sigterm_says_so_on_record(bench: Bench, tmp_path: pathlib.Path) -> None:
    handed = await bench.hand("wait", {"where": str(tmp_path / "pid")})
    identifier = await handed.started()
    await until(lambda: _read(tmp_path / "pid"))
    await bench.worker.kill_infrastructure(identifier, ProcessJobConfiguration(), 20)
    await handed.task
    run = await bench.client.get_run(handed.run.id)
    assert run.state.type == StateType.STATE_TYPE_CRASHED
    assert "SIGTERM" in run.state.message or "terminat" in run.state.message


async def test_a_command_of_the_users_own(bench: Bench, tmp_path: pathlib.Path) -> None:
    word = tmp_path / "word"
    handed = await bench.hand(
        "talk", configuration={"command": f"sh -c 'echo hello; echo hi > {word}; exit 5'"}
    )
    result = await handed.task
    assert result.status_code == 5
    assert word.read_text() == "hi\n"
    assert "a talk | hello" in bench.lines


async def test_a_command_that_is_not_there_has_never_started(bench: Bench) -> None:
    handed = await bench.hand("talk", configuration={"command": "no-such-program"})
    with pytest.raises(FileNotFoundError):
        await handed.task


async def test_variables_that_interpreters_read_first_are_obeyed(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    """A copy of a running interpreter cannot obey them: a new one is started."""
    handed = await bench.hand(
        "facts", {"where": str(tmp_path / "facts")}, {"env": {"PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "1"}}
    )
    assert (await handed.task).status_code == 0
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["env"]["PYTHONHASHSEED"] == "7"
    assert facts["argv"][0].endswith("__main__.py")


async def test_a_folder_that_is_not_there_is_told(bench: Bench, tmp_path: pathlib.Path) -> None:
    _, result = await bench.run("talk", configuration={"working_dir": str(tmp_path / "none")})
    assert result.never_started
    assert "is not there" in result.message


async def test_when_the_template_is_killed_its_runs_end_and_the_next_one_starts(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    handed = await bench.hand("wait", {"where": str(tmp_path / "pid")})
    identifier = await handed.started()
    grandchild = int(await until(lambda: _read(tmp_path / "pid")))
    warm = bench.worker._warm
    assert warm is not None
    assert warm._template is not None
    warm._template.kill()
    result = await handed.task
    assert result.status_code is None
    await until(lambda: not is_there(int(identifier.rpartition(":")[2])), 2)
    await until(lambda: not is_there(grandchild), 2)
    _, after = await bench.run("talk")
    assert after.status_code == 0


def _read(path: pathlib.Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def test_exits_are_explained_by_their_numbers() -> None:
    assert "not executable" in explain_exit(126)
    assert "did not start" in explain_exit(125)
    assert "SIGABRT" in explain_exit(134)
    assert "exit code 200" in explain_exit(200)
    assert "512 MiB" in explain_exit(137, peak_bytes=512 * 1024**2)
    assert explain_exit(1, last_output="a\nb").endswith("The last it printed:\na\nb")
    assert sys.platform != "linux" or "Illegal" not in explain_exit(1)
