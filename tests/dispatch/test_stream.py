"""The stream of a worker: hello, assignments, replies, heartbeats, and its end."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, RetryPolicy
from headrace.v1.run_service_pb2 import CancelRunRequest
from headrace.v1.state_pb2 import (
    STATE_TYPE_CANCELLED,
    STATE_TYPE_COMPLETED,
    STATE_TYPE_CRASHED,
    STATE_TYPE_FAILED,
    STATE_TYPE_PAUSED,
    STATE_TYPE_PENDING,
    STATE_TYPE_RUNNING,
    STATE_TYPE_SCHEDULED,
    CrashedDetails,
    ScheduledDetails,
    State,
)
from headrace.v1.worker_pb2 import ATTEMPT_PHASE_ACCEPTED
from headrace.v1.worker_service_pb2 import CancelAck
from tests.dispatch.stand import Stand, eventually
from tests.support.workers import held

pytestmark = pytest.mark.anyio
RUNNING = State(type=STATE_TYPE_RUNNING)


def paused(key: str) -> State:
    state = State(type=STATE_TYPE_PAUSED)
    state.paused.pause_key = key
    return state


async def test_a_run_is_handed_out_and_completed(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        assert (assignment.run.id, assignment.attempt.attempt) == (run.id, 1)
        assert assignment.attempt.fence == 2
        assert (await stand.get(run.id)).state.pending.worker_id == worker.hello.worker_id
        await worker.accept(assignment)
        await stand.complete(assignment.attempt)
        assert (await stand.get(run.id)).state.type == STATE_TYPE_COMPLETED
        assert await stand.names(run.id) == ["Scheduled", "Pending", "Running", "Completed"]
        assert await stand.held() == 0
        assert await stand.queued() == []


async def test_credit_bounds_what_is_assigned(stand: Stand) -> None:
    async with stand.worker(credit=2) as worker:
        for _ in range(4):
            await stand.create()
        for _ in range(2):
            await worker.assignment()
        await worker.heartbeat(*(a.attempt for a in worker.assignments))
        assert len(worker.assignments) == 2
        await worker.grant(1)
        await worker.assignment()
        assert await stand.held() == 3
        # Cumulative: what is said again is not more.
        await worker.grant(0)
        await worker.heartbeat(*(a.attempt for a in worker.assignments))
        assert len(worker.assignments) == 3


async def test_a_refused_run_goes_to_another_worker(stand: Stand) -> None:
    async with stand.worker(credit=1) as first:
        run = await stand.create()
        await first.refuse(await first.assignment(), "no room")
        assert "no room" in (await stand.until(run.id, STATE_TYPE_SCHEDULED)).state.message
        await first.grant(1)
        async with stand.worker(credit=1) as second:
            assignment = await second.assignment()
            assert (assignment.run.id, assignment.attempt.attempt) == (run.id, 1)
            assert assignment.attempt.fence > 3
            assert len(first.assignments) == 1


async def test_five_refusals_crash_the_run(stand: Stand) -> None:
    run = await stand.create()
    for _ in range(5):
        async with stand.worker(credit=1) as worker:
            await worker.refuse(await worker.assignment(), "the image cannot be pulled")
            await worker.heartbeat()
    crashed = await stand.until(run.id, STATE_TYPE_CRASHED)
    assert "the image cannot be pulled" in crashed.state.message
    assert crashed.state.crashed.cause == CrashedDetails.CAUSE_INFRASTRUCTURE
    assert await stand.held() == 0


async def test_goodbye_gives_back_at_once(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await worker.heartbeat(assignment.attempt)
        await worker.goodbye([assignment.attempt])
        await worker.ended()
    waiting = await stand.get(run.id)
    assert waiting.state.type == STATE_TYPE_SCHEDULED
    assert (waiting.attempt, waiting.fence) == (2, 3)
    async with stand.worker(credit=1) as other:
        assert (await other.assignment()).attempt.attempt == 2


async def test_a_broken_stream_keeps_its_attempts(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await worker.heartbeat(assignment.attempt)
    again = stand.worker(worker_id=worker.hello.worker_id, session_id=worker.session_id)
    again.hello.held.append(held(assignment.attempt))
    async with again:
        assert again.welcome.session_epoch == worker.welcome.session_epoch + 1
        assert [verdict.lost for verdict in again.welcome.verdicts] == [False]
        assert not (await again.heartbeat(assignment.attempt)).lost
        assert (await stand.get(run.id)).fence == assignment.attempt.fence
        await stand.complete(assignment.attempt)
        # It ended under this fence: its process may leave in peace.
        assert not (await again.heartbeat(assignment.attempt)).lost


async def test_what_a_worker_must_not_hold_is_lost(stand: Stand) -> None:
    async with stand.worker(credit=1) as first, stand.worker() as second:
        run = await stand.create()
        assignment = await first.assignment()
        await first.refuse(assignment, "later")
        await stand.until(run.id, STATE_TYPE_SCHEDULED)

        async def lost() -> list[str]:
            ack = await second.heartbeat(assignment.attempt)
            return [verdict.attempt.run_id for verdict in ack.lost]

        assert await eventually(lost) == [run.id]


async def test_an_offer_that_is_held_counts_as_accepted(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.heartbeat(assignment.attempt)

        async def accepted() -> bool:
            shown = await stand.worker_of(worker)
            return [h.phase for h in shown.held] == [ATTEMPT_PHASE_ACCEPTED]

        await eventually(accepted)
        assert (await stand.get(run.id)).state.type == STATE_TYPE_PENDING


async def test_an_offer_that_a_worker_does_not_know_of_is_queued_again(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        offered = (await worker.assignment()).attempt  # and not a word about it

        async def waits() -> bool:
            await worker.heartbeat()
            return (await stand.get(run.id)).state.type == STATE_TYPE_SCHEDULED

        await eventually(waits)
        again = await stand.get(run.id)
        assert (again.attempt, again.fence) == (offered.attempt, offered.fence + 1)


async def test_what_is_held_no_more_is_queued_again(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        for _ in range(2):
            await worker.heartbeat()
        again = await stand.until(run.id, STATE_TYPE_SCHEDULED)
        assert again.fence == assignment.attempt.fence + 1
        assert again.attempt == 2
        assert again.state.scheduled.cause == ScheduledDetails.CAUSE_ATTEMPT_LOST


async def test_the_newer_stream_of_a_session_wins(stand: Stand) -> None:
    async with stand.worker(credit=1) as older:
        newer = stand.worker(worker_id=older.hello.worker_id, session_id=older.session_id, credit=1)
        async with newer:
            gone = (await older.expect("go_away")).go_away
            assert gone.reason == "SESSION_SUPERSEDED"
            assert isinstance(await older.ended(), EOFError)
            run = await stand.create()
            assert (await newer.assignment()).run.id == run.id


async def test_a_run_is_cancelled_while_a_worker_has_it(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await stand.client.runs.CancelRun(CancelRunRequest(run_id=run.id, state_id=new_id(), reason="enough"))
        told = (await worker.expect("cancel")).cancel
        assert (told.attempt.run_id, told.reason) == (run.id, "enough")
        repeated = (await worker.heartbeat(assignment.attempt)).pending_cancels
        assert [c.cancel_seq for c in repeated] == [told.cancel_seq]
        await worker.say(cancel_ack=CancelAck(run_id=run.id, cancel_seq=told.cancel_seq))
        assert not (await worker.heartbeat(assignment.attempt)).pending_cancels
        await worker.report_exit(assignment.attempt, 1, never_started=True)
        await stand.until(run.id, STATE_TYPE_CANCELLED)
        assert await stand.held() == 0


async def test_a_process_that_ends_without_finishing_crashes_its_run(stand: Stand) -> None:
    async with stand.worker(credit=1) as worker:
        run = await stand.create()
        assignment = await worker.assignment()
        await worker.accept(assignment)
        await worker.report_exit(assignment.attempt, 1, 137, message="Killed, probably for its memory.")
        crashed = await stand.until(run.id, STATE_TYPE_CRASHED)
        assert crashed.state.message == "Killed, probably for its memory."
        assert crashed.state.crashed.exit_code == 137

        async def durable() -> bool:
            return (await worker.heartbeat(assignment.attempt)).report_seq == 1

        await eventually(durable)


async def test_a_run_that_may_be_rescheduled_is_queued_again(stand: Stand) -> None:
    policy = RetryPolicy(on_lost=LOST_ATTEMPT_POLICY_RESCHEDULE, max_lost_attempts=1)
    async with stand.worker(credit=2) as worker:
        run = await stand.create(retry_policy=policy)
        for number in (1, 2):
            assignment = await worker.assignment()
            assert assignment.attempt.attempt == number
            await worker.accept(assignment)
            await worker.report_exit(assignment.attempt, number, 9, message="Killed.")
        assert (await stand.until(run.id, STATE_TYPE_CRASHED)).attempt == 2


@pytest.mark.parametrize("is_given_back", [False, True], ids=["lost", "given back"])
async def test_a_pause_that_nobody_has_ended_is_entered_again_by_the_next_attempt(
    stand: Stand, is_given_back: bool
) -> None:
    """An approval is not skipped because its process is gone; one that was given counts."""
    policy = RetryPolicy(on_lost=LOST_ATTEMPT_POLICY_RESCHEDULE)
    async with stand.worker(credit=2) as worker:
        run = await stand.create(retry_policy=policy)
        first = await worker.assignment()
        await worker.accept(first)
        await stand.begin(first.attempt)
        for state in (paused("given"), RUNNING, paused("open")):
            assert await stand.propose(first.attempt, state) == "accepted"
        if is_given_back:
            left = State(type=STATE_TYPE_SCHEDULED)
            left.scheduled.cause = ScheduledDetails.CAUSE_ATTEMPT_LOST
            left.scheduled.scheduled_time.GetCurrentTime()
            assert await stand.propose(first.attempt, left) == "accepted"
        else:
            await worker.report_exit(first.attempt, 1, 9, message="Killed.")
        second = await worker.assignment()
        assert (second.run.id, second.attempt.attempt) == (run.id, 2)
        await worker.accept(second)
        assert await stand.propose(second.attempt, RUNNING) == "accepted"
        assert await stand.propose(second.attempt, paused("given")) == "rejected"
        assert await stand.propose(second.attempt, paused("open")) == "accepted"


async def test_a_run_is_handed_out_when_it_is_due(stand: Stand) -> None:
    async with (
        stand.worker(credit=2) as worker,
        stand.worker(credit=2, prefetch=Duration(seconds=60)) as early,
    ):
        run = await stand.create(delay_seconds=0.5)
        later = await stand.create(delay_seconds=3600)
        assignment = await early.assignment()
        assert assignment.run.id == run.id
        assert assignment.start_time.ToMicroseconds() > assignment.server_time.ToMicroseconds()
        soon = await stand.create(delay_seconds=0.3, required_labels={"gpu": "no"})
        assert not worker.assignments
        async with stand.worker(credit=1, labels={"gpu": "no"}) as labelled:
            assignment = await labelled.assignment()
            assert assignment.run.id == soon.id
            assert assignment.start_time.ToMicroseconds() <= assignment.server_time.ToMicroseconds()
        assert (await stand.get(later.id)).state.type == STATE_TYPE_SCHEDULED


async def test_what_a_hello_must_say(stand: Stand) -> None:
    cases: list[tuple[dict[str, Any], grpc.StatusCode]] = [
        ({"pool": "nowhere"}, grpc.StatusCode.NOT_FOUND),
        ({"type": "docker"}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"task_keys": ["a"], "work_pool": "default"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"work_pool": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"protocol_min": 7, "protocol_max": 9}, grpc.StatusCode.FAILED_PRECONDITION),
    ]
    for hello, code in cases:
        worker = stand.worker(hello.pop("pool", "default"))
        for field, value in hello.items():
            worker.hello.ClearField(field)  # type: ignore[arg-type]
            worker.hello.MergeFrom(type(worker.hello)(**{field: value}))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with worker:
                pass
        assert caught.value.code() == code, hello


async def test_an_assignment_that_cannot_travel_fails_its_run(stand: Stand) -> None:
    async with stand.worker(credit=1, max_message_bytes=2000) as worker:
        run = await stand.create(labels={"a" * 100: "b" * 2000})
        failed = await stand.until(run.id, STATE_TYPE_FAILED)
        assert "Pass less" in failed.state.message
        await worker.grant(1)
        small = await stand.create()
        assert (await worker.assignment()).run.id == small.id
        assert await stand.held() == 1
