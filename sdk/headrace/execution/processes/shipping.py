"""Values and exceptions as bytes for another process."""

from __future__ import annotations

import inspect
import io
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

from headrace.exceptions import RecordedError, SerializationError
from headrace.serializers import PickleSerializer

__all__ = ["packed", "packed_call", "packed_error", "unpacked"]

_PICKLE: Final = PickleSerializer()


_CloudPickler: Any = cloudpickle.Pickler


class _Pickler(_CloudPickler):  # type: ignore[misc]
    """Makes exceptions again without their `__init__`, which may take other arguments than `args`."""

    def reducer_override(self, obj: Any) -> Any:
        kind = cast("Any", type(obj))
        if (
            isinstance(obj, BaseException)
            and inspect.isfunction(kind.__init__)
            and kind.__reduce__ is BaseException.__reduce__
        ):
            return _remake, (kind, obj.args, vars(obj))
        return _CloudPickler.reducer_override(self, obj)


def packed(value: Any) -> bytes:
    """`value` as bytes.

    Raises:
        SerializationError: it cannot be pickled.
    """
    sink = io.BytesIO()
    try:
        _Pickler(sink).dump(value)
    except Exception as error:  # whatever a user's __reduce__ raises
        raise SerializationError(f"{type(value).__name__} cannot be pickled: {error}") from error
    return sink.getvalue()


def unpacked(blob: bytes) -> Any:
    """The value of which `packed` made `blob`.

    Raises:
        SerializationError: it cannot be made here.
    """
    return _PICKLE.loads(blob)


def packed_call(task: Any, parameters: Mapping[str, Any]) -> bytes:
    """A task with its arguments.

    Raises:
        SerializationError: something of it cannot be pickled; the message names it.
    """
    try:
        return packed((task, dict(parameters)))
    except SerializationError as whole:
        _blame(f"Task '{task.name}'", task)
        for name, value in parameters.items():
            _blame(f"Argument '{name}' of task '{task.name}'", value)
        raise whole


def _blame(what: str, value: Any) -> None:
    try:
        packed(value)
    except SerializationError as error:
        raise SerializationError(f"{what} cannot be sent to another process: {error}") from error.__cause__


def packed_error(error: BaseException) -> bytes:
    """`error` with its traceback as a note; a `RecordedError` of it when it cannot be made again as it is."""
    lines = "".join(traceback.format_exception(error)).rstrip()
    note = f"\nIn the process of the task:\n{lines}"
    with suppress(Exception):
        error.add_note(note)
    with suppress(Exception):  # whatever the exception's own methods raise
        blob = packed(error)
        if type(unpacked(blob)) is type(error):
            return blob
    return packed(_stand_in(error, lines))


def _stand_in(error: BaseException, lines: str) -> RecordedError:
    cls = type(error)
    try:
        text = str(error)
    except Exception:  # a user's __str__ raises
        text = ""
    return RecordedError(text, f"{cls.__module__}.{cls.__qualname__}", lines)


def _remake(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(attributes)
    return error
