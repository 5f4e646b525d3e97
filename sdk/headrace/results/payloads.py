"""What runs returned, as it travels: small values inline in the record.

A value that is too large or cannot be serialised is not recorded, unless it is kept in storage: the run is
COMPLETED all the same, and its result is known to its own process only. A recorded None is not the same as
nothing recorded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from headrace.core.errors import ConfigurationError
from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.exceptions import MissingResult, SerializationError
from headrace.serializers import JSONSerializer, PickleSerializer, TooLarge, is_exact_json, serializer_of

if TYPE_CHECKING:
    from headrace.v1.payload_pb2 import Payload

__all__ = [
    "EncodedValue",
    "InlineResult",
    "KeptResult",
    "Producer",
    "StoredResult",
    "encode_value",
    "load_payload",
    "payload_metadata",
]

_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_JSON: Final = JSONSerializer()
_PICKLE: Final = PickleSerializer(limit_bytes=INLINE_PAYLOAD_BYTES)
_PAUSES: Final = (0.1, 0.2, 0.4)
"""Seconds between attempts to find an object that its store may not show to everybody yet."""
_SMALL: Final = {None: b"null", True: b"true", False: b"false"}

EncodedValue = tuple[str, bytes]
"""Name of the encoding, and the bytes."""


def encode_value(value: Any) -> EncodedValue:
    """`value` as it is recorded inline: JSON where that gives the same value back, else cloudpickle.

    Raises:
        SerializationError: it cannot be serialised, or takes more than `limits.INLINE_PAYLOAD_BYTES`
            (then a `TooLarge`).
    """
    if value is None or value is True or value is False:
        return "json", _SMALL[value]
    if is_exact_json(value):
        blob = _JSON.dumps(value)
        if len(blob) > INLINE_PAYLOAD_BYTES:
            raise TooLarge(f"The value takes {len(blob)} bytes; {INLINE_PAYLOAD_BYTES} are recorded inline.")
        return "json", blob
    return "pickle", _PICKLE.dumps(value)


def payload_metadata(encoding: str) -> dict[str, str]:
    """What a reader must know besides the encoding's name."""
    return {"python": _PYTHON} if "pickle" in encoding else {}


@dataclass(frozen=True, slots=True)
class InlineResult:
    """A result that travels in the record, encoded once.

    Attributes:
        encoding: name of the encoding.
        blob: the value's bytes.
    """

    encoding: str
    blob: bytes

    @classmethod
    def of(cls, value: Any) -> InlineResult:
        """`value`, encoded; see `encode_value`."""
        return cls(*encode_value(value))

    def put_in(self, payload: Payload) -> None:
        """Say it in a state."""
        payload.encoding = self.encoding
        payload.inline = self.blob
        if self.encoding != "json":
            payload.metadata.update(payload_metadata(self.encoding))


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A result that is kept in storage, as the record tells of it.

    Attributes:
        encoding: name of the serializer.
        uri: where the object is.
        size_bytes: of the value alone.
        sha256: of the value alone.
        inline: the value's bytes, where they are few enough to travel in the record, too.
    """

    encoding: str
    uri: str
    size_bytes: int
    sha256: bytes
    inline: bytes | None = None

    def put_in(self, payload: Payload) -> None:
        """Say it in a state."""
        payload.encoding = self.encoding
        payload.metadata.update(payload_metadata(self.encoding))
        if self.inline is not None:
            payload.inline = self.inline
            payload.metadata["uri"] = self.uri
            return
        payload.blob.uri = self.uri
        payload.blob.size_bytes = self.size_bytes
        payload.blob.sha256 = self.sha256


@dataclass(frozen=True, slots=True)
class Producer:
    """Who has computed a result that others may use.

    Attributes:
        run_id: the task run.
        task_name: of its task.
        flow_name: of the flow run around it; empty: there is none.
        tags: of the task run.
        lifetime: how long the result may be used; None: always.
    """

    run_id: str
    task_name: str
    flow_name: str
    tags: Sequence[str]
    lifetime: timedelta | None


class StoredResult:
    """The recorded result of a run, not decoded until somebody asks.

    Attributes:
        payload: the bytes with the name of their encoding, or where they are.
        otherwise: what takes the value's place when the bytes cannot be read here; None: nothing does.
    """

    __slots__ = ("otherwise", "payload")

    def __init__(self, payload: Payload, otherwise: Any = None) -> None:
        self.payload = payload
        self.otherwise = otherwise

    @property
    def is_elsewhere(self) -> bool:
        """Whether it has to be fetched from storage."""
        return self.payload.WhichOneof("body") == "blob"

    def load(self, retry: bool = True) -> Any:
        """The value.

        Args:
            retry: ask again, for less than a second, when an object store does not have it.

        Raises:
            MissingResult: it is not in storage, and nothing takes its place.
            SerializationError: the bytes cannot be read here, and nothing takes their place.
            OSError: the storage cannot be reached, and nothing takes the value's place.
        """
        try:
            return load_payload(self.payload, retry)
        except (SerializationError, MissingResult, OSError):
            if self.otherwise is None:
                raise
            return self.otherwise

    def __repr__(self) -> str:
        payload = self.payload
        if self.is_elsewhere:
            return (
                f"StoredResult({payload.encoding!r}, {payload.blob.size_bytes} bytes at {payload.blob.uri})"
            )
        return f"StoredResult({payload.encoding!r}, {len(payload.inline)} bytes)"


def load_payload(payload: Payload, retry: bool = True) -> Any:
    """The value of a payload.

    Args:
        payload: the bytes, or where they are.
        retry: ask again, for less than a second, when an object store does not have them.

    Raises:
        MissingResult: it is not in storage.
        SerializationError: the encoding is unknown, or the bytes cannot be read here.
        OSError: the storage cannot be reached.
    """
    encoding = payload.encoding
    if payload.WhichOneof("body") == "blob":
        blob = _fetched(payload, retry)
    else:
        blob = payload.inline
    if encoding == "json":
        return _JSON.loads(blob)
    try:
        serializer = _PICKLE if encoding == "pickle" else serializer_of(encoding)
    except ValueError as error:
        raise SerializationError(f"A value encoded as '{encoding}' cannot be read here: {error}") from error
    try:
        return serializer.loads(blob)
    except SerializationError as error:
        written = payload.metadata.get("python", _PYTHON)
        note = "" if written == _PYTHON else f" It was written by Python {written}, this is {_PYTHON}."
        raise SerializationError(f"{error}{note}") from error


def _fetched(payload: Payload, retry: bool) -> bytes:
    """The bytes of a value that is kept in storage."""
    # Loaded by the first value that is not in the record itself.
    filesystems, records = import_module("headrace.filesystems"), import_module("headrace.results.records")
    uri = payload.blob.uri
    try:
        filesystem, key = filesystems.object_at(uri)
    except ConfigurationError as error:
        raise SerializationError(f"The value is kept at {uri}, which cannot be read here: {error}") from error
    pauses = _PAUSES if retry and not filesystem.is_local else ()
    for pause in (*pauses, None):
        try:
            blob: bytes = records.split(filesystem.read(key))[1]
            return blob
        except FileNotFoundError as error:
            if pause is None:
                raise MissingResult(
                    f"The result is not at {uri} any more, or cannot be seen here."
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
