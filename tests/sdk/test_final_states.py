"""What a body returns or raises, the final state that follows, and what the caller is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace import flow, quote, task
from headrace.exceptions import CancelledRun, FailedRun, PausedRun
from headrace.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
    StateType,
)
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = [pytest.mark.usefixtures("recorder"), pytest.mark.parametrize("kind", KINDS)]


class Boom(Exception):
    pass


@task
def ok(value: Any = 1) -> Any:
    return value


@task
def bad() -> None:
    raise Boom("bad task")


def state_of(kind: str, body: Callable[[], Any]) -> State[Any]:
    state = call(flow(of_kind(kind, body)), return_state=True)
    assert isinstance(state, State)
    return state


def value_of(kind: str, body: Callable[[], Any]) -> Any:
    return call(flow(of_kind(kind, body)))


@pytest.mark.parametrize("data", [5, "text", None, [], {}, (), {"a": 1}, [1, Completed()], [[Failed()]]])
def test_data(kind: str, data: Any) -> None:
    state = state_of(kind, lambda: data)
    assert (state.type, state.name, state.message) == (StateType.COMPLETED, "Completed", None)
    assert state.data is data
    assert value_of(kind, lambda: data) is data


def test_an_exception_that_is_returned_is_data(kind: str) -> None:
    error = ValueError()
    assert value_of(kind, lambda: error) is error
    assert state_of(kind, lambda: error).is_completed()


def test_a_state_made_by_hand(kind: str) -> None:
    state = state_of(kind, lambda: Completed(name="Skipped", message="nothing new", data=3))
    assert (state.type, state.name, state.message, state.data) == (
        StateType.COMPLETED,
        "Skipped",
        "nothing new",
        3,
    )
    assert state.state_details.flow_run_id
    assert value_of(kind, lambda: Completed(data=3)) == 3
    assert value_of(kind, lambda: Completed()) is None


def test_the_authors_state_object_is_left_alone(kind: str, recorder: MemoryRecorder) -> None:
    once = Completed(data=1)
    first, second = state_of(kind, lambda: once), state_of(kind, lambda: once)
    assert once.state_details.flow_run_id is None
    assert len({once.id, first.id, second.id}) == 3


@pytest.mark.parametrize(
    ("state", "type", "error"),
    [
        (Failed(message="no"), StateType.FAILED, FailedRun),
        (Failed(data=Boom("x")), StateType.FAILED, Boom),
        (Cancelled(message="no"), StateType.CANCELLED, CancelledRun),
        (Crashed(message="no"), StateType.CRASHED, Exception),
        (Paused(), StateType.PAUSED, PausedRun),
    ],
)
def test_a_bad_state_made_by_hand(
    kind: str, state: State[Any], type: StateType, error: type[Exception]
) -> None:
    assert state_of(kind, lambda: state).type is type
    with pytest.raises(error):
        value_of(kind, lambda: state)


@pytest.mark.parametrize("state", [Running(), Pending(), Scheduled(), Cancelling()])
def test_a_state_in_which_no_run_can_end(kind: str, state: State[Any]) -> None:
    final = state_of(kind, lambda: state)
    assert final.is_failed()
    assert final.message is not None and str(state) in final.message
    with pytest.raises(FailedRun, match="not final"):
        value_of(kind, lambda: state)


def test_raising(kind: str) -> None:
    error = Boom("why")

    def body() -> None:
        raise error

    state = state_of(kind, body)
    assert (state.type, state.name, state.data) == (StateType.FAILED, "Failed", error)
    assert state.message == "Flow run encountered an exception: Boom: why"
    with pytest.raises(Boom) as caught:
        value_of(kind, body)
    assert caught.value is error
    assert any(entry.name == "body" for entry in caught.traceback)


def test_raising_a_timeout_of_ones_own(kind: str) -> None:
    def body() -> None:
        raise TimeoutError("too slow")

    state = state_of(kind, body)
    assert (state.type, state.name) == (StateType.FAILED, "TimedOut")
    assert state.message == "Flow run failed due to timeout: TimeoutError('too slow')"


AGGREGATES = [
    ([Completed(), Completed()], "COMPLETED", "All states completed."),
    ([Completed(), Cancelled(), Failed()], "CANCELLED", "1/3 states cancelled."),
    ([Completed(), Paused()], "PAUSED", "1/2 states paused."),
    ([Failed(), Crashed(), Completed()], "FAILED", "2/3 states failed."),
    ([Running(), Completed()], "FAILED", "1/2 states are not final."),
    ((Completed(), Failed()), "FAILED", "1/2 states failed."),
    ({Completed()}, "COMPLETED", "All states completed."),
]


@pytest.mark.parametrize(("states", "type", "message"), AGGREGATES)
def test_collections_of_states(kind: str, states: Any, type: str, message: str) -> None:
    state = state_of(kind, lambda: states)
    assert (state.type.value, state.message) == (type, message)
    assert state.data is states
    # The caller must look: no exception for a collection, whatever is in it.
    assert value_of(kind, lambda: states) is states


def test_states_of_runs(kind: str) -> None:
    assert state_of(kind, lambda: ok(return_state=True)).message == "All states completed."
    given = value_of(kind, lambda: ok(3, return_state=True))
    assert isinstance(given, State) and given.data == 3
    assert state_of(kind, lambda: bad(return_state=True)).message == "1/1 states failed."
    with pytest.raises(Boom):
        value_of(kind, lambda: bad(return_state=True))


def test_a_failure_that_nobody_looks_at_is_no_failure_of_the_flow(kind: str) -> None:
    def body() -> int:
        bad(return_state=True)
        return 1

    assert value_of(kind, body) == 1


def test_futures_are_waited_for_and_replaced(kind: str) -> None:
    given = value_of(kind, lambda: ok.submit(3))
    assert isinstance(given, State) and (given.type, given.data) == (StateType.COMPLETED, 3)
    with pytest.raises(Boom):
        value_of(kind, lambda: bad.submit())
    assert state_of(kind, lambda: bad.submit()).message == "1/1 states failed."


def test_collections_of_futures(kind: str) -> None:
    (given,) = value_of(kind, lambda: [bad.submit()])
    assert isinstance(given, State) and given.is_failed()
    assert state_of(kind, lambda: [bad.submit(), ok.submit()]).message == "1/2 states failed."
    assert state_of(kind, lambda: (bad.submit(), 5)).is_completed()
    assert state_of(kind, lambda: [[bad.submit()]]).is_completed()
    mapped = state_of(kind, lambda: ok.map([1, 2, 3]))
    assert mapped.message == "All states completed."
    assert type(mapped.data) is list and [state.data for state in mapped.data] == [1, 2, 3]


def test_futures_in_a_dict_become_states_and_are_not_judged(kind: str) -> None:
    given = value_of(kind, lambda: {"a": bad.submit(), "b": {"c": [ok.submit()]}})
    assert given["a"].is_failed()
    assert given["b"]["c"][0].is_completed()


def test_what_is_quoted_stays_what_it_is(kind: str) -> None:
    given = value_of(kind, lambda: {"a": quote(ok.submit())})
    assert given["a"].unquote().result() == 1


def test_results_of_a_mapped_call_are_values(kind: str) -> None:
    assert value_of(kind, lambda: ok.map([1, 2]).result()) == [1, 2]


def test_a_returned_generator_is_drained(kind: str) -> None:
    assert value_of(kind, lambda: (n for n in range(3))) == [0, 1, 2]


def test_the_first_state_of_a_run_is_pending(kind: str, recorder: MemoryRecorder) -> None:
    call(flow(of_kind(kind, lambda: 1), name="first"))
    assert recorder.the("first").names == ["Pending", "Running", "Completed"]


def test_times_strictly_increase(kind: str, recorder: MemoryRecorder) -> None:
    call(task(of_kind(kind, lambda: 1), name="quick"))
    times = [state.event_time.ToMicroseconds() for state in recorder.the("quick").states]
    assert times == sorted(set(times))


# Tasks: the same table, without looking for futures.


def task_state(kind: str, body: Callable[[], Any], **options: Any) -> State[Any]:
    state = call(task(of_kind(kind, body), **options), return_state=True)
    assert isinstance(state, State)
    return state


def task_value(kind: str, body: Callable[[], Any]) -> Any:
    return call(task(of_kind(kind, body)))


@pytest.mark.parametrize("data", [5, None, [], (1, Completed()), ValueError()])
def test_a_task_that_returns_data(kind: str, data: Any) -> None:
    assert task_state(kind, lambda: data).is_completed()
    assert task_value(kind, lambda: data) is data


def test_a_task_that_raises(kind: str) -> None:
    def body() -> None:
        raise Boom("why")

    assert task_state(kind, body).message == "Task run encountered an exception: Boom: why"
    with pytest.raises(Boom):
        task_value(kind, body)


@pytest.mark.parametrize("state", [Failed(), Cancelled(), Completed(data=1), [Failed()], [Completed()]])
def test_a_state_returned_by_a_task_is_handed_back_and_nothing_raised(kind: str, state: Any) -> None:
    assert task_value(kind, lambda: state) is state


@pytest.mark.parametrize(("states", "type", "message"), AGGREGATES)
def test_a_task_that_returns_states(kind: str, states: Any, type: str, message: str) -> None:
    state = task_state(kind, lambda: states)
    assert (state.type.value, state.message) == (type, message)


@pytest.mark.parametrize("failed", [Failed(), [Failed(), Completed()]])
def test_a_failed_state_returned_by_a_task_is_a_failure(kind: str, failed: Any) -> None:
    """Retries apply, and only then the hook."""
    seen: list[str] = []
    state = task_state(
        kind,
        lambda: failed,
        retries=1,
        on_running=[lambda *_: seen.append("running")],
        on_failure=[lambda *_: seen.append("failure")],
    )
    assert state.is_failed()
    assert seen == ["running", "running", "failure"]


def test_a_task_that_fails_twice_by_state_and_then_gives_a_value(kind: str) -> None:
    answers: list[Any] = [Failed(), Failed(), 3]
    seen: list[str] = []
    body = of_kind(kind, lambda: answers.pop(0))
    assert call(task(body, retries=2, on_failure=[lambda *_: seen.append("failure")])) == 3
    assert seen == []
