"""States as values: SDK semantics, section 1."""

from __future__ import annotations

import asyncio
import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import states
from headrace.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    UnfinishedRun,
)
from headrace.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
    StateDetails,
    StateGroup,
    StateType,
    aget_state_exception,
    araise_state_exception,
    get_state_exception,
    raise_state_exception,
)

CONSTRUCTORS = [
    ("Scheduled", "SCHEDULED", "Scheduled", False),
    ("Late", "SCHEDULED", "Late", False),
    ("AwaitingRetry", "SCHEDULED", "AwaitingRetry", False),
    ("AwaitingConcurrencySlot", "SCHEDULED", "AwaitingConcurrencySlot", False),
    ("Pending", "PENDING", "Pending", False),
    ("Submitting", "PENDING", "Submitting", False),
    ("InfrastructurePending", "PENDING", "InfrastructurePending", False),
    ("Running", "RUNNING", "Running", False),
    ("Retrying", "RUNNING", "Retrying", False),
    ("Paused", "PAUSED", "Paused", False),
    ("Suspended", "PAUSED", "Suspended", False),
    ("Cancelling", "CANCELLING", "Cancelling", False),
    ("Cancelled", "CANCELLED", "Cancelled", True),
    ("Completed", "COMPLETED", "Completed", True),
    ("Failed", "FAILED", "Failed", True),
    ("Crashed", "CRASHED", "Crashed", True),
]


@pytest.mark.parametrize(("constructor", "type", "name", "is_final"), CONSTRUCTORS)
def test_each_constructor(constructor: str, type: str, name: str, is_final: bool) -> None:
    state = getattr(states, constructor)()
    assert (state.type, state.name, state.is_final()) == (StateType(type), name, is_final)
    assert getattr(state, f"is_{type.lower()}")() is True
    others = {t for t in StateType if t is not state.type}
    assert not any(getattr(state, f"is_{t.value.lower()}")() for t in others)
    assert state.timestamp.tzinfo is not None
    assert (state.state_details.scheduled_time is not None) is (type == "SCHEDULED")


@pytest.mark.parametrize("constructor", [row[0] for row in CONSTRUCTORS])
def test_a_name_of_ones_own_does_not_change_the_type(constructor: str) -> None:
    plain = getattr(states, constructor)()
    renamed = getattr(states, constructor)(name="Skipped", message="why not")
    assert (renamed.type, renamed.name, renamed.message) == (plain.type, "Skipped", "why not")


def test_a_scheduled_time_given_twice_is_refused() -> None:
    time = datetime.now(UTC)
    with pytest.raises(ValueError, match="scheduled_time"):
        Scheduled(scheduled_time=time, state_details=StateDetails(scheduled_time=time))
    assert Scheduled(scheduled_time=time).state_details.scheduled_time == time


def test_only_scheduled_states_carry_a_scheduled_time() -> None:
    details = StateDetails(scheduled_time=datetime.now(UTC))
    assert Completed(state_details=details).state_details.scheduled_time is None


def test_a_pause_has_a_timeout_or_an_expiration() -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(ValueError, match="both"):
        Paused(timeout_seconds=5, pause_expiration_time=until)
    assert Paused(pause_expiration_time=until).state_details.pause_timeout == until
    timeout = Paused(timeout_seconds=60).state_details.pause_timeout
    assert timeout is not None and timeout > datetime.now(UTC)
    assert states.Suspended().state_details.pause_reschedule is True


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (Completed(), "Completed()"),
        (Completed(message="fine"), "Completed('fine')"),
        (Completed(name="Skipped"), "Skipped(type=COMPLETED)"),
        (Failed(name="TimedOut", message="late"), "TimedOut('late', type=FAILED)"),
    ],
)
def test_str(state: State, text: str) -> None:
    assert str(state) == text


def test_repr_adds_the_result() -> None:
    assert repr(Completed(message="m", data=3)) == "Completed(message='m', type=COMPLETED, result=3)"


def test_no_data_is_not_the_same_as_none() -> None:
    assert Completed(data=None).result() is None
    with pytest.raises(MissingResult):
        Completed().result()


