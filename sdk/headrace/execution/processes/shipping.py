"""Values and exceptions as bytes for another process."""

from __future__ import annotations

import inspect
import io
import pickle
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, cast

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

from headrace.exceptions import RecordedError, SerializationError
from headrace.execution.processes.kept import RemoteResult
from headrace.serializers import PickleSerializer

__all__ = ["packed", "packed_call", "packed_error", "unpacked"]

_PICKLE: Final = PickleSerializer()


_CloudPickler: Any = cloudpickle.Pickler
_parts: ContextVar[Sequence[bytes]] = ContextVar("headrace_parts", default=())


class _Pickler(_CloudPickler):  # type: ignore[misc]
    """Makes exceptions again without their `__init__`, which may take other arguments than `args`.

    Args:
        sink: takes the bytes.
        references: gets what names results on a cluster, which stay there; None: they are fetched.
    """

    def __init__(self, sink: io.BytesIO, references: list[Any] | None = None) -> None:
        super().__init__(sink)  # pyright: ignore[reportUnknownMemberType]
        self._references = references

    def reducer_override(self, obj: Any) -> Any:
        if self._references is not None and isinstance(obj, RemoteResult):
            reference = obj.reference
            if reference is not None:
                self._references.append(reference)
                return _part, (len(self._references) - 1,)
        if isinstance(obj, BaseException):
            kind = cast("Any", type(obj))
            if inspect.isfunction(kind.__init__) and kind.__reduce__ is BaseException.__reduce__:
                return _remake, (kind, obj.args, vars(obj))
            # Not as a library has told `copyreg` for all exceptions: Dask does, and loses what they say.
            return obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return _CloudPickler.reducer_override(self, obj)


def packed(value: Any, references: list[Any] | None = None) -> bytes:
    """`value` as bytes.

    Args:
        value: what to pickle.
        references: gets what names results on a cluster, which stay there; None: they are fetched.

    Raises:
        SerializationError: it cannot be pickled.
    """
    sink = io.BytesIO()
    try:
        _Pickler(sink, references).dump(value)
    except Exception as error:  # whatever a user's __reduce__ raises
        raise SerializationError(f"{type(value).__name__} cannot be pickled: {error}") from error
    return sink.getvalue()


def unpacked(blob: bytes, parts: Sequence[bytes] = ()) -> Any:
    """The value of which `packed` made `blob`.

    Args:
        blob: the bytes.
        parts: the results that are only named in them, in the order of their references.

    Raises:
        SerializationError: it cannot be made here.
    """
    token = _parts.set(parts)
    try:
        return _PICKLE.loads(blob)
    finally:
        _parts.reset(token)


def _part(index: int) -> Any:
    return _PICKLE.loads(_parts.get()[index])


def packed_call(task: Any, parameters: Mapping[str, Any], references: list[Any] | None = None) -> bytes:
    """A task with its arguments.

    Args:
        task: the task.
        parameters: its arguments, by name.
        references: gets what names results on a cluster, which stay there; None: they are fetched.

    Raises:
        SerializationError: something of it cannot be pickled; the message names it.
    """
    try:
        return packed((task, dict(parameters)), references)
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
