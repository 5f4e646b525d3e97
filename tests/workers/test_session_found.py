"""The rules of a session for infrastructure that it has not started."""

from __future__ import annotations

from headrace.core.ids import new_id
from headrace.v1.worker_service_pb2 import ConnectResponse, Teardown
from headrace_workers.actions import Begin, Finish, FoundInfrastructure, Kill, LetGo, Remove
from tests.support.worker_bench import Bench, run_attempt


def connected(**options: object) -> Bench:
    bench = Bench(**options)  # type: ignore[arg-type]
    bench.connect()
    bench.seen()
    return bench


def test_what_it_holds_is_not_named_as_found() -> None:
    bench = connected()
    mine, other = run_attempt(), run_attempt()
    bench.assign(mine)
    bench.seen()
    bench.find(FoundInfrastructure(mine, "a"), FoundInfrastructure(other, "b"))
    [found] = bench.sent("found")
    assert [(item.attempt, item.infrastructure_id) for item in found.items] == [(other.to_message(), "b")]
    bench.seen()
    bench.find(FoundInfrastructure(mine, "a"))
    assert not bench.sent("found")


def test_what_it_is_given_of_that_is_begun_whatever_the_limit_and_costs_no_credit() -> None:
    bench = connected(limit=1)
    bench.assign(run_attempt())
    bench.seen()
    attempt = run_attempt()
    bench.assign(attempt, infrastructure_id="box")
    [begin] = bench.of(Begin)
    assert (begin.attempt, begin.assignment.infrastructure_id) == (attempt, "box")
    bench.started(attempt)
    bench.exited(attempt, 0)
    assert bench.granted <= 1, "the slot that it took beyond the limit is not given to another"


def test_a_worker_that_drains_takes_nothing_over() -> None:
    bench = connected()
    bench.assign(run_attempt())
    bench.session.drain(bench.now, None)
    bench.seen()
    bench.find(FoundInfrastructure(run_attempt(), "a"))
    assert not bench.sent("found")


def test_what_runs_goes_on_when_a_worker_that_keeps_it_leaves() -> None:
    bench = connected(keeps_infrastructure=True)
    running, starting = run_attempt(), run_attempt()
    bench.assign(running)
    bench.started(running)
    bench.assign(starting)
    bench.seen()
    bench.session.drain(bench.now, 0.0)
    bench.advance(0)
    assert [action.attempt for action in bench.of(LetGo)] == [running]
    assert [action.attempt for action in bench.of(Kill)] == [starting], "nobody could find it again"
    bench.exited(starting, None)
    bench.advance(60)
    assert bench.of(Finish)
    [goodbye] = bench.sent("goodbye")
    assert [ref.run_id for ref in goodbye.released] == [starting.run_id]


def test_a_teardown_is_answered_when_nothing_runs_any_more() -> None:
    bench = connected()
    mine, other = run_attempt(), run_attempt()
    bench.say(ConnectResponse(teardown=Teardown(attempt=other.to_message(), infrastructure_id="b")))
    assert bench.of(Remove) == [Remove(other, "b")]
    bench.removed(other, False)
    assert [(r.attempt.run_id, r.removed) for r in bench.sent("teardown_reply")] == [(other.run_id, False)]
    bench.assign(mine)
    bench.started(mine)
    bench.seen()
    bench.say(ConnectResponse(teardown=Teardown(attempt=mine.to_message(), infrastructure_id=new_id())))
    assert (bench.of(Remove), bench.killed) == ([], [mine]), "it is its own"
    assert not bench.sent("teardown_reply")
    bench.exited(mine, -9)
    assert [(r.attempt.run_id, r.removed) for r in bench.sent("teardown_reply")] == [(mine.run_id, True)]
