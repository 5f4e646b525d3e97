"""The rules of a worker's session, each by itself, on a clock that is moved by hand."""

from __future__ import annotations

import pytest

from headrace.core.errors import (
    FieldsInvalid,
    ObjectNotFound,
    PermissionMissing,
    ProtocolUnsupported,
    ServerUnavailable,
    Unauthenticated,
)
from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_pb2 import ATTEMPT_PHASE_ENDING
from headrace.v1.worker_service_pb2 import (
    CancelAttempt,
    ConnectResponse,
    PoolSnapshot,
    ServerDrain,
    Teardown,
    WorkerDrain,
)
from headrace_workers.actions import Cancel, Close, Finish, Kill, Notice, Open, Remove
from headrace_workers.session import SessionSuperseded
from tests.support.worker_bench import INTERVAL_SECONDS, TTL_SECONDS, Bench, held_ids, run_attempt


def connected(**options: object) -> Bench:
    bench = Bench(**options)  # type: ignore[arg-type]
    bench.connect()
    return bench


def running(bench: Bench, count: int = 1) -> list[object]:
    attempts = [run_attempt() for _ in range(count)]
    for attempt in attempts:
        bench.assign(attempt)
        bench.started(attempt)
    return list(attempts)


# Hello and credit.


def test_the_first_hello_says_who_it_is_and_how_much_it_takes() -> None:
    bench = Bench(limit=3)
    [opening] = bench.of(Open)
    hello = opening.hello.hello
    assert (hello.protocol_min, hello.protocol_max, hello.session_id) == (1, 1, "")
    assert hello.credit.granted_total == 3
    assert [(slot.kind, slot.total) for slot in hello.slots] == [("run", 3)]


def test_credit_is_cumulative_and_never_more_than_free_slots() -> None:
    bench = connected(limit=2)
    first, second = run_attempt(), run_attempt()
    bench.seen()
    bench.assign(first)
    bench.assign(second)
    assert bench.granted == 0, "both slots are taken, nothing more is granted"
    bench.started(first)
    bench.exited(first)
    assert bench.granted == 3, "two were assigned, one slot is free"
    bench.advance(INTERVAL_SECONDS)
    assert bench.sent("heartbeat")[-1].credit.granted_total == 3


def test_credit_begins_anew_with_every_epoch() -> None:
    bench = connected(limit=2)
    bench.assign(run_attempt())
    bench.seen()
    bench.broken()
    bench.advance(1)
    [opening] = bench.of(Open)
    assert opening.hello.hello.credit.granted_total == 1


def test_what_comes_beyond_the_limit_is_refused() -> None:
    bench = connected(limit=1)
    bench.assign(run_attempt())
    bench.seen()
    bench.assign(run_attempt())
    [reply] = bench.sent("reply")
    assert reply.refuse.reason == "no slot is free"
    assert not bench.begun
    assert bench.granted == 2, "a refused assignment has used up credit"


def test_no_more_start_at_once_than_the_machine_bears() -> None:
    bench = connected(limit=None)
    bench.seen()
    attempts = [run_attempt() for _ in range(16)]
    for attempt in attempts:
        bench.assign(attempt)
    bench.advance(INTERVAL_SECONDS)
    assert bench.sent("heartbeat")[-1].credit.granted_total == 16
    bench.started(attempts[0])
    assert bench.granted == 17


# Assignments.


def test_an_assignment_is_accepted_begun_and_held() -> None:
    bench = connected()
    attempt = run_attempt()
    message = bench.assign(attempt)
    [reply] = bench.sent("reply")
    assert (reply.assignment_id, reply.WhichOneof("reply")) == (message.assignment.assignment_id, "accept")
    assert bench.begun == [attempt]
    bench.advance(INTERVAL_SECONDS)
    assert held_ids(bench.sent("heartbeat")[-1].held) == {attempt.run_id}


def test_an_assignment_that_comes_twice_is_executed_once_and_accepted_twice() -> None:
    bench = connected()
    attempt = run_attempt()
    message = bench.assign(attempt)
    bench.say(message)
    assert bench.begun == [attempt]
    assert [reply.WhichOneof("reply") for reply in bench.sent("reply")] == ["accept", "accept"]


