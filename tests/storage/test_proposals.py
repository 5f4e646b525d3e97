"""Proposed states: verdicts, and what they leave behind."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from headrace.core.errors import ObjectNotFound, StaleAttempt
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef, RetryPolicy, Run
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import ScheduledDetails, State
from headrace_services.storage.database import Database
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


async def propose(database: Database, run: Run, proposed: State, **given: object) -> ProposeStateResponse:
    attempt = given.pop("attempt", None)
    assert attempt is None or isinstance(attempt, AttemptRef)
    return await database.writer.propose_state(run.id, attempt, proposed, **given)  # type: ignore[arg-type]


async def names(database: Database, run: Run) -> list[str]:
    return [s.name for s in (await database.reader.list_states(run.id))[0]]


async def test_a_created_run_is_proposed_through_its_life(database: Database) -> None:
    run, existed = await database.writer.create_run(flow_run())
    assert (run.state.name, existed) == ("Scheduled", False)
    for type in ("PENDING", "RUNNING", "COMPLETED"):
        response = await propose(database, run, state(type, START + SECOND))
        assert response.accepted.state.type
    assert await names(database, run) == ["Scheduled", "Pending", "Running", "Completed"]


async def test_the_same_proposal_twice_is_one_state(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    running = state("RUNNING", START + SECOND)
    first, again = await asyncio.gather(propose(database, run, running), propose(database, run, running))
    assert first.accepted.state.id == again.accepted.state.id == running.id
    await propose(database, run, state("COMPLETED", START + 2 * SECOND))
    late = await propose(database, run, running)
    assert late.accepted.state.id == running.id
    assert await names(database, run) == ["Scheduled", "Running", "Completed"]
    assert (await database.reader.get_run(run.id)).run_count == 1


async def test_two_submissions_are_one_accept_and_one_abort(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    verdicts = await asyncio.gather(*(propose(database, run, state("PENDING", START + i)) for i in (1, 2)))
    assert sorted(str(v.WhichOneof("verdict")) for v in verdicts) == ["abort", "accepted"]
    assert await names(database, run) == ["Scheduled", "Pending"]


@pytest.mark.parametrize(("paused_seconds", "expected"), [(0, "accepted"), (6, "rejected")])
async def test_a_deadline_over_all_tries_leaves_out_the_pauses(
    paused_seconds: int, expected: str, database: Database, clock: ManualClock
) -> None:
    policy = RetryPolicy(max_retries=9, delays=[Duration(seconds=5)], deadline=Duration(seconds=10))
    run, _ = await database.writer.create_run(flow_run(retry_policy=policy))
    await propose(database, run, state("RUNNING", START))
    if paused_seconds:
        await propose(database, run, state("PAUSED", START + SECOND))
        await propose(database, run, state("RUNNING", START + (1 + paused_seconds) * SECOND))
    # The next try would begin 16 s after the first one, of which 10 count where 6 were a pause but for 1 us.
    clock.advance(11 - 0.000001)
    verdict = await propose(database, run, state("FAILED", clock.now()))
    assert verdict.WhichOneof("verdict") == expected


async def test_a_failure_with_retries_is_sent_back_to_wait(database: Database, clock: ManualClock) -> None:
    policy = RetryPolicy(max_retries=1, delays=[Duration(seconds=5)])
    run, _ = await database.writer.create_run(flow_run(retry_policy=policy))
    await propose(database, run, state("RUNNING", START + SECOND))
    failed = state("FAILED", START + 2 * SECOND, message="boom")
    failed.data.encoding, failed.data.inline = "json", b"{}"
    verdict = await propose(database, run, failed)
    waiting = verdict.rejected.state
    assert (waiting.name, waiting.message, waiting.data.inline) == ("AwaitingRetry", "boom", b"{}")
    assert waiting.scheduled.cause == ScheduledDetails.CAUSE_RETRY
    assert waiting.scheduled.scheduled_time.ToMicroseconds() == clock.now() + 5 * SECOND
    early = await propose(database, run, state("RUNNING", START + 3 * SECOND))
    assert early.wait.retry_after.ToMicroseconds() == 5 * SECOND
    clock.advance(5)
    assert (await propose(database, run, state("RUNNING", START + 7 * SECOND))).HasField("accepted")
    assert (await propose(database, run, state("FAILED", START + 8 * SECOND))).HasField("accepted")
    assert (await database.reader.get_run(run.id)).run_count == 2


async def test_an_executor_applies_the_retry_rule_itself(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run(retry_policy=RetryPolicy(max_retries=3)))
    own = AttemptRef(run_id=run.id, attempt=1, fence=1)
    await propose(database, run, state("RUNNING", START + SECOND), attempt=own)
    verdict = await propose(database, run, state("FAILED", START + 2 * SECOND), attempt=own)
    assert verdict.accepted.state.name == "Failed"


async def test_a_stale_attempt_is_refused(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    with pytest.raises(StaleAttempt):
        await propose(database, run, state("RUNNING"), attempt=AttemptRef(run_id=run.id, attempt=2, fence=2))
    with pytest.raises(ObjectNotFound):
        await propose(database, Run(id=new_id()), state("RUNNING"))


async def test_force_says_who(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING", "COMPLETED"])
    forced = await propose(database, flow, state("FAILED", START + 9 * SECOND), force=True, actor="alice")
    assert forced.accepted.state.forced_by == "alice"
    stored = await database.reader.get_run(flow.id)
    assert stored.state.forced_by == "alice"
    assert stored.end_time.ToMicroseconds() == START + SECOND


async def test_a_kept_result_survives_force(database: Database, recording: Recording) -> None:
    flow = flow_run()
    done = state("COMPLETED", START + SECOND)
    done.data.encoding, done.data.inline = "json", b"1"
    await recording.post(run_of(flow), record(flow, state("RUNNING")), record(flow, done))
    verdict = await propose(database, flow, state("COMPLETED", START + 9 * SECOND), force=True)
    assert verdict.rejected.state.id == done.id


async def test_verdicts_come_back_on_the_stream(database: Database, recording: Recording) -> None:
    flow = flow_run()
    outcome = await recording.post(
        run_of(flow),
        record(flow, state("RUNNING", START), want_verdict=True),
        record(flow, state("CANCELLING", START + SECOND)),
        record(flow, state("COMPLETED", START + 2 * SECOND), want_verdict=True),
    )
    (first, accepted), (second, rejected) = outcome.results
    assert (first, accepted.accepted.state.name) == (2, "Running")
    assert (second, rejected.rejected.state.name) == (4, "Cancelling")
    assert await names(database, flow) == ["Running", "Cancelling"]


async def test_a_verdict_that_was_lost_on_the_way_is_given_again(
    database: Database, recording: Recording
) -> None:
    flow = flow_run()
    running = state("RUNNING", START)
    entries = [run_of(flow), record(flow, running, want_verdict=True)]
    await recording.post(*entries)
    again = await database.writer.record(recording.id, 1, entries)
    ((seq, verdict),) = again.results
    assert (seq, verdict.accepted.state.id) == (2, running.id)
    assert await names(database, flow) == ["Running"]


async def test_cancelling_depends_on_whether_a_process_holds_the_run(
    database: Database, recording: Recording
) -> None:
    unheld, _ = await database.writer.create_run(flow_run())
    verdict = await propose(database, unheld, state("CANCELLING", START + SECOND))
    assert verdict.rejected.state.name == "Cancelled"
    held = flow_run()
    await recording.post(run_of(held), record(held, state("SCHEDULED")))
    verdict = await propose(database, held, state("CANCELLING", START + SECOND))
    assert verdict.accepted.state.name == "Cancelling"
    assert (await database.reader.get_run(held.id)).cancel_requested


async def test_a_pause_fires_once_and_resuming_adds_no_run(database: Database, recording: Recording) -> None:
    flow = flow_run()
    pause = state("PAUSED", START + SECOND)
    pause.paused.pause_key = "ask"
    await recording.post(run_of(flow), record(flow, state("RUNNING", START), want_verdict=True))
    await recording.post(record(flow, pause, want_verdict=True))
    await recording.post(record(flow, state("RUNNING", START + 5 * SECOND), want_verdict=True))
    again = state("PAUSED", START + 6 * SECOND)
    again.paused.pause_key = "ask"
    ((_, verdict),) = (await recording.post(record(flow, again, want_verdict=True))).results
    assert verdict.rejected.state.name == "Running"
    stored = await database.reader.get_run(flow.id)
    assert (stored.run_count, stored.total_run_time.ToMicroseconds()) == (1, SECOND)


async def test_a_task_is_not_started_when_its_flow_does_not_run(
    database: Database, recording: Recording
) -> None:
    flow = flow_run()
    task = task_run(flow)
    await recording.post(run_of(flow), record(flow, state("RUNNING")), run_of(task))
    assert (await propose(database, task, state("RUNNING"))).HasField("accepted")
    pause = state("PAUSED", START + SECOND)
    await recording.post(record(flow, pause, want_verdict=True))
    other = task_run(flow, "other")
    await recording.post(run_of(other))
    verdict = await propose(database, other, state("RUNNING"))
    assert verdict.rejected.state.name == "NotReady"


async def test_nothing_is_decided_by_the_proposers_clock(database: Database, clock: ManualClock) -> None:
    due = state("SCHEDULED", START)
    due.scheduled.scheduled_time.FromMicroseconds(START + 90 * SECOND)
    run, _ = await database.writer.create_run(flow_run(state=due))
    verdict = await propose(database, run, state("RUNNING", START + 500 * SECOND))
    assert verdict.wait.retry_after.ToMicroseconds() == 90 * SECOND
    clock.advance(89.5)
    assert (await propose(database, run, state("RUNNING"))).wait.retry_after.ToMicroseconds() == SECOND
    clock.advance(0.5)
    assert (await propose(database, run, state("RUNNING"))).HasField("accepted")