@pytest.mark.parametrize(
    ("state", "error"), [(Paused(), PausedRun), (Running(), UnfinishedRun), (Pending(), UnfinishedRun)]
)
def test_the_result_of_a_run_that_has_not_ended(state: State, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        state.result(raise_on_failure=False)
    if isinstance(caught.value, PausedRun):
        assert caught.value.state is state


BOOM = ValueError("boom")


@pytest.mark.parametrize(
    ("state", "cls", "text"),
    [
        (Failed(data=BOOM), ValueError, "boom"),
        (Failed(data="text"), FailedRun, "text"),
        (Crashed(data="text"), CrashedRun, "text"),
        (Cancelled(data="text"), CancelledRun, "text"),
        (Failed(data=[Completed(), Failed(data=BOOM)]), ValueError, "boom"),
        (Failed(data=Failed(data=BOOM)), ValueError, "boom"),
        (Failed(), FailedRun, "Run failed."),
        (Failed(message="why"), FailedRun, "why"),
        (Crashed(), CrashedRun, "Run crashed."),
        (Cancelled(), CancelledRun, "Run cancelled."),
    ],
)
def test_the_exception_of_a_state(state: State, cls: type[Exception], text: str) -> None:
    with pytest.raises(cls, match=text):
        state.result()
    with pytest.raises(cls, match=text):
        raise_state_exception(state)
    assert type(get_state_exception(state)) is cls


def test_the_exception_is_the_same_object() -> None:
    with pytest.raises(ValueError) as caught:
        Failed(data=BOOM).result()
    assert caught.value is BOOM
    assert Failed(data=BOOM).result(raise_on_failure=False) is BOOM


def test_without_raising_the_data_of_a_bad_state_is_its_result() -> None:
    assert Failed(data="text").result(raise_on_failure=False) == "text"
    assert isinstance(Failed().result(raise_on_failure=False), FailedRun)


def test_a_state_that_is_not_bad_has_no_exception() -> None:
    with pytest.raises(ValueError):
        get_state_exception(Completed(data=1))
    raise_state_exception(Completed(data=1))


def test_data_that_is_no_exception() -> None:
    with pytest.raises(TypeError, match="cannot be resolved into an exception"):
        get_state_exception(Failed(data=object()))


async def test_in_a_loop_the_result_is_awaited() -> None:
    assert await Completed(data=1).result() == 1  # type: ignore[misc]
    assert await Completed(data=1).aresult() == 1
    assert Completed(data=1).result(_sync=True) == 1


def test_outside_of_a_loop_the_result_is_a_value_also_once_asyncio_is_loaded() -> None:
    asyncio.run(asyncio.sleep(0))
    assert Completed(data=1).result() == 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_states_survive_copying_and_pickling(again: Any) -> None:
    state = Completed(message="m", data={"a": [1]}, name="Skipped")
    other = again(state)
    assert (other.id, other.name, other.type, other.timestamp) == (
        state.id,
        state.name,
        state.type,
        state.timestamp,
    )
    assert other.result() == {"a": [1]}
    with pytest.raises(MissingResult):
        again(Completed()).result()


def test_a_fresh_copy_belongs_to_no_run() -> None:
    state = Completed(data=1, state_details=StateDetails(flow_run_id="f", cache_key="k"))
    fresh = state.fresh_copy(message="new")
    assert fresh.id != state.id
    assert (fresh.state_details.flow_run_id, fresh.state_details.cache_key) == (None, "k")
    assert (fresh.message, fresh.data) == ("new", 1)


def test_groups_count() -> None:
    group = StateGroup([Completed(), Failed(), Crashed(), Paused(), Cancelled()])
    assert group.fail_count == 2
    assert group.any_failed() and group.any_cancelled() and group.any_paused()
    assert not group.all_completed() and not group.all_final()
    assert group.counts_message() == "total=5, PAUSED=1, COMPLETED=1, FAILED=1, CANCELLED=1, CRASHED=1"
    assert StateGroup([Completed(), Completed()]).all_completed()
    assert StateGroup([Completed(), Failed()]).all_final()


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError):
        State(type="DONE")


async def test_exceptions_for_code_on_a_loop() -> None:
    error = ValueError("boom")
    assert await aget_state_exception(Failed(data=error)) is error
    with pytest.raises(ValueError, match="boom"):
        await araise_state_exception(Failed(data=error))
    await araise_state_exception(Completed(data=1))
    with pytest.raises(ValueError, match="Expected failed or crashed"):
        await aget_state_exception(Completed(data=1))
