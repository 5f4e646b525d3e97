"""How values become bytes and come back.

`JSONSerializer` is used for values that JSON gives back exactly, `PickleSerializer` (cloudpickle) for the
rest. The server sees the bytes and the name of the encoding, nothing more.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any, Final, Protocol, cast, runtime_checkable

from headrace.exceptions import SerializationError

__all__ = ["JSONSerializer", "PickleSerializer", "Serializer", "TooLarge", "is_exact_json"]

_PLAIN: Final = frozenset({type(None), bool, int, str})
_MAX_DEPTH: Final = 64


class TooLarge(SerializationError):
    """The value takes more bytes than are allowed."""


@runtime_checkable
class Serializer(Protocol):
    """Turns a value into bytes and back."""

    type: str
    """The name that is recorded with the bytes, e.g. "json"."""

    def dumps(self, obj: Any) -> bytes:
        """The bytes of `obj`.

        Raises:
            SerializationError: it cannot be serialised.
        """
        ...

    def loads(self, blob: bytes) -> Any:
        """The value that `dumps` made `blob` of.

        Raises:
            SerializationError: it cannot be read.
        """
        ...


class JSONSerializer:
    """Compact JSON, for None, bool, int, str, finite floats, and lists and dicts of them."""

    type = "json"

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

    def dumps(self, obj: Any) -> bytes:
        try:
            return self._encode(obj).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError(f"{type(obj).__name__} cannot be written as JSON: {error}") from error

    def loads(self, blob: bytes) -> Any:
        try:
            return json.loads(blob)
        except (ValueError, RecursionError) as error:
            raise SerializationError(f"The recorded JSON cannot be read: {error}") from error


class PickleSerializer:
    """cloudpickle: also lambdas, local functions and what `__main__` defines.

    Args:
        limit_bytes: give up as soon as the bytes grow past this; None: no limit.
    """

    type = "pickle"

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes

    def dumps(self, obj: Any) -> bytes:
        import cloudpickle

        sink = io.BytesIO() if self.limit_bytes is None else _BoundedSink(self.limit_bytes)
        try:
            cast("Any", cloudpickle).dump(obj, sink)
        except TooLarge:
            raise
        except Exception as error:  # whatever a user's __reduce__ raises
            raise SerializationError(f"{type(obj).__name__} cannot be pickled: {error}") from error
        return sink.getvalue()

    def loads(self, blob: bytes) -> Any:
        import cloudpickle

        try:
            return cloudpickle.loads(blob)
        except Exception as error:  # whatever a user's __setstate__ raises
            raise SerializationError(f"The recorded pickle cannot be read: {error}") from error


class _BoundedSink(io.BytesIO):
    """Takes so many bytes and no more, so that a huge value is not pickled to the end in vain."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._left = limit_bytes

    def write(self, data: Any, /) -> int:
        self._left -= memoryview(data).nbytes
        if self._left < 0:
            raise TooLarge("The value takes more bytes than are recorded inline.")
        return super().write(data)


def is_exact_json(value: object, budget: int = 10_000) -> bool:
    """Whether JSON gives back exactly `value`: no tuples, sets, keys that are not text, NaN, subclasses.

    Args:
        value: what to look at.
        budget: how many values to look at before giving up with False.
    """
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    return _exact(value, [budget], 0)


def _exact(value: Any, budget: list[int], depth: int) -> bool:
    kind = cast("type[Any]", type(value))
    if kind in _PLAIN:
        return True
    if kind is float:
        return math.isfinite(value)
    if depth > _MAX_DEPTH:
        return False
    if kind is list:
        budget[0] -= len(value)
        return budget[0] >= 0 and all(_exact(item, budget, depth + 1) for item in value)
    if kind is dict:
        budget[0] -= len(value)
        return budget[0] >= 0 and all(
            type(key) is str and _exact(item, budget, depth + 1) for key, item in value.items()
        )
    return False
