"""Waiting for flow runs that run elsewhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from headrace import flow, get_client, task
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import new_id
from headrace.exceptions import FlowRunWaitTimeout
from headrace.flow_runs import wait_for_flow_run
from headrace.recorder import get_recorder
from headrace.testing import headrace_test_harness
from headrace.v1.run_pb2 import RunFilter


@pytest.fixture(autouse=True)
def harness() -> Iterator[None]:
    with headrace_test_harness():
        yield


def begun(name: str, go_on: threading.Event) -> tuple[str, threading.Thread]:
    """A run of a flow that waits in another thread, and its id."""
    ids: list[str] = []
    has_begun = threading.Event()

    @flow(name=name)
    def waits() -> dict[str, int]:
        from headrace.runtime import flow_run

        ids.append(flow_run.id or "")
        has_begun.set()
        go_on.wait(60)
        return {"answer": 42}

    thread = threading.Thread(target=waits)
    thread.start()
    assert has_begun.wait(60)
    return ids[0], thread


async def test_it_is_told_at_once_and_has_the_result(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()
    run_id, thread = begun("waits", go_on)
    caplog.set_level(logging.INFO)
    logged = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is in state 'Running'" in record.getMessage():
                loop.call_soon_threadsafe(logged.set)

    listener = Listener()
    logging.getLogger("headrace.flow_runs").addHandler(listener)
    waiting = asyncio.ensure_future(wait_for_flow_run(run_id, log_states=True))
    await asyncio.wait_for(logged.wait(), 60)
    logging.getLogger("headrace.flow_runs").removeHandler(listener)
    go_on.set()
    run = await asyncio.wait_for(waiting, 60)
    thread.join()
    assert (run.id, run.flow_name) == (run_id, "waits")
    assert run.state is not None
    assert await run.state.aresult() == {"answer": 42}
    assert "is in state 'Completed'" in caplog.text
    # One that has ended is there at once, by way of a client that is open.
    async with get_client() as client:
        again = await wait_for_flow_run(run_id, timeout=60, client=client)
    assert again.state is not None and again.state.is_completed()


async def test_in_time_or_not_at_all() -> None:
    go_on = threading.Event()
    run_id, thread = begun("slow", go_on)
    with pytest.raises(FlowRunWaitTimeout, match=r"exceeded watch timeout of 0\.3 seconds"):
        await wait_for_flow_run(run_id, timeout=0.3)
    go_on.set()
    thread.join()


async def test_what_cannot_be_waited_for() -> None:
    @task(name="alone")
    def alone() -> None: ...

    await asyncio.to_thread(alone)
    assert await asyncio.to_thread(get_recorder().flush, 20)
    with pytest.raises(ObjectNotFound):
        await wait_for_flow_run(new_id(), timeout=60)
    async with get_client() as client:
        [run] = [run async for run in client.iter_runs(RunFilter(task_names=["alone"]))]
        with pytest.raises(ValueError, match="no flow run"):
            await wait_for_flow_run(run.id, timeout=60, client=client)
