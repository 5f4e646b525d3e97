"""What runs returned, as it travels: small values inline in the record.

A value that is too large or cannot be serialised is not recorded: the run is COMPLETED all the same, and
its result is known to its own process only. A recorded None is not the same as nothing recorded.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.exceptions import SerializationError
from headrace.serializers import JSONSerializer, PickleSerializer, TooLarge, is_exact_json

if TYPE_CHECKING:
    from headrace.v1.payload_pb2 import Payload

__all__ = ["EncodedValue", "StoredResult", "encode_value", "load_payload"]

_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_JSON: Final = JSONSerializer()
_PICKLE: Final = PickleSerializer(limit_bytes=INLINE_PAYLOAD_BYTES)
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
    return {"python": _PYTHON} if encoding == "pickle" else {}


class StoredResult:
    """The recorded result of a run, not decoded until somebody asks.

    Attributes:
        payload: the bytes with the name of their encoding.
        otherwise: what takes the value's place when the bytes cannot be read here; None: nothing does.
    """

    __slots__ = ("otherwise", "payload")

    def __init__(self, payload: Payload, otherwise: Any = None) -> None:
        self.payload = payload
        self.otherwise = otherwise

    def load(self) -> Any:
        """The value.

        Raises:
            SerializationError: the bytes cannot be read here, and nothing takes their place.
        """
        try:
            return load_payload(self.payload)
        except SerializationError:
            if self.otherwise is None:
                raise
            return self.otherwise

    def __repr__(self) -> str:
        return f"StoredResult({self.payload.encoding!r}, {len(self.payload.inline)} bytes)"


def load_payload(payload: Payload) -> Any:
    """The value of a payload.

    Raises:
        SerializationError: the encoding is unknown, or the bytes cannot be read here.
    """
    if payload.WhichOneof("body") == "blob":
        raise SerializationError(f"The value is kept at {payload.blob.uri}, which this version cannot read.")
    if payload.encoding == "json":
        return _JSON.loads(payload.inline)
    if payload.encoding == "pickle":
        try:
            return _PICKLE.loads(payload.inline)
        except SerializationError as error:
            written = payload.metadata.get("python", _PYTHON)
            note = "" if written == _PYTHON else f" It was written by Python {written}, this is {_PYTHON}."
            raise SerializationError(f"{error}{note}") from error
    raise SerializationError(f"Values encoded as '{payload.encoding}' cannot be read by this version.")