def test_a_late_copy_of_an_attempt_that_has_ended_is_passed_over() -> None:
    bench = connected()
    attempt = run_attempt(fence=4)
    bench.assign(attempt)
    bench.started(attempt)
    bench.exited(attempt)
    bench.beat(report_seq=2)
    bench.seen()
    bench.assign(attempt)
    bench.assign(run_attempt(fence=3, run_id=attempt.run_id))
    assert not bench.begun
    assert not bench.sent("reply")


def test_a_later_attempt_of_a_run_waits_for_the_end_of_the_earlier_one() -> None:
    bench = connected(limit=3)
    earlier = run_attempt(fence=1)
    bench.assign(earlier)
    bench.started(earlier)
    bench.seen()
    later = run_attempt(number=2, fence=3, run_id=earlier.run_id)
    bench.assign(later)
    assert (bench.killed, bench.begun) == ([earlier], [])
    bench.exited(earlier, -9)
    assert bench.begun == [later]
    assert not bench.reports(), "nobody wants to know how the earlier one has ended"


def test_a_run_for_later_is_held_and_begun_when_it_is_due_by_the_servers_clock() -> None:
    bench = connected()
    attempt = run_attempt()
    message = bench.assign(attempt).assignment
    assert bench.begun == [attempt]
    later = run_attempt()
    message.attempt.CopyFrom(later.to_message())
    message.server_time.FromSeconds(1_000_000)
    message.start_time.FromSeconds(1_000_004)
    bench.seen()
    bench.say(ConnectResponse(assignment=message))
    assert bench.sent("reply")[0].WhichOneof("reply") == "accept"
    bench.advance(3.9)
    assert not bench.begun
    bench.advance(0.2)
    assert bench.begun == [later]


# Verdicts.


def test_a_lost_attempt_is_killed_and_not_reported() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.lose(attempt)  # type: ignore[arg-type]
    assert bench.killed == [attempt]
    bench.seen()
    bench.advance(INTERVAL_SECONDS)
    assert bench.sent("heartbeat")[-1].held == []
    bench.exited(attempt, -9)  # type: ignore[arg-type]
    assert not bench.reports()
    assert bench.granted == 3, "its slot is free once its process is gone"


def test_the_welcome_can_say_that_an_attempt_is_lost() -> None:
    bench = connected()
    kept, lost = running(bench, 2)
    bench.broken()
    bench.advance(1)
    bench.seen()
    ref: AttemptRef = lost.to_message()  # type: ignore[attr-defined]
    bench.connect(verdicts=[AttemptVerdict(attempt=ref, lost=True)])
    assert bench.killed == [lost]
    bench.advance(INTERVAL_SECONDS)
    assert held_ids(bench.sent("heartbeat")[-1].held) == {kept.run_id}  # type: ignore[attr-defined]


# Reports.


def test_a_report_is_repeated_until_it_is_durable_and_keeps_the_attempt_held() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.exited(attempt, 1)  # type: ignore[arg-type]
    assert [r.report_seq for r in bench.reports()] == [1, 2]
    bench.seen()
    bench.beat()
    assert [r.report_seq for r in bench.reports()] == [1, 2], "the answer names no report: all go again"
    [held] = bench.sent("heartbeat")[-1].held
    assert held.phase == ATTEMPT_PHASE_ENDING
    bench.seen()
    bench.beat(report_seq=1)
    assert [r.report_seq for r in bench.reports()] == [2]
    bench.seen()
    bench.beat(report_seq=2)
    assert not bench.reports()
    bench.advance(INTERVAL_SECONDS)
    assert bench.sent("heartbeat")[-1].held == []


def test_what_was_sent_after_a_heartbeat_is_not_repeated_by_its_answer() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.advance(INTERVAL_SECONDS)
    bench.exited(attempt)  # type: ignore[arg-type]
    bench.seen()
    bench.say(ConnectResponse())  # an unknown message
    assert not bench.reports()


def test_reports_wait_for_the_server_and_begin_anew_in_a_new_session() -> None:
    bench = connected(limit=2)
    first, second = running(bench, 2)
    bench.exited(first)  # type: ignore[arg-type]
    bench.beat(report_seq=1)
    bench.broken()
    bench.exited(second)  # type: ignore[arg-type]
    bench.advance(1)
    bench.seen()
    bench.session_id = new_id()
    bench.connect()
    assert [r.report_seq for r in bench.reports()] == [1, 2, 3]


