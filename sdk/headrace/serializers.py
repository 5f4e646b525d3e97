"""How values become bytes and come back.

`JSONSerializer` is used for values that JSON gives back exactly, `PickleSerializer` (cloudpickle) for the
rest. The server sees the bytes and the name of the encoding, nothing more.
"""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, cast

from headrace import typed_json
from headrace.exceptions import SerializationError

__all__ = [
    "CompressedJSONSerializer",
    "CompressedPickleSerializer",
    "CompressedSerializer",
    "JSONSerializer",
    "PickleSerializer",
    "Serializer",
    "TooLarge",
    "is_exact_json",
    "serializer_of",
]

_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_PLAIN: Final = frozenset({type(None), bool, int, str})
_MAX_DEPTH: Final = 64


class TooLarge(SerializationError):
    """The value takes more bytes than are allowed."""


class Serializer(ABC):
    """Turns a value into bytes and back. Subclasses are known by their `type` as soon as they are defined.

        class MsgpackSerializer(Serializer):
            type = "msgpack"

            def dumps(self, obj): return msgpack.packb(obj)
            def loads(self, blob): return msgpack.unpackb(blob)

    A reader makes a subclass without arguments, in a process that has imported it.
    """

    type: str
    """The name that is recorded with the bytes, e.g. "json"."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        name = cls.__dict__.get("type")
        if isinstance(name, str):
            _known[name] = cls

    @abstractmethod
    def dumps(self, obj: Any) -> bytes:
        """The bytes of `obj`.

        Raises:
            SerializationError: it cannot be serialised.
        """

    @abstractmethod
    def loads(self, blob: bytes) -> Any:
        """The value that `dumps` made `blob` of.

        Raises:
            SerializationError: it cannot be read.
        """


_known: dict[str, type[Serializer]] = {}


class JSONSerializer(Serializer):
    """Compact JSON. What JSON has no words for keeps its class: see `headrace.typed_json`."""

    type = "json"

    def dumps(self, obj: Any) -> bytes:
        try:
            plain = obj if is_exact_json(obj) else typed_json.to_plain(obj)
            return _encode(plain).encode("ascii")
        except SerializationError:
            raise
        except Exception as error:  # whatever a user's class raises
            raise SerializationError(f"{type(obj).__name__} cannot be written as JSON: {error}") from error

    def loads(self, blob: bytes) -> Any:
        try:
            plain = json.loads(blob)
            return typed_json.from_plain(plain) if typed_json.MARK_BYTES in blob else plain
        except SerializationError:
            raise
        except Exception as error:  # whatever a user's class raises
            raise SerializationError(f"The recorded JSON cannot be read: {error}") from error


class PickleSerializer(Serializer):
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


class CompressedSerializer(Serializer):
    """Compresses what another serializer writes.

    Args:
        serializer: the other one, or its name.
        compressionlib: a module with `compress` and `decompress`, e.g. "lzma", "zlib", "bz2".

    Raises:
        ValueError: there is no such serializer, or no such module.
    """

    def __init__(self, serializer: Serializer | str, compressionlib: str = "lzma") -> None:
        self.serializer = serializer_of(serializer)
        self.compressionlib = compressionlib
        suffix = "" if compressionlib == "lzma" else f":{compressionlib}"
        self.type = f"compressed/{self.serializer.type}{suffix}"
        try:
            library = import_module(compressionlib)
            self._compress: Callable[[bytes], bytes] = library.compress
            self._decompress: Callable[[bytes], bytes] = library.decompress
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{compressionlib!r} cannot compress: it must be a module with `compress` and `decompress`."
            ) from error

    def dumps(self, obj: Any) -> bytes:
        return self._compress(self.serializer.dumps(obj))

    def loads(self, blob: bytes) -> Any:
        try:
            plain = self._decompress(blob)
        except Exception as error:  # each library has errors of its own
            raise SerializationError(f"The recorded bytes cannot be decompressed: {error}") from error
        return self.serializer.loads(plain)


class CompressedPickleSerializer(CompressedSerializer):
    """`CompressedSerializer` over pickle: "compressed/pickle".

    Args:
        serializer: what is compressed.
        compressionlib: see `CompressedSerializer`.
    """

    def __init__(self, serializer: Serializer | str = "pickle", compressionlib: str = "lzma") -> None:
        super().__init__(serializer, compressionlib)


class CompressedJSONSerializer(CompressedSerializer):
    """`CompressedSerializer` over JSON: "compressed/json".

    Args:
        serializer: what is compressed.
        compressionlib: see `CompressedSerializer`.
    """

    def __init__(self, serializer: Serializer | str = "json", compressionlib: str = "lzma") -> None:
        super().__init__(serializer, compressionlib)


def serializer_of(serializer: Serializer | str) -> Serializer:
    """The serializer of that name; one that is a serializer already is given back.

    Args:
        serializer: "pickle", "json", "compressed/" before another name, or the `type` of a subclass of
            `Serializer`; "compressed/json:zlib" names the library.

    Raises:
        ValueError: there is none of that name.
        TypeError: neither a serializer nor a name.
    """
    if isinstance(serializer, Serializer):
        return serializer
    if not isinstance(cast("object", serializer), str):
        raise TypeError(f"A serializer, or the name of one, is needed; got {type(serializer).__name__}.")
    known = _known.get(serializer)
    if known is not None:
        return known()
    prefix, _, inner = serializer.partition("/")
    if prefix == "compressed" and inner:
        name, _, library = inner.partition(":")
        return CompressedSerializer(name, library or "lzma")
    names = ", ".join(sorted([*_known, *(f"compressed/{name}" for name in _known)]))
    raise ValueError(f"There is no serializer {serializer!r}. Known are: {names}.")


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
        return (
            budget[0] >= 0
            and typed_json.MARK not in value
            and all(type(key) is str and _exact(item, budget, depth + 1) for key, item in value.items())
        )
    return False
