"""SIGTERM of `headrace flow-run execute`, as infrastructure sends it that is taken away: three ways to go on,
at three moments. A worker reduced to the wire holds the runs; the tests are the infrastructure."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from headrace.client import get_client
from headrace.client.api import HeadraceClient
from headrace.core.ids import new_id
from headrace.settings import process_settings
from headrace.v1.run_pb2 import RUN_KIND_FLOW, LostAttemptPolicy, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.work_pool_pb2 import WorkPool
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import run_environment
from tests.support.servers import ServerProcess
from tests.support.workers import WireWorker

FLOWS = """
import os, pathlib, time
from headrace import flow, task

folder, moment = pathlib.Path(os.environ["FOLDER"]), os.environ["MOMENT"]

def reach(here):
    if here == moment and not (folder / "go").exists():
        (folder / here).touch()
        while not (folder / "go").exists():
            time.sleep(0.01)

reach("before the start")

@task
def work():
    reach("in a task")

def hook(flow, run, state):
    reach("after the end")
    (folder / "hooked").touch()

@flow(retries=1, retry_delay_seconds=600)
def retrying():
    (folder / moment).touch()
    raise ValueError("the first time")

@flow(on_completion=[hook], on_cancellation=[hook])
def body():
    work()
"""
EVER = ("before the start", "in a task", "after the end")
SIGTERM_EXIT = 128 + signal.SIGTERM
POLICIES = {
    "crash": LostAttemptPolicy.LOST_ATTEMPT_POLICY_CRASH,
    "reschedule": LostAttemptPolicy.LOST_ATTEMPT_POLICY_RESCHEDULE,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with (
        ServerProcess(tmp_path_factory.mktemp("server")) as process,
        process_settings({"home": str(process.home), "api_url": process.address}),
    ):
        yield process


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[HeadraceClient]:
    async with get_client() as opened:
        yield opened


class Infrastructure:
    """Starts the process of an attempt, as often as it likes."""

    def __init__(self, server: ServerProcess, folder: Path, moment: str, assignment: Assignment) -> None:
        self.folder, self.moment, self.attempt = folder, moment, assignment.attempt
        self.environment = {
            **server.environment,
            **run_environment(assignment),
            "HEADRACE_API_URL": server.address,
            "HEADRACE__ENTRYPOINT": f"{folder / 'flows.py'}:body",
            "FOLDER": str(folder),
            "MOMENT": moment,
        }

    async def start(self, **settings: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace", "flow-run", "execute"),
            env={**self.environment, **settings},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    @asynccontextmanager
    async def reached(self, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start it; inside, it is at the moment. At the end it is waited for."""
        process = await self.start(**settings)
        try:
            async with asyncio.timeout(60):
                while not (self.folder / self.moment).exists():
                    assert process.returncode is None
                    await asyncio.sleep(0.01)
                yield process
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()

    async def terminated(self, **settings: str) -> int:
        """Start it, end it at the moment; the exit code."""
        async with self.reached(**settings) as process:
            process.send_signal(signal.SIGTERM)
            if self.moment == "after the end":
                (self.folder / "go").touch()  # what was begun is seen through
        assert process.returncode is not None
        return process.returncode

    async def seen_through(self) -> int:
        """Start it again, and let it come to its end."""
        (self.folder / "go").touch()
        process = await self.start()
        async with asyncio.timeout(60):
            return await process.wait()


@asynccontextmanager
async def held(
    server: ServerProcess, client: HeadraceClient, folder: Path, on_lost: str
) -> AsyncIterator[tuple[WireWorker, list[Infrastructure]]]:
    """A run for each moment, and the worker that holds them."""
    pool = f"pool-{new_id()}"
    await client.create_work_pool(WorkPool(name=pool, type="process"))
    moments: dict[str, str] = {}
    for moment in EVER:
        run = Run(id=new_id(), kind=RUN_KIND_FLOW, name=moment, flow_name="body", work_pool=pool)
        run.parameters.encoding, run.parameters.inline = "json", json.dumps({}).encode()
        run.retry_policy.on_lost = POLICIES[on_lost]
        await client.create_run(CreateRunRequest(run=run))
        moments[run.id] = moment
    async with (
        grpc.aio.insecure_channel(server.address) as channel,
        WireWorker(channel, pool, credit=3) as worker,
    ):
        made: dict[str, Infrastructure] = {}
        for _ in EVER:
            assignment = await worker.assignment()
            await worker.accept(assignment)
            moment = moments[assignment.run.id]
            place = folder / moment.replace(" ", "-")
            place.mkdir()
            (place / "flows.py").write_text(FLOWS)
            made[moment] = Infrastructure(server, place, moment, assignment)
        yield worker, [made[moment] for moment in EVER]


async def names(client: HeadraceClient, run_id: str) -> list[str]:
    """Of the run's states, after the one that it was made with."""
    return [state.name async for state in client.iter_states(run_id)][1:]