# Cancellation.


def test_a_cancellation_is_acted_upon_once_and_acknowledged_each_time() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.cancel(attempt)  # type: ignore[arg-type]
    again = CancelAttempt(attempt=attempt.to_message(), cancel_seq=1)  # type: ignore[attr-defined]
    bench.beat(pending_cancels=[again])
    assert len(bench.of(Cancel)) == 1
    assert [ack.cancel_seq for ack in bench.sent("cancel_ack")] == [1, 1]


def test_a_cancellation_before_the_start_ends_the_attempt() -> None:
    bench = connected(limit=3)
    earlier = run_attempt(fence=1)
    bench.assign(earlier)
    bench.started(earlier)
    waiting = run_attempt(number=2, fence=2, run_id=earlier.run_id)
    bench.assign(waiting)
    bench.seen()
    bench.cancel(waiting)
    assert not bench.of(Cancel)
    [report] = bench.reports()
    assert report.exited.never_started
    bench.exited(earlier, -9)
    assert not bench.begun


def test_a_cancellation_of_an_unknown_attempt_is_not_acknowledged() -> None:
    bench = connected()
    bench.cancel(run_attempt())
    assert not bench.sent("cancel_ack")


def test_what_is_left_of_others_is_removed_but_not_what_is_ours() -> None:
    bench = connected()
    [ours] = running(bench)
    theirs = run_attempt()
    for attempt in (ours, theirs):
        ref = attempt.to_message()  # type: ignore[attr-defined]
        bench.say(ConnectResponse(teardown=Teardown(attempt=ref, infrastructure_id="x")))
    assert bench.of(Remove) == [Remove(theirs, "x")]


# Streams that break.


def test_work_goes_on_while_the_server_is_away_and_the_session_is_taken_up_again() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.seen()
    bench.broken()
    bench.advance(0.3)
    for _ in range(200):
        bench.broken(error=ServerUnavailable())
        bench.advance(30.1)
    assert not bench.killed
    hellos = [opening.hello.hello for opening in bench.of(Open)]
    assert len(hellos) > 200
    assert {hello.session_id for hello in hellos} == {bench.session_id}
    assert held_ids(hellos[-1].held) == {attempt.run_id}  # type: ignore[attr-defined]
    bench.connect()
    assert bench.session.is_connected


def test_the_pauses_between_tries_double_up_to_half_a_lease_and_begin_anew_after_an_answer() -> None:
    bench = connected()
    pauses: list[float] = []
    for _ in range(10):
        bench.broken(error=ServerUnavailable())
        due = bench.session.due()
        assert due is not None
        pauses.append(round(due - bench.now, 3))
        bench.advance(pauses[-1])
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0, 15.0]
    bench.connect()
    bench.beat()
    bench.broken()
    due = bench.session.due()
    assert due is not None
    assert round(due - bench.now, 3) == 0.2


def test_a_server_that_asks_for_patience_gets_it() -> None:
    bench = connected()
    from headrace.core.errors import ServerDraining

    bench.broken(error=ServerDraining(retry_after_seconds=7.0))
    due = bench.session.due()
    assert due == bench.now + 7.0


@pytest.mark.parametrize("error", [Unauthenticated(), PermissionMissing(), ProtocolUnsupported()])
def test_some_errors_are_final_at_any_time(error: Exception) -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.seen()
    bench.broken(error=error)
    assert bench.of(Finish) == [Finish(error)]  # type: ignore[arg-type]
    assert bench.killed == [attempt]
    assert bench.session.due() is None


@pytest.mark.parametrize("error", [FieldsInvalid(), ObjectNotFound()])
def test_a_hello_that_is_refused_is_final_only_before_the_first_welcome(error: Exception) -> None:
    new = Bench()
    new.broken(error=error)
    assert new.of(Finish) == [Finish(error)]  # type: ignore[arg-type]
    old = connected()
    old.broken(error=error)
    assert not old.of(Finish)


def test_a_server_of_another_protocol_is_left() -> None:
    bench = Bench()
    from tests.support.worker_bench import welcome

    message = welcome(new_id(), 1)
    message.welcome.protocol = 2
    bench.say(message)
    [finish] = bench.of(Finish)
    assert isinstance(finish.error, ProtocolUnsupported)


