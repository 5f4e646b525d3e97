"""Every exception that headrace raises to its users.

What a server answers with is in `headrace.core.errors`; the ones that users meet are here too, under the
same names. Double inheritance is part of the contract: callers catch `TypeError` for arguments that do not
bind, `ValueError` for names, `RuntimeError` for a missing context.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace.core.errors import (
    ConfigurationError,
    HashError,
    HeadraceException,
    MissingProfileError,
    ObjectAlreadyExists,
    ObjectNotFound,
    ServerUnavailable,
    ServiceError,
)

if TYPE_CHECKING:
    from headrace.states import State

__all__ = [
    "Abort",
    "Cancel",
    "CancelledRun",
    "CodeChanged",
    "ConfigurationError",
    "CrashedRun",
    "EventTooLarge",
    "FailedRun",
    "FlowPauseTimeout",
    "FlowRunTimeoutError",
    "FlowRunWaitTimeout",
    "HashError",
    "HeadraceException",
    "InvalidNameError",
    "LostInFlight",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingFlowError",
    "MissingProfileError",
    "MissingResult",
    "NotPausedError",
    "ObjectAlreadyExists",
    "ObjectNotFound",
    "ParameterBindError",
    "ParameterTypeError",
    "Pause",
    "PausedRun",
    "RecordedError",
    "ReservedArgumentError",
    "RunInputInvalid",
    "ScriptError",
    "SerializationError",
    "ServerUnavailable",
    "ServiceError",
    "SignatureMismatchError",
    "TaskRunTimeoutError",
    "TerminationSignal",
    "UnfinishedRun",
    "UnspecifiedFlowError",
    "UpstreamTaskError",
]


class FailedRun(HeadraceException):
    """A run failed and left no exception behind."""


class CrashedRun(HeadraceException):
    """A run crashed and left no exception behind."""


class CancelledRun(HeadraceException):
    """A run was cancelled."""


class PausedRun(HeadraceException):
    """The result of a paused run was asked for.

    Attributes:
        state: the paused state.
    """

    def __init__(self, *args: object, state: State[Any] | None = None) -> None:
        super().__init__(*args)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.args, {"state": self.state})


class FlowPauseTimeout(HeadraceException):
    """A paused flow run was not resumed in time."""


class NotPausedError(HeadraceException):
    """A flow run was to be resumed that is not paused."""


class RunInputInvalid(RuntimeError, HeadraceException):
    """What a paused flow run was to be resumed with does not fit what it asks for: it stays paused.

    Attributes:
        violations: for each bad field its path, e.g. `input.age`, and what is wrong with it.
    """

    def __init__(self, message: str, violations: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.violations: dict[str, str] = dict(violations or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (RunInputInvalid, (self.args[0], self.violations))


class UnfinishedRun(HeadraceException):
    """The result of a run that has not ended was asked for."""


class MissingResult(HeadraceException):
    """The run completed, and its result was not recorded."""


class LostInFlight(HeadraceException):
    """A task that is not idempotent was running when its process was lost: what it has done is not known."""


class CodeChanged(HeadraceException):
    """A flow run was taken up again with other code than before, and its flow does not want that."""


class RecordedError(HeadraceException):
    """Stands for an exception of another process that could not be carried over as it was.

    Attributes:
        type_name: qualified class of the exception, e.g. `shop.errors.OutOfStock`.
        traceback_text: the formatted traceback, or the empty string.
    """

    def __init__(self, message: str, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.traceback_text = traceback_text

    def __reduce__(self) -> tuple[Any, ...]:
        return (RecordedError, (str(self), self.type_name, self.traceback_text))

    def __str__(self) -> str:
        text = str(self.args[0])
        return f"{self.type_name}: {text}" if self.type_name and not text.startswith(self.type_name) else text


class UpstreamTaskError(HeadraceException):
    """A task run that this one depends on did not complete."""


class ParameterTypeError(HeadraceException):
    """The parameters of a flow do not fit its annotations."""


class ParameterBindError(TypeError, HeadraceException):
    """The arguments do not fit the function's signature."""

    @classmethod
    def from_bind_failure(
        cls, fn: Callable[..., Any], error: TypeError, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> ParameterBindError:
        """The error for a call of `fn` that `inspect.Signature.bind` refused with `error`."""
        name = getattr(fn, "__name__", type(fn).__name__)
        signature = str(inspect.signature(fn)).strip("()")
        return cls(
            f"Error binding parameters for function '{name}': {error}.\n"
            f"Function '{name}' has signature '{signature}' but received args: {args!r} and kwargs: "
            f"{list(kwargs)!r}."
        )


class SignatureMismatchError(TypeError, HeadraceException):
    """Parameters were given that the flow does not have."""


class ReservedArgumentError(TypeError, HeadraceException):
    """A function has a parameter whose name headrace needs for itself."""


class InvalidNameError(ValueError, HeadraceException):
    """A name holds a character that names may not hold."""


class MissingContextError(RuntimeError, HeadraceException):
    """Something that works only inside a flow or task run was used outside."""


class MappingLengthMismatch(HeadraceException):
    """The iterables given to `map` have different lengths."""


class MappingMissingIterable(HeadraceException):
    """`map` was given nothing to spread."""


class SerializationError(HeadraceException):
    """A value could not be turned into bytes, or bytes into a value."""


class MissingFlowError(HeadraceException):
    """There is no flow where one was looked for."""


class UnspecifiedFlowError(MissingFlowError):
    """It does not say which flow is meant."""


class ScriptError(HeadraceException):
    """A file or module could not be executed.

    Attributes:
        user_exc: what it ended with.
        path: the file or module, as it was named.
    """

    def __init__(self, user_exc: Exception, path: str) -> None:
        super().__init__(f"Script at {str(path)!r} encountered an exception: {user_exc!r}")
        self.user_exc = user_exc
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (ScriptError, (self.user_exc, self.path))


class FlowRunWaitTimeout(HeadraceException):
    """A flow run had not ended when the time to wait for it was over."""


class EventTooLarge(HeadraceException):
    """An event has more bytes than may be recorded.

    Attributes:
        size: how many it has.
        maximum: how many it may have.
    """

    def __init__(self, size: int, maximum: int) -> None:
        super().__init__(f"Event is too large to emit ({size} > {maximum} bytes)")
        self.size = size
        self.maximum = maximum

    def __reduce__(self) -> tuple[Any, ...]:
        return (EventTooLarge, (self.size, self.maximum))


class FlowRunTimeoutError(TimeoutError):
    """A flow run took longer than its limit."""


class TaskRunTimeoutError(TimeoutError):
    """A task run took longer than its limit."""


class _Signal(BaseException):
    """Not an `Exception`, so that `except Exception` in a flow does not swallow it."""


class Abort(_Signal):
    """The run must stop at once and write nothing more: it is not this process's any longer."""


class Cancel(_Signal):
    """The flow run is being cancelled: its body is interrupted."""


class Pause(_Signal):
    """The flow run leaves its process because it is paused.

    Attributes:
        state: the paused state, when it is known.
    """

    def __init__(self, *args: object, state: State[Any] | None = None) -> None:
        super().__init__(*args)
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.args, {"state": self.state})


class TerminationSignal(_Signal, SystemExit):
    """The process was asked to end (SIGTERM): it leaves with 128 + the signal's number, as shells count.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(128 + signal)
        self.signal = signal

    def __reduce__(self) -> tuple[Any, ...]:
        return (TerminationSignal, (self.signal,))
