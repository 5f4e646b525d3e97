"""Cancelling from outside: who is asked, who is told, and what the server ends itself."""

from __future__ import annotations

import pytest

from headrace.core.errors import ObjectNotFound, TransitionNotAllowed
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.state_pb2 import State
from headrace_services.storage.database import Database
from headrace_services.storage.work import TimerKind
from tests.storage.build import (
    SECOND,
    START,
    ManualClock,
    Recording,
    flow_run,
    record,
    run_of,
    state,
    task_run,
)


def asked(grace_seconds: float | None = None, message: str = "Not today.") -> State:
    """The state that a request to cancel proposes."""
    built = state("CANCELLING", START + SECOND, message=message)
    if grace_seconds is not None:
        built.cancel.grace.FromMicroseconds(int(grace_seconds * SECOND))
    return built


async def running(recording: Recording, run: Run) -> Run:
    await recording.run_through(run, ["PENDING", "RUNNING"])
    return run


async def history(database: Database, run: Run) -> list[tuple[str, str]]:
    return [(s.name, s.message) for s in (await database.reader.list_states(run.id))[0]]


async def names(database: Database, run: Run) -> list[str]:
    return [name for name, _ in await history(database, run)]


async def settle(database: Database, clock: ManualClock) -> list[str]:
    """Do what is due, as the loop of the server does; gives the runs it was about."""
    due = await database.reader.due_timers(TimerKind.CANCEL, clock.now())
    for run_id, state_id, _ in due:
        await database.writer.settle_cancellation(run_id, state_id)
    return [run_id for run_id, *_ in due]


async def test_a_held_run_is_told_for_as_long_as_it_is_cancelling(
    database: Database, recording: Recording
) -> None:
    flow = await running(recording, flow_run())
    assert await database.reader.directives() == []
    verdict = await database.writer.cancel_run(flow.id, asked(9))
    assert verdict.accepted.state.message == "Not today."
    for _ in range(2):
        ((recorder_id, directive),) = await database.reader.directives()
        assert (recorder_id, directive.run_id) == (recording.id, flow.id)
        assert directive.state.id == verdict.accepted.state.id
        # Nine seconds, and two for the report of whoever used all of them.
        assert directive.cancel.deadline.ToMicroseconds() == START + 11 * SECOND
    assert (await database.reader.get_run(flow.id)).cancel_requested
    await recording.post(record(flow, state("CANCELLED", START + 2 * SECOND), want_verdict=True))
    assert await database.reader.directives() == []
    assert await names(database, flow) == ["Pending", "Running", "Cancelling", "Cancelled"]


async def test_the_same_request_twice_is_one(database: Database, recording: Recording) -> None:
    flow, wish = await running(recording, flow_run()), asked()
    first = await database.writer.cancel_run(flow.id, wish)
    again = await database.writer.cancel_run(flow.id, wish)
    assert first.accepted.state.id == again.accepted.state.id == wish.id
    other = await database.writer.cancel_run(flow.id, asked())
    assert other.rejected.reason == "The run is being cancelled."
    assert await names(database, flow) == ["Pending", "Running", "Cancelling"]


@pytest.mark.parametrize("types", [["SCHEDULED"], ["PENDING"], ["RUNNING"], ["RUNNING", "PAUSED"]])
async def test_a_run_that_nobody_holds_has_ended_at_once(database: Database, types: list[str]) -> None:
    run, _ = await database.writer.create_run(flow_run())
    for type in types:
        await database.writer.propose_state(run.id, None, state(type, START))
    verdict = await database.writer.cancel_run(run.id, asked())
    assert (verdict.rejected.state.name, verdict.rejected.state.message) == ("Cancelled", "Not today.")
    assert (await database.reader.get_run(run.id)).HasField("end_time")


async def test_a_sealed_recorder_holds_nothing(database: Database, recording: Recording) -> None:
    flow = await running(recording, flow_run())
    await database.writer.crash_recorder(recording.id, "gone", 1)
    verdict = await database.writer.cancel_run(flow.id, asked())
    assert verdict.abort.reason == "The run has ended: it is Crashed."


async def test_task_runs(database: Database, recording: Recording) -> None:
    flow = await running(recording, flow_run())
    below = await running(recording, task_run(flow))
    with pytest.raises(TransitionNotAllowed, match="cancel that one"):
        await database.writer.cancel_run(below.id, asked())
    alone = await running(recording, Run(id=new_id(), kind=2, name="t", task_name="t", task_key="t"))
    verdict = await database.writer.cancel_run(alone.id, asked())
    assert verdict.accepted.state.name == "Cancelling"
    assert [(d.run_id, d.HasField("cancel")) for _, d in await database.reader.directives()] == [
        (alone.id, True)
    ]
    unheld, _ = await database.writer.create_run(
        Run(id=new_id(), kind=2, name="t", task_name="t", task_key="t")
    )
    verdict = await database.writer.cancel_run(unheld.id, asked())
    assert verdict.accepted.state.name == "Cancelled"
    with pytest.raises(ObjectNotFound):
        await database.writer.cancel_run(new_id(), asked())


