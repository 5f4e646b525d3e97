"""Programs whose runs are cancelled or paused from outside, by a real server."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import ProposeStateRequest
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLING, State
from tests.support.scripts import Script
from tests.support.servers import ServerProcess, run_headrace

HEAD = """
import asyncio, ctypes, os, signal, sys, time
from headrace import flow, task
from headrace.exceptions import CancelledRun

def say(word):
    print(word, flush=True)

def tell(flow, flow_run, state):
    say(f"hook {state.name}")
"""
TAIL = """
try:
    subject()
except CancelledRun as error:
    say(f"cancelled: {error}")
"""
BODIES = {
    "sleeps": """
@task
def step():
    try:
        say("ready")
        time.sleep(60)
    finally:
        say("cleaned")

@flow(name="subject", on_cancellation=[tell])
def subject():
    step()
""",
    "awaits": """
@task
async def step():
    try:
        say("ready")
        await asyncio.sleep(60)
    finally:
        say("cleaned")

@flow(name="subject", on_cancellation=[tell])
async def body():
    await asyncio.gather(step(), asyncio.sleep(60))

def subject():
    asyncio.run(body())
""",
    "submits": """
@task
async def step():
    try:
        say("ready")
        await asyncio.sleep(60)
    finally:
        say("cleaned")

@flow(name="subject", on_cancellation=[tell])
def subject():
    step.submit().result()
""",
    "nests": """
@flow
def below():
    try:
        say("ready")
        while True:
            time.sleep(0.01)
    finally:
        say("cleaned")

@task
def step():
    below()

@flow(name="subject", on_cancellation=[tell])
def subject():
    step.submit().wait()
""",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"HEADRACE_SERVER_RECORDER_LEASE_SECONDS": "6", "HEADRACE_SERVER_RECORDER_RENEW_SECONDS": "1"}
    with ServerProcess(tmp_path_factory.mktemp("server"), settings=settings) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def start(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[Any]:
    scripts: list[Script] = []

    def begin(body: str, tail: str = TAIL) -> Script:
        scripts.append(Script(tmp_path / "program.py", HEAD + body + tail, server.environment))
        return scripts[-1].__enter__()

    yield begin
    for script in scripts:
        script.__exit__(None, None, None)


def newest(client: SyncHeadraceClient) -> Run:
    """The newest run of the flow, once the server has it."""
    return next(
        run for run in client.iter_runs(RunFilter(flow_names=["subject"], top_level_only=True), page_size=1)
    )


def ended(client: SyncHeadraceClient, run_id: str) -> Run:
    for event in client.watch_runs(RunFilter(ids=[run_id])):
        if event.upsert.HasField("end_time"):
            return event.upsert
    raise AssertionError("the watch has ended")


def names(client: SyncHeadraceClient, run_id: str) -> list[str]:
    return [state.name for state in client.iter_states(run_id)]


def assert_nothing_is_left(client: SyncHeadraceClient, run_id: str) -> None:
    """Every run of the tree has ended; the server sweeps once a second."""
    deadline = time.monotonic() + 60
    while left := [
        r for r in client.iter_runs(RunFilter(root_run_ids=[run_id])) if not r.HasField("end_time")
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("body", BODIES)
def test_a_program_whose_run_is_cancelled_from_the_command_line(
    body: str, server: ServerProcess, client: SyncHeadraceClient, start: Any
) -> None:
    script = start(BODIES[body])
    script.reached("ready")
    run_id = newest(client).id
    done = run_headrace(
        *("flow-run", "cancel", run_id, "--reason", "Enough.", "-o", "json"), environment=server.environment
    )
    assert done.returncode == 0, done.stderr
    assert "is being cancelled: its process is told." in done.stderr
    assert json.loads(done.stdout)[0]["state"]["name"] in ("Cancelling", "Cancelled")
    for word in ("cleaned", "hook Cancelling", "cancelled: Enough."):
        script.reached(word)
    script.finish()
    assert names(client, run_id) == ["Pending", "Running", "Cancelling", "Cancelled"]
    assert client.get_run(run_id).state.message == "Enough."
    assert_nothing_is_left(client, run_id)


def test_a_run_that_has_ended_cannot_be_cancelled(
    server: ServerProcess, client: SyncHeadraceClient, start: Any
) -> None:
    start('\n@flow(name="subject")\ndef subject(): ...\n').finish()
    run = newest(client)
    refused = run_headrace("flow-run", "cancel", run.name, environment=server.environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be cancelled: The run has ended: it is Completed." in refused.stderr


HANGS = """
@flow(name="subject")
def subject():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    say("ready")
    (ctypes.CDLL if HOLDS_NOTHING else ctypes.PyDLL)(None).usleep(60_000_000)
