"""Types of workers: how they are found, what a run is started with, and how failures are told."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from headrace.core.errors import ConfigurationError
from headrace.core.ids import new_id
from headrace.settings import get_current_settings, temporary_settings
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.worker_service_pb2 import Assignment, PoolSnapshot
from headrace_workers import registry
from headrace_workers.actions import Attempt
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult, WorkerFacts
from headrace_workers.lines import LineWriter
from headrace_workers.process.worker import ProcessJobConfiguration, ProcessWorker
from headrace_workers.registry import find_worker_type
from headrace_workers.service import child_environment
from headrace_workers.supervisor import Supervisor


class PlainWorker(BaseWorker[BaseJobConfiguration]):
    """Ends when it is told to."""

    type = "plain"

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.killed: list[tuple[str, float]] = []
        self.told: list[str] = []
        self.end = asyncio.Event()

    async def run(
        self, configuration: BaseJobConfiguration, assignment: Assignment, started: Callable[[str], None]
    ) -> BaseWorkerResult:
        if self.error is not None:
            raise self.error
        started("plain:1")
        await self.end.wait()
        return BaseWorkerResult(137 if self.killed else 0, "it ended")

    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: BaseJobConfiguration, grace_seconds: float
    ) -> None:
        self.killed.append((infrastructure_id, grace_seconds))
        self.end.set()

    async def cancel_gently(
        self, infrastructure_id: str, configuration: BaseJobConfiguration, reason: str
    ) -> None:
        self.told.append(reason)


class Ends:
    """Notes what becomes of the work."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.exits: list[tuple[int | None, str, bool]] = []

    def started(self, attempt: Attempt, infrastructure_id: str) -> None:
        self.ids.append(infrastructure_id)

    def removed(self, attempt: Attempt, removed: bool) -> None:
        raise AssertionError("nothing is removed here")

    def exited(self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool) -> None:
        self.exits.append((exit_code, message, never_started))


def assignment(**variables: Any) -> Assignment:
    run_id = new_id()
    made = Assignment(
        attempt=AttemptRef(run_id=run_id, attempt=2, fence=5), run=Run(id=run_id, name="r", flow_name="f")
    )
    made.environment.update({"A": "deployment", "B": "deployment"})
    made.job_variables.update(variables)
    return made


def supervised(worker: PlainWorker) -> tuple[Supervisor, Ends]:
    supervisor = Supervisor(worker, PoolSnapshot, lambda _: None)
    supervisor.listener = ends = Ends()
    return supervisor, ends


async def test_the_environment_is_merged_from_the_settings_to_the_run() -> None:
    worker = PlainWorker()
    worker.facts = WorkerFacts("w", "p", {"A": "worker", "C": "worker", "D": "worker"})
    job = worker.configure(assignment(env={"B": "job", "D": None, "N": 3}), {})
    assert {name: job.env.get(name) for name in "ABCDN"} == {
        "A": "deployment",
        "B": "job",
        "C": "worker",
        "D": None,
        "N": "3",
    }
    assert (job.env["HEADRACE__ATTEMPT"], job.env["HEADRACE__FENCE"]) == ("2", "5")
    assert (job.name, job.command) == ("r", "headrace flow-run execute")
    assert job.labels["headrace.dev/flow-name"] == "f"


def test_fields_of_a_type_become_variables_of_its_pools() -> None:
    template = ProcessWorker.get_default_base_job_template()
    assert template["job_configuration"]["memory_limit"] == "{{ memory_limit }}"
    assert set(template["variables"]["properties"]) >= {"env", "working_dir", "stream_output", "memory_limit"}