async def test_a_process_that_does_not_obey_loses_the_run(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    flow = await running(recording, flow_run())
    child = await running(recording, task_run(flow))
    subflow = await running(recording, flow_run("sub", root_run_id=flow.id, parent_run_id=child.id))
    done = task_run(flow, "done")
    await recording.run_through(done, ["RUNNING", "COMPLETED"])
    await database.writer.cancel_run(flow.id, asked(5))
    clock.advance(6)
    assert await settle(database, clock) == []
    clock.advance(1)
    assert await settle(database, clock) == [flow.id]
    assert (await history(database, flow))[-1] == (
        "Cancelled",
        "Not today. Its process did not end it within 5 s.",
    )
    for run in (child, subflow):
        assert (await history(database, run))[-1] == ("Cancelled", "The run above it was cancelled.")
    assert await names(database, done) == ["Running", "Completed"]
    # The process hears that the run is not its own any longer, and what it says is refused.
    attempt = AttemptRef(run_id=flow.id, attempt=1, fence=1)
    (verdict,) = await database.writer.renew_recorders({recording.id: START}, [attempt])
    assert (verdict.lost, verdict.reason) == (True, "The run has ended: it is Cancelled.")
    ((_, refused),) = (await recording.post(record(child, state("COMPLETED", START + 9 * SECOND)))).results
    assert refused.reason == "STALE_ATTEMPT"
    assert await settle(database, clock) == []


async def test_nothing_below_a_cancelled_run_is_left(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    """As when a body was interrupted whose tasks were still waiting for others."""
    flow = await running(recording, flow_run())
    waiting = task_run(flow)
    await recording.run_through(waiting, ["PENDING"])
    own, _ = await database.writer.create_run(
        flow_run("deployed", root_run_id=flow.id, parent_run_id=flow.id, owner_run_id="")
    )
    on_its_own = flow_run("held", root_run_id=flow.id, parent_run_id=flow.id)
    on_its_own.owner_run_id = on_its_own.id
    await running(recording, on_its_own)
    below_it = task_run(on_its_own, owner_run_id=on_its_own.id)
    below_it.root_run_id = flow.id
    await running(recording, below_it)
    await database.writer.cancel_run(flow.id, asked())
    await recording.post(record(flow, state("CANCELLED", START + 2 * SECOND), want_verdict=True))
    assert await settle(database, clock) == [flow.id]
    assert await names(database, waiting) == ["Pending", "Cancelled"]
    assert (await names(database, own))[-1] == "Cancelled"
    # What was started on its own has a process that is asked, and ends what is below it.
    assert await names(database, on_its_own) == ["Pending", "Running", "Cancelling"]
    assert await names(database, below_it) == ["Pending", "Running"]
    assert await settle(database, clock) == []


async def test_a_run_that_goes_on_is_left_alone(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    flow = await running(recording, flow_run())
    await database.writer.cancel_run(flow.id, asked(1))
    ((run_id, state_id, _),) = await database.reader.due_timers(TimerKind.CANCEL, START + 9 * SECOND)
    await recording.post(record(flow, state("CANCELLED", START + 2 * SECOND), want_verdict=True))
    await database.writer.propose_state(flow.id, None, state("RUNNING", START + 3 * SECOND))
    clock.advance(60)
    assert not await database.writer.settle_cancellation(run_id, state_id)
    assert (await names(database, flow))[-1] == "Running"


async def test_what_was_paused_is_told_too_but_not_what_was_suspended(
    database: Database, recording: Recording
) -> None:
    flow = await running(recording, flow_run(deployment_id=new_id()))
    paused = state("PAUSED", START)
    await database.writer.propose_state(flow.id, None, paused)
    ((recorder_id, directive),) = await database.reader.directives()
    assert (recorder_id, directive.WhichOneof("directive")) == (recording.id, "pause")
    assert directive.state.id == paused.id
    await database.writer.resume_run(flow.id, new_id())
    assert await database.reader.directives() == []
    suspended = state("PAUSED", START)
    suspended.paused.reschedule = True
    await database.writer.propose_state(flow.id, None, suspended)
    assert await database.reader.directives() == []


async def test_a_deleted_run_takes_its_timer_along(database: Database, recording: Recording) -> None:
    flow = await running(recording, flow_run())
    await database.writer.cancel_run(flow.id, asked(0))
    await database.writer.delete_run(flow.id, force=True)
    assert await database.reader.due_timers(TimerKind.CANCEL, START + 99 * SECOND) == []


async def test_a_process_that_dies_while_it_is_cancelling_is_cancelled(
    database: Database, recording: Recording
) -> None:
    flow = await running(recording, flow_run())
    await database.writer.cancel_run(flow.id, asked())
    await database.writer.crash_recorder(recording.id, "It is gone.", 1)
    assert (await history(database, flow))[-1] == ("Cancelled", "It is gone.")


async def test_the_first_process_to_hold_it_after_that_is_told(database: Database) -> None:
    """A run that is CANCELLING before anybody holds it, as one that a worker has just handed out."""
    recording = Recording(database)
    await recording.open()
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("PENDING", START)))
    await database.writer.cancel_run(flow.id, asked())
    ((recorder_id, _),) = await database.reader.directives()
    assert recorder_id == recording.id


@pytest.mark.parametrize("type", ["COMPLETED", "FAILED", "CRASHED"])
async def test_whatever_a_flow_run_is_recorded_to_end_with_it_was_cancelled(
    database: Database, recording: Recording, type: str
) -> None:
    """A process records its end without asking when a signal ends it, or when it has no server to ask."""
    flow = await running(recording, flow_run())
    await database.writer.cancel_run(flow.id, asked())
    await recording.post(record(flow, state(type, START + 2 * SECOND, message="A signal.")))
    assert (await history(database, flow))[-1] == ("Cancelled", "A signal.")


async def test_a_run_that_is_to_end_does_not_go_on(database: Database, recording: Recording) -> None:
    flow = await running(recording, flow_run())
    await database.writer.cancel_run(flow.id, asked())
    ((_, refused),) = (await recording.post(record(flow, state("SCHEDULED", START + 2 * SECOND)))).results
    assert refused.reason == "TRANSITION_NOT_ALLOWED"
    assert (await names(database, flow))[-1] == "Cancelling"