async def test_by_default_a_run_that_is_not_to_be_run_again_crashes(
    server: ServerProcess, client: HeadraceClient, tmp_path: Path
) -> None:
    async with held(server, client, tmp_path, "crash") as (_, [before, within, after]):
        codes = await asyncio.gather(before.terminated(), within.terminated(), after.terminated())
        runs = [await client.get_run(one.attempt.run_id) for one in (before, within, after)]
    assert codes == [SIGTERM_EXIT, SIGTERM_EXIT, 0]
    assert [run.state.name for run in runs] == ["Crashed", "Crashed", "Completed"]
    assert "The flow had not begun" in runs[0].state.message
    assert "termination signal" in runs[1].state.message
    assert (after.folder / "hooked").exists()


async def test_by_default_a_run_that_may_be_run_again_is_at_once(
    server: ServerProcess, client: HeadraceClient, tmp_path: Path
) -> None:
    async with held(server, client, tmp_path, "reschedule") as (worker, [before, within, after]):
        codes = await asyncio.gather(before.terminated(), within.terminated(), after.terminated())
        assert codes == [0, 0, 0]
        await worker.grant(2)
        again = {one.run.id: one for one in (await worker.assignment(), await worker.assignment())}
        assert again.keys() == {before.attempt.run_id, within.attempt.run_id}
        for one in again.values():
            assert one.attempt.attempt == 2
            assert one.attempt.fence > before.attempt.fence
        assert await names(client, before.attempt.run_id) == ["Pending", "AwaitingRetry", "Pending"]
        kept = ["Pending", "Running", "AwaitingRetry", "Pending"]
        assert await names(client, within.attempt.run_id) == kept
        assert (await client.get_run(after.attempt.run_id)).state.name == "Completed"
        # Whoever comes late finds that the run is another's.
        assert await within.seen_through() == 0
        assert await names(client, within.attempt.run_id) == kept


async def test_a_run_can_be_left_to_its_infrastructure(
    server: ServerProcess, client: HeadraceClient, tmp_path: Path
) -> None:
    said = {"HEADRACE_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "relinquish"}
    async with held(server, client, tmp_path, "crash") as (worker, [before, within, after]):
        three = (before, within, after)
        codes = await asyncio.gather(*(one.terminated(**said) for one in three))
        assert codes == [SIGTERM_EXIT, SIGTERM_EXIT, 0]
        runs = [await client.get_run(one.attempt.run_id) for one in three]
        assert [run.state.name for run in runs] == ["Pending", "AwaitingRetry", "Completed"]
        await worker.grant(3)
        await worker.heartbeat(before.attempt, within.attempt)
        assert [await before.seen_through(), await within.seen_through()] == [0, 0]
        for one in (before, within):
            run = await client.get_run(one.attempt.run_id)
            assert run.state.name == "Completed"
            assert (run.attempt, run.fence) == (one.attempt.attempt, one.attempt.fence)
        assert len(worker.assignments) == 3, "nobody else was given them meanwhile"


async def test_what_is_being_cancelled_is_cancelled(
    server: ServerProcess, client: HeadraceClient, tmp_path: Path
) -> None:
    """Workers of Docker and Kubernetes send the signal to end a cancelled run: that goes on nowhere."""
    async with held(server, client, tmp_path, "reschedule") as (_, [_, within, _]):
        async with within.reached() as process:
            process.send_signal(signal.SIGSTOP)  # it hears of neither before both are there
            await client.cancel_run(within.attempt.run_id)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        expected = ["Pending", "Running", "Cancelling", "Cancelled"]
        assert await names(client, within.attempt.run_id) == expected
        assert (within.folder / "hooked").exists()


async def test_a_run_that_nobody_would_be_given_crashes(
    server: ServerProcess, client: HeadraceClient, tmp_path: Path
) -> None:
    """It has no deployment and no pool, and waits for its retry, which is SCHEDULED, too."""
    run = Run(id=new_id(), kind=RUN_KIND_FLOW, name="lone", flow_name="retrying")
    run.parameters.encoding, run.parameters.inline = "json", b"{}"
    run = (await client.create_run(CreateRunRequest(run=run))).run
    (tmp_path / "flows.py").write_text(FLOWS)
    assignment = Assignment(run=run, on_lost=POLICIES["reschedule"])
    assignment.attempt.run_id, assignment.attempt.attempt, assignment.attempt.fence = run.id, 1, run.fence
    lone = Infrastructure(server, tmp_path, "failed", assignment)
    lone.environment["HEADRACE__ENTRYPOINT"] = f"{tmp_path / 'flows.py'}:retrying"
    async with lone.reached() as process:
        while (await client.get_run(run.id)).state.name != "AwaitingRetry":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == SIGTERM_EXIT
    assert await names(client, run.id) == ["Pending", "Running", "AwaitingRetry", "Crashed"]
