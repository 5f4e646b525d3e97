"""Delays that are skipped, in every kind of run, on a real server too."""

from __future__ import annotations

import time

import pytest

from headrace import flow, get_client, task
from headrace.runtime import flow_run, task_run
from headrace.testing import headrace_test_harness, skip_time
from headrace.v1.run_pb2 import RunFilter
from tests.support.recorders import MemoryRecorder

HOUR = 3600.0


@task(retries=2, retry_delay_seconds=[HOUR, 2 * HOUR])
def third_time() -> int:
    if task_run.run_count < 3:
        raise ValueError("not yet")
    return task_run.run_count


@task(retries=1, retry_delay_seconds=HOUR)
async def second_time() -> int:
    if task_run.run_count < 2:
        raise ValueError("not yet")
    return task_run.run_count


@flow(retries=1, retry_delay_seconds=5 * HOUR)
def patient() -> int:
    if flow_run.run_count < 2:
        raise ValueError("not yet")
    return flow_run.run_count


def test_delays_of_tasks_in_threads_and_loops(recorder: MemoryRecorder) -> None:
    @flow
    def both() -> list[int]:
        return [third_time(), *[future.result() for future in (third_time.submit(), second_time.submit())]]

    started = time.monotonic()
    with skip_time() as skipping:
        assert both() == [3, 3, 2]
    assert sorted(skipping.skipped) == [HOUR, HOUR, HOUR, 2 * HOUR, 2 * HOUR]
    assert time.monotonic() - started < 60


async def test_delays_of_coroutines(recorder: MemoryRecorder) -> None:
    with skip_time() as skipping:
        assert await second_time() == 2
    assert skipping.skipped == [HOUR]


def test_states_are_as_far_apart_as_the_delays() -> None:
    with headrace_test_harness(), skip_time() as skipping:
        assert patient() == 2
        with get_client(sync_client=True) as client:
            run = next(iter(client.iter_runs(RunFilter(flow_names=["patient"]))))
            states = list(client.iter_states(run.id))
    assert skipping.skipped == [5 * HOUR]
    assert [state.name for state in states] == [
        "Pending",
        "Running",
        "AwaitingRetry",
        "Retrying",
        "Completed",
    ]
    awaiting, retrying = states[2], states[3]
    waited = retrying.event_time.ToMicroseconds() - awaiting.event_time.ToMicroseconds()
    assert 5 * HOUR * 1e6 <= waited < 5 * HOUR * 1e6 + 60e6


def test_time_is_as_before_afterwards(recorder: MemoryRecorder) -> None:
    with pytest.raises(ZeroDivisionError), skip_time():
        _ = 1 / 0

    @task(retries=1, retry_delay_seconds=0.05)
    def quick() -> None:
        if task_run.run_count < 2:
            raise ValueError

    started = time.monotonic()
    quick()
    assert time.monotonic() - started >= 0.05


def test_skipping_by_hand_moves_the_clock_of_runs(recorder: MemoryRecorder) -> None:
    @task
    def now() -> None:
        pass

    with skip_time() as skipping:
        before = now(return_state=True).timestamp
        skipping.skip(HOUR)
        assert (now(return_state=True).timestamp - before).total_seconds() >= HOUR
        with pytest.raises(ValueError, match="time does not go back"):
            skipping.skip(-1)