"""


@pytest.mark.parametrize("holds_the_interpreter", [False, True])
def test_a_program_that_hangs_in_c_code(
    holds_the_interpreter: bool, client: SyncHeadraceClient, start: Any
) -> None:
    script = start(HANGS.replace("HOLDS_NOTHING", str(not holds_the_interpreter)))
    script.reached("ready")
    run_id = newest(client).id
    client.cancel_run(run_id, reason="Enough.", grace_seconds=1)
    run = ended(client, run_id)
    # On the server's clock: a busy machine may take its time to tell.
    *_, asked, done = client.iter_states(run_id)
    assert (asked.name, done.name) == ("Cancelling", "Cancelled")
    assert 1 <= (micros(done) - micros(asked)) / 1e6 < 1 + 5
    assert run.state.name == "Cancelled"
    assert run.state.message == "Enough. Its process did not end it within 1 s."
    script.kill()


def test_a_program_that_is_killed_while_it_is_cancelled(client: SyncHeadraceClient, start: Any) -> None:
    script = start(HANGS.replace("HOLDS_NOTHING", "True"))
    script.reached("ready")
    run_id = newest(client).id
    client.cancel_run(run_id, grace_seconds=60)
    script.kill()
    assert ended(client, run_id).state.name == "Cancelled"


def test_a_program_that_is_killed_before_is_crashed(client: SyncHeadraceClient, start: Any) -> None:
    script = start(BODIES["sleeps"])
    script.reached("ready")
    script.kill()
    assert ended(client, newest(client).id).state.name == "Crashed"


TERMINATED = "Execution was aborted by a termination signal."
INTERRUPTED = "Execution was aborted by an interrupt signal."
# `asyncio.run` takes Ctrl-C itself, and cancels its task.
CANCELLED_BY_ASYNCIO = "Execution was cancelled by the runtime environment."


@pytest.mark.parametrize(
    ("number", "body", "message", "codes"),
    [
        (signal.SIGTERM, "sleeps", TERMINATED, {143}),
        (signal.SIGTERM, "awaits", TERMINATED, {143}),
        (signal.SIGINT, "sleeps", INTERRUPTED, {130, -signal.SIGINT}),
        (signal.SIGINT, "awaits", CANCELLED_BY_ASYNCIO, {130, -signal.SIGINT}),
    ],
)
def test_a_signal_without_the_wish_to_cancel(
    number: int, body: str, message: str, codes: set[int], client: SyncHeadraceClient, start: Any
) -> None:
    script = start(BODIES[body])
    script.reached("ready")
    os.kill(script.process.pid, number)
    script.reached("cleaned")
    script.process.communicate(timeout=60)
    state = ended(client, newest(client).id).state
    assert (state.name, state.message) == ("Crashed", message)
    assert script.process.returncode in codes


@pytest.mark.parametrize("body", ["sleeps", "awaits"])
def test_a_signal_with_the_wish_to_cancel(body: str, client: SyncHeadraceClient, start: Any) -> None:
    """As a worker ends a process: the wish first, then the signal, whichever is noticed first."""
    script = start(BODIES[body])
    script.reached("ready")
    run_id = newest(client).id
    client.cancel_run(run_id)
    os.kill(script.process.pid, signal.SIGTERM)
    script.process.communicate(timeout=60)
    assert ended(client, run_id).state.name == "Cancelled"
    assert_nothing_is_left(client, run_id)


def test_a_run_is_cancelled_by_proposing_it_too(client: SyncHeadraceClient, start: Any) -> None:
    script = start(BODIES["sleeps"])
    script.reached("ready")
    proposed = State(
        id="01900000-0000-7000-8000-000000000001", type=STATE_TYPE_CANCELLING, message="Proposed."
    )
    proposed.event_time.GetCurrentTime()
    client.propose_state(ProposeStateRequest(run_id=newest(client).id, state=proposed))
    for word in ("cleaned", "hook Cancelling", "cancelled: Proposed."):
        script.reached(word)
    script.finish()


# Pausing

PAUSED = """
from headrace.context import FlowRunContext