def test_a_stream_without_answers_is_given_up_after_three_intervals() -> None:
    bench = connected()
    running(bench)
    bench.seen()
    bench.advance(3 * INTERVAL_SECONDS - 0.1)
    assert not bench.closed
    bench.advance(0.5)
    assert bench.of(Close) == [Close(1, abort=True)]
    assert bench.opened == [2]
    assert not bench.killed


def test_a_hello_without_an_answer_is_repeated_on_another_stream() -> None:
    bench = Bench()
    bench.seen()
    bench.advance(10.5)
    assert bench.closed == [1]
    assert bench.opened == [2]


def test_what_a_stream_of_before_says_of_time_is_passed_over() -> None:
    bench = connected()
    bench.advance(INTERVAL_SECONDS)
    [beat] = bench.sent("heartbeat")
    bench.broken()
    bench.advance(1)
    bench.connect()
    bench.seen()
    from headrace.v1.worker_service_pb2 import HeartbeatAck

    ack = ConnectResponse(heartbeat_ack=HeartbeatAck(seq=beat.seq))
    bench.say(ack, stream=1)
    bench.say(ack)
    bench.advance(3 * INTERVAL_SECONDS + 0.1)
    assert bench.closed == [2], "neither renewed anything"


# The server leaves.


def drain_notice(seconds: int) -> ConnectResponse:
    notice = ServerDrain(reason="upgrade")
    notice.reconnect_after.FromSeconds(seconds)
    return ConnectResponse(drain=notice)


def test_a_new_stream_is_made_before_the_old_one_is_broken() -> None:
    bench = connected()
    running(bench)
    bench.seen()
    bench.say(drain_notice(3), stream=1)
    bench.advance(2.9)
    assert not bench.opened
    bench.advance(0.2)
    assert (bench.opened, bench.closed) == ([2], [])
    assert bench.session.is_connected
    late = run_attempt()
    bench.assign(late, stream=1)
    bench.connect()
    assert bench.of(Close) == [Close(1, abort=False)]
    bench.send_away("SESSION_SUPERSEDED", stream=1)
    bench.broken(stream=1)
    assert not bench.of(Finish)
    assert not bench.killed
    assert late in bench.begun
    bench.advance(INTERVAL_SECONDS)
    assert late.run_id in held_ids(bench.sent("heartbeat")[-1].held)


def test_the_old_stream_serves_until_a_new_one_can_be_had() -> None:
    bench = connected()
    bench.say(drain_notice(0), stream=1)
    bench.advance(0)
    bench.broken(stream=2, error=ServerUnavailable())
    bench.seen()
    bench.advance(INTERVAL_SECONDS)
    assert bench.sent("heartbeat")
    assert bench.opened == [3]


def test_a_process_that_took_the_session_over_ends_this_one() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.send_away("SESSION_SUPERSEDED")
    [finish] = bench.of(Finish)
    assert isinstance(finish.error, SessionSuperseded)
    assert bench.killed == [attempt]


def test_a_session_that_was_ended_for_its_silence_is_followed_by_a_new_one() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.now += 5 * TTL_SECONDS  # frozen: nothing was done meanwhile
    bench.seen()
    bench.send_away("SESSION_SUPERSEDED")
    bench.advance(1)
    hello = bench.of(Open)[-1].hello.hello
    assert hello.session_id == ""
    assert held_ids(hello.held) == {attempt.run_id}  # type: ignore[attr-defined]
    assert not bench.of(Finish)
    ref: AttemptRef = attempt.to_message()  # type: ignore[attr-defined]
    bench.session_id = new_id()
    bench.connect(verdicts=[AttemptVerdict(attempt=ref, lost=True)])
    assert bench.killed == [attempt]


# Leases.


def test_a_strict_lease_ends_work_before_it_runs_out() -> None:
    bench = connected(is_strict=True)
    [attempt] = running(bench)
    bench.beat()
    began = bench.now
    bench.broken()
    bench.seen()
    bench.advance(TTL_SECONDS - INTERVAL_SECONDS - 0.1)
    assert not bench.killed
    bench.advance(0.2)
    assert bench.killed == [attempt]
    assert bench.now < began + TTL_SECONDS
    bench.exited(attempt, -9)  # type: ignore[arg-type]
    bench.connect()
    assert "its lease ran out" in bench.reports()[-1].exited.message