@pytest.mark.parametrize(
    ("text", "bytes_"), [("512m", 512 * 1024**2), ("2g", 2 * 1024**3), ("1.5GiB", 3 * 2**29)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert ProcessJobConfiguration(memory_limit=text).memory_limit_bytes == bytes_


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'lots' is no size"):
        ProcessJobConfiguration(memory_limit="lots")


async def test_a_job_that_cannot_be_configured_has_never_started() -> None:
    supervisor, ends = supervised(PlainWorker())
    supervisor.begin(Attempt(new_id(), 1, 1), assignment(labels=["not", "a", "mapping"], name={"a": 1}))
    await supervisor.idle(20)
    [(code, message, never_started)] = ends.exits
    assert (code, never_started) == (None, True)
    assert "cannot be configured" in message


async def test_an_error_before_the_start_is_told_with_its_type() -> None:
    supervisor, ends = supervised(PlainWorker(RuntimeError("no such machine")))
    supervisor.begin(Attempt(new_id(), 1, 1), assignment())
    await supervisor.idle(20)
    assert ends.exits == [(None, "It could not be started: RuntimeError: no such machine", True)]


async def test_a_kill_says_why() -> None:
    worker = PlainWorker()
    supervisor, ends = supervised(worker)
    attempt = Attempt(new_id(), 1, 1)
    supervisor.begin(attempt, assignment())
    supervisor.kill(attempt, "somebody else has it")
    supervisor.kill(attempt, "again")
    await supervisor.idle(20)
    assert worker.killed[0] == ("plain:1", 0.0)
    assert ends.exits == [(137, "It was ended because somebody else has it.", False)]


async def test_a_cancellation_is_told_first_and_then_enforced() -> None:
    worker = PlainWorker()
    supervisor, ends = supervised(worker)
    attempt = Attempt(new_id(), 1, 1)
    supervisor.begin(attempt, assignment())
    await asyncio.sleep(0)
    supervisor.cancel(attempt, 0.2, "not wanted")
    supervisor.cancel(attempt, 0.2, "told twice")
    await supervisor.idle(20)
    assert worker.told == ["not wanted"]
    assert worker.killed == [("plain:1", 0.1)]
    assert "did not end by itself" in ends.exits[0][1]


def test_types_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_worker_type("process") is ProcessWorker
    group = registry.ENTRY_POINTS
    others = [
        EntryPoint("plain", f"{__name__}:PlainWorker", group),
        EntryPoint("gone", "no_such_module:Worker", group),
        EntryPoint("docker", "no_such_module:Worker", group),
        EntryPoint("wrong", f"{__name__}:Ends", group),
        EntryPoint("other", f"{__name__}:PlainWorker", group),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: others)
    assert find_worker_type("plain").type == "plain"
    for name, words in {
        "plian": "Did you mean 'plain'",
        "gone": "cannot be imported",
        "docker": r"pip install 'headrace\[docker\]'",
        "wrong": "no subclass of BaseWorker",
        "other": "calls itself 'plain'",
    }.items():
        with pytest.raises(ConfigurationError, match=words):
            find_worker_type(name)


def test_runs_inherit_the_settings_that_are_not_the_defaults() -> None:
    with temporary_settings({"home": "/tmp/h", "logging_level": "DEBUG", "logging_extra_loggers": "a,b"}):
        variables = child_environment(get_current_settings())
    assert variables["HEADRACE_HOME"] == "/tmp/h"
    assert variables["HEADRACE_LOGGING_LEVEL"] == "DEBUG"
    assert variables["HEADRACE_LOGGING_EXTRA_LOGGERS"] == "a,b"
    assert "HEADRACE_RESULTS_DEFAULT_SERIALIZER" not in variables


def test_lines_are_written_in_order_and_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(100):
        writer(str(number))
    writer.close(20)
    assert stream.getvalue().split() == [str(number) for number in range(100)]
    closed = io.StringIO()
    closed.close()
    gone = LineWriter(closed)
    gone("a line")
    gone.close(20)


def test_a_managed_pool_needs_no_worker() -> None:
    with pytest.raises(ConfigurationError, match="worked by the server itself"):
        find_worker_type("managed")