@task
def step(number):
    say(f"step {number}")

@flow
def below():
    step(2)

@flow(name="subject", on_cancellation=[tell])
def subject():
    step(1)
    while FlowRunContext.get().gate is None:
        time.sleep(0.01)
    say("told")
    below()
    step.submit(3).wait()
    return 4
"""


def test_a_run_is_paused_from_outside_until_it_is_resumed(
    server: ServerProcess, client: SyncHeadraceClient, start: Any
) -> None:
    script = start(PAUSED, "\nsay(subject())\n")
    script.reached("step 1")
    run_id = newest(client).id
    done = run_headrace("flow-run", "pause", run_id, environment=server.environment)
    assert done.returncode == 0, done.stderr
    assert "is paused: it waits before its next task." in done.stderr
    script.reached("told")
    assert client.get_run(run_id).state.name == "Paused"
    resumed = run_headrace("flow-run", "resume", run_id, environment=server.environment)
    assert resumed.returncode == 0, resumed.stderr
    for word in ("step 2", "step 3", "4"):
        script.reached(word)
    script.finish()
    states = list(client.iter_states(run_id))
    assert [state.name for state in states] == ["Pending", "Running", "Paused", "Running", "Completed"]
    assert client.get_run(run_id).run_count == 1
    children = [run for run in client.iter_runs(RunFilter(root_run_ids=[run_id])) if run.id != run_id]
    began_later = [run.start_time.ToMicroseconds() > micros(states[3]) for run in children]
    assert sorted(began_later) == [False, True, True, True]


def micros(state: State) -> int:
    return state.record_time.ToMicroseconds()


def test_a_run_that_was_paused_from_outside_can_be_cancelled(
    server: ServerProcess, client: SyncHeadraceClient, start: Any
) -> None:
    script = start(PAUSED)
    script.reached("step 1")
    run_id = newest(client).id
    assert run_headrace("flow-run", "pause", run_id, environment=server.environment).returncode == 0
    script.reached("told")
    client.cancel_run(run_id, reason="Enough.")
    for word in ("hook Cancelling", "cancelled: Enough."):
        script.reached(word)
    script.finish()
    assert_nothing_is_left(client, run_id)


def test_a_pause_from_outside_that_nobody_ends(
    server: ServerProcess, client: SyncHeadraceClient, start: Any
) -> None:
    script = start(PAUSED, "\ntry:\n    subject()\nexcept BaseException as error:\n    say(repr(error))\n")
    script.reached("step 1")
    run_id = newest(client).id
    paused = run_headrace("flow-run", "pause", run_id, "--timeout", "2", environment=server.environment)
    assert paused.returncode == 0, paused.stderr
    script.reached("told")
    script.reached("Abort('The flow run does not go on here: it is Failed.')")
    script.finish()
    assert ended(client, run_id).state.message == "The run was paused and never resumed."


def test_a_run_that_does_not_run_cannot_be_paused(server: ServerProcess, start: Any, client: Any) -> None:
    start('\n@flow(name="subject")\ndef subject(): ...\n').finish()
    refused = run_headrace("flow-run", "pause", newest(client).id, environment=server.environment)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be paused" in refused.stderr
