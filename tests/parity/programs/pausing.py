"""Pauses of a run in its process."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from plain import ended, outcome

from headrace import flow, task
from headrace.flow_runs import pause_flow_run, resume_flow_run
from headrace.input import RunInput
from headrace.runtime import flow_run


class Answer(RunInput):
    number: int
    word: str = "none"


def _resumed(run_input: Any, body: Any) -> Any:
    """What a flow run with that body gives when somebody resumes it."""
    ids: list[str] = []

    def resume() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if not ids:
                continue
            try:
                resume_flow_run(uuid.UUID(ids[0]), run_input=run_input)
                return
            except Exception:
                continue  # not paused yet

    @flow
    def around() -> Any:
        ids.append(flow_run.id)
        return body()

    thread = threading.Thread(target=resume)
    thread.start()
    value = outcome(around)
    thread.join()
    return value


def program_pausing() -> dict[str, Any]:
    @flow
    def impatient() -> None:
        pause_flow_run(timeout=1, poll_interval=1)

    @task
    def pausing_task() -> None:
        pause_flow_run(timeout=1, poll_interval=1)

    @flow
    def negative() -> None:
        pause_flow_run(timeout=-1)

    def for_an_answer() -> Any:
        answer = pause_flow_run(wait_for_input=Answer, timeout=60, poll_interval=1)
        return [type(answer).__name__, answer.number, answer.word]

    return {
        "outside": outcome(lambda: pause_flow_run(timeout=1)),
        "not resumed": ended(impatient(return_state=True), message=False),
        "not resumed: raised": outcome(impatient),
        "a negative time": outcome(negative),
        "resumed": _resumed(None, lambda: pause_flow_run(timeout=60, poll_interval=1)),
        "a number": _resumed(
            {"value": 5}, lambda: pause_flow_run(wait_for_input=int, timeout=60, poll_interval=1)
        ),
        "a model": _resumed({"number": 7}, for_an_answer),
        "resuming what does not exist": outcome(lambda: resume_flow_run(uuid.UUID(int=5))),
    }
