"""Background runs that are handed out again after their worker was lost."""

from __future__ import annotations

import pytest

from headrace import task
from headrace.core.ids import new_id
from headrace.exceptions import LostInFlight
from headrace.execution.task_attempts import TaskAttempt
from headrace.v1.run_pb2 import RUN_KIND_TASK, Run
from headrace.v1.state_pb2 import STATE_TYPE_PENDING
from tests.support.recorders import MemoryRecorder


def handed_out(run_count: int) -> Run:
    """A run as the server has it when it hands out its second attempt."""
    run = Run(id=new_id(), kind=RUN_KIND_TASK, name="pay", task_name="pay", run_count=run_count)
    run.root_run_id = run.owner_run_id = run.id
    run.state.type, run.state.name, run.state.id = STATE_TYPE_PENDING, "Pending", new_id()
    run.state.event_time.GetCurrentTime()
    return run


@pytest.mark.parametrize(
    ("idempotent", "run_count", "runs"), [(False, 1, False), (False, 0, True), (True, 1, True)]
)
def test_what_has_begun_and_is_not_idempotent_is_not_run_again(
    idempotent: bool, run_count: int, runs: bool, recorder: MemoryRecorder
) -> None:
    ran: list[int] = []
    pay = task(name="pay", idempotent=idempotent)(lambda: ran.append(1))
    recorded = handed_out(run_count)
    state = TaskAttempt(pay, recorded, attempt=2, fence=2).run()
    assert bool(ran) == runs
    assert (state.type.value, state.name) == (
        ("COMPLETED", "Completed") if runs else ("FAILED", "LostInFlight")
    )
    assert isinstance(state.data, LostInFlight) != runs
    kept = [entry.state for entry in recorder.entries if entry.HasField("state")]
    assert [one.state.name for one in kept] == (["Running", "Completed"] if runs else ["LostInFlight"])
