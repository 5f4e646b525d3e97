"""Assertions say what there was instead."""

from __future__ import annotations

import warnings

import pytest

from headrace.core.states import StateType
from headrace.exceptions import MissingContextError
from headrace.logging import get_run_logger
from headrace.states import Completed, Failed
from headrace.testing import assert_does_not_warn, assert_state
from headrace.testing.utilities import disable_run_logger


def test_a_state_as_expected() -> None:
    state = Failed(name="TimedOut", message="Task run exceeded timeout of 3 second(s)")
    assert_state(state, "failed")
    assert_state(state, StateType.FAILED, name="TimedOut", message_contains="3 second(s)")
    assert_state(state, "FAILED", message="Task run exceeded timeout of 3 second(s)")


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"type": "completed"}, "its type is FAILED, not COMPLETED"),
        ({"type": "failed", "name": "TimedOut"}, "its name is 'Failed', not 'TimedOut'"),
        ({"type": "failed", "message": "x"}, "its message is 'boom', not 'x'"),
        ({"type": "failed", "message_contains": "x"}, "its message does not contain 'x'"),
    ],
)
def test_another_state(expected: dict[str, str], said: str) -> None:
    error = ValueError("boom")
    with pytest.raises(AssertionError) as raised:
        assert_state(Failed(message="boom", data=error), **expected)
    assert said in str(raised.value)
    assert "boom" in str(raised.value)
    assert raised.value.__cause__ is error


def test_a_state_without_a_message() -> None:
    with pytest.raises(AssertionError, match="does not contain 'x'"):
        assert_state(Completed(), "completed", message_contains="x")


def test_a_type_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="DONE"):
        assert_state(Completed(), "done")


def test_warnings() -> None:
    with pytest.raises(AssertionError, match="UserWarning"), assert_does_not_warn():
        warnings.warn("look", stacklevel=1)
    with assert_does_not_warn([DeprecationWarning]):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_a_body_without_a_run() -> None:
    with pytest.raises(MissingContextError):
        get_run_logger()
    with disable_run_logger():
        get_run_logger().info("unheard")