def test_a_strict_lease_counts_from_when_the_answered_heartbeat_was_sent() -> None:
    bench = connected(is_strict=True)
    [attempt] = running(bench)
    bench.advance(INTERVAL_SECONDS)
    sent_at = bench.now
    bench.advance(3)
    bench.answer_beat()
    bench.broken()
    bench.seen()
    bench.advance(sent_at + TTL_SECONDS - INTERVAL_SECONDS - bench.now)
    assert bench.killed == [attempt]


# The worker leaves.


def test_a_drained_worker_finishes_what_runs_and_says_goodbye() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.seen()
    bench.session.drain(bench.now, None)
    bench.advance(INTERVAL_SECONDS)
    assert len(bench.sent("drain")) == 1
    assert bench.sent("heartbeat"), "heartbeats go on"
    bench.assign(run_attempt())
    assert bench.sent("reply")[-1].refuse.reason == "the worker drains"
    bench.exited(attempt)  # type: ignore[arg-type]
    assert not bench.of(Finish), "the report has to be durable first"
    bench.advance(0.2)
    bench.answer_beat(report_seq=2)
    assert len(bench.sent("goodbye")) == 1
    assert bench.of(Finish) == [Finish(None)]
    assert bench.of(Close)[-1] == Close(1, abort=False)


def test_what_still_runs_at_the_deadline_is_ended_and_given_back() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.session.drain(bench.now, 10)
    bench.advance(INTERVAL_SECONDS)
    bench.answer_beat(report_seq=1)
    bench.advance(INTERVAL_SECONDS + 0.1)
    assert bench.killed == [attempt]
    assert not bench.sent("goodbye"), "not while it may still run"
    bench.exited(attempt, -15)  # type: ignore[arg-type]
    [goodbye] = bench.sent("goodbye")
    assert [ref.run_id for ref in goodbye.released] == [attempt.run_id]  # type: ignore[attr-defined]
    assert bench.of(Finish) == [Finish(None)]


def test_what_was_not_begun_is_given_back_when_the_worker_drains() -> None:
    bench = connected()
    attempt = run_attempt()
    message = bench.assign(run_attempt()).assignment
    bench.session.exited(bench.begun[0], 0, "", False, bench.now)
    message.attempt.CopyFrom(attempt.to_message())
    message.server_time.FromSeconds(1_000_000)
    message.start_time.FromSeconds(1_000_008)
    bench.say(ConnectResponse(assignment=message))
    bench.session.drain(bench.now, None)
    bench.advance(0.2)
    bench.answer_beat(report_seq=1)
    [goodbye] = bench.sent("goodbye")
    assert [ref.run_id for ref in goodbye.released] == [attempt.run_id]


def test_an_idle_worker_without_a_server_leaves_at_once() -> None:
    bench = Bench()
    bench.session.drain(bench.now, None)
    bench.advance(0)
    assert bench.of(Finish) == [Finish(None)]


def test_a_worker_with_news_waits_ten_seconds_for_a_server() -> None:
    bench = connected()
    [attempt] = running(bench)
    bench.broken(error=ServerUnavailable())
    bench.exited(attempt)  # type: ignore[arg-type]
    bench.session.drain(bench.now, None)
    bench.advance(9.9)
    assert not bench.of(Finish)
    bench.advance(0.2)
    assert bench.of(Finish) == [Finish(None)]


def test_an_administrator_can_have_a_worker_drained() -> None:
    bench = connected()
    bench.say(ConnectResponse(drain_request=WorkerDrain()))
    assert bench.session.is_draining
    assert bench.of(Finish) == [Finish(None)]


def test_what_the_pool_says_changes_while_the_worker_is_connected() -> None:
    bench = connected()
    change = PoolSnapshot(paused=True, etag="2")
    bench.say(ConnectResponse(pool=change))
    assert bench.session.pool == change


def test_breaks_are_told_once() -> None:
    bench = connected()
    bench.seen()
    for _ in range(5):
        bench.broken(error=ServerUnavailable("The server at x does not answer."))
        bench.advance(40)
    warnings = [notice for notice in bench.of(Notice) if notice.is_warning]
    assert len(warnings) == 1
    assert bench.of(Kill) == []
