"""A durable flow of many steps that is run again when all of them have completed: `replays.py ADDRESS`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

os.environ["HEADRACE_API_URL"] = sys.argv[1]

from headrace import flow, task
from headrace.client import get_client
from headrace.execution.attempts import run_flow_attempt

logging.disable(logging.ERROR)


@task
def step(number: int) -> int:
    return number


@flow(durable=True)
def replayed(count: int, is_over: bool) -> None:
    for number in range(count):
        step(number)
    if not is_over:
        raise ValueError("again")


def replay(count: int) -> tuple[float, float]:
    """Seconds until the flow has completed that is run again, and CPU seconds of this process."""
    failed = replayed(count, False, return_state=True)
    with get_client(sync_client=True) as client:
        run = client.take_over_run(failed.state_details.flow_run_id or "")
    start, start_cpu = time.perf_counter(), time.process_time()
    state = run_flow_attempt(replayed, run.id, run.attempt, run.fence, {"count": count, "is_over": True})
    assert state.is_completed(), state
    return time.perf_counter() - start, time.process_time() - start_cpu


def main() -> None:
    for line in sys.stdin:
        seconds, cpu = replay(json.loads(line)["count"])
        print(json.dumps({"seconds": seconds, "cpu": cpu}), flush=True)


main()
