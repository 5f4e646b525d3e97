"""The exceptions that users meet: what they are caught as, and that they travel."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from headrace import exceptions
from headrace.exceptions import HeadraceException
from headrace.states import Paused

PARENTS: dict[str, tuple[type, ...]] = {
    "FailedRun": (HeadraceException,),
    "CrashedRun": (HeadraceException,),
    "CancelledRun": (HeadraceException,),
    "PausedRun": (HeadraceException,),
    "UnfinishedRun": (HeadraceException,),
    "MissingResult": (HeadraceException,),
    "UpstreamTaskError": (HeadraceException,),
    "ParameterTypeError": (HeadraceException,),
    "ParameterBindError": (TypeError, HeadraceException),
    "SignatureMismatchError": (TypeError, HeadraceException),
    "ReservedArgumentError": (TypeError, HeadraceException),
    "InvalidNameError": (ValueError, HeadraceException),
    "MissingContextError": (RuntimeError, HeadraceException),
    "MappingLengthMismatch": (HeadraceException,),
    "MappingMissingIterable": (HeadraceException,),
    "SerializationError": (HeadraceException,),
    "ObjectNotFound": (HeadraceException,),
    "ObjectAlreadyExists": (HeadraceException,),
    "FlowRunTimeoutError": (TimeoutError,),
    "TaskRunTimeoutError": (TimeoutError,),
}
SIGNALS = ["Abort", "Pause", "TerminationSignal"]


@pytest.mark.parametrize(("name", "parents"), PARENTS.items())
def test_what_each_is_caught_as(name: str, parents: tuple[type, ...]) -> None:
    cls = getattr(exceptions, name)
    assert all(issubclass(cls, parent) for parent in (*parents, Exception))


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_are_no_exceptions(name: str) -> None:
    cls = getattr(exceptions, name)
    assert issubclass(cls, BaseException) and not issubclass(cls, Exception)


def instances() -> list[BaseException]:
    state = Paused(message="m")
    special: dict[str, BaseException] = {
        "ScriptError": exceptions.ScriptError(ValueError("text"), "file.py"),
        "EventTooLarge": exceptions.EventTooLarge(3, 2),
        "HashError": exceptions.HashError("inputs.text", "no value"),
        "PausedRun": exceptions.PausedRun("text", state=state),
        "Pause": exceptions.Pause("text", state=state),
        "TerminationSignal": exceptions.TerminationSignal(15),
        "RecordedError": exceptions.RecordedError("text", "shop.OutOfStock", "Traceback"),
    }
    classes = [getattr(exceptions, name) for name in exceptions.__all__]
    return [special.get(cls.__name__) or cls("text") for cls in classes if inspect.isclass(cls)]


@pytest.mark.parametrize("error", instances(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_travel(error: BaseException, again: Any) -> None:
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    for name, value in vars(error).items():
        held = getattr(other, name)
        assert (
            held == value or repr(held) == repr(value) or (held.id, held.message) == (value.id, value.message)
        )


def test_the_text_of_a_recorded_error() -> None:
    error = exceptions.RecordedError("no more", "shop.OutOfStock", "Traceback ...")
    assert str(error) == "shop.OutOfStock: no more"
    assert (error.type_name, error.traceback_text) == ("shop.OutOfStock", "Traceback ...")
