"""A result as it lies in storage: one line that describes it, and the serialised value.

The line is JSON. It says with what the value was serialised, until when it may be used, and how long it is:
an object that was cut off, or that is something else, is noticed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, cast

from headrace.core.clock import from_micros, to_micros
from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.exceptions import SerializationError
from headrace.results.payloads import KeptResult
from headrace.serializers import Serializer, serializer_of
from headrace.utilities.typevars import TypeVar

__all__ = ["ResultRecord", "ResultRecordMetadata", "kept_as", "split"]

R = TypeVar("R", default=Any)

_FORMAT: Final = 1
_LINE_MAX: Final = 16 * 1024
_PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class ResultRecordMetadata:
    """What is known of a result without its value.

    Attributes:
        storage_key: under which key the value is kept.
        serializer: what it was written with.
        expiration: from when on it may not be used any more, aware; None: never.
    """

    storage_key: str
    serializer: Serializer
    expiration: datetime | None = None

    @property
    def is_expired(self) -> bool:
        """Whether it may not be used any more, by this machine's clock."""
        return self.expiration is not None and self.expiration <= datetime.now(UTC)

    def to_bytes(self, blob: bytes | None = None) -> bytes:
        """The describing line.

        Args:
            blob: the value that stands behind it; None where it is kept elsewhere.
        """
        described: dict[str, Any] = {
            "headrace_result": _FORMAT,
            "storage_key": self.storage_key,
            "serializer": self.serializer.type,
            "python": _PYTHON,
            "expiration": to_micros(self.expiration) if self.expiration else None,
        }
        if blob is not None:
            described["size"] = len(blob)
        return json.dumps(described).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, own: Serializer | None = None) -> ResultRecordMetadata:
        """What `to_bytes` described.

        Args:
            content: the line, and perhaps the value behind it.
            own: the serializer to read with if the value was written with one of this name.

        Raises:
            SerializationError: it is something else, or the serializer is not known here.
        """
        described, _ = _line(content)
        try:
            micros = described["expiration"]
            name = described["serializer"]
            return cls(
                described["storage_key"],
                own if own is not None and own.type == name else serializer_of(name),
                None if micros is None else from_micros(micros),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SerializationError(f"The description of a result cannot be read: {error}") from error


@dataclass(slots=True)
class ResultRecord(Generic[R]):
    """A result with its description.

    Attributes:
        result: the value.
        metadata: the description.
        kept: what the record of a run says about it, once it is in storage.
        producer_run_id: the task run that has computed it; None: not known.
    """

    result: R
    metadata: ResultRecordMetadata
    kept: KeptResult | None = None
    producer_run_id: str | None = None

    @property
    def key(self) -> str:
        """The key under which the value is kept."""
        return self.metadata.storage_key

    @property
    def expiration(self) -> datetime | None:
        """From when on it may not be used any more."""
        return self.metadata.expiration

    @property
    def serializer(self) -> Serializer:
        """What the value is written with."""
        return self.metadata.serializer

    def serialize_result(self) -> bytes:
        """The value's bytes.

        Raises:
            SerializationError: it cannot be serialised.
        """
        try:
            return self.serializer.dumps(self.result)
        except SerializationError:
            raise
        except Exception as error:  # a serializer of the author's
            raise SerializationError(f"{type(self.result).__name__} cannot be serialised: {error}") from error

    def serialize(self) -> bytes:
        """Description and value in one object.

        Raises:
            SerializationError: the value cannot be serialised.
        """
        blob = self.serialize_result()
        return self.metadata.to_bytes(blob) + blob

    @classmethod
    def deserialize(
        cls,
        content: bytes,
        described_by: ResultRecordMetadata | None = None,
        own: Serializer | None = None,
    ) -> ResultRecord[Any]:
        """What `serialize` wrote.

        Args:
            content: description and value.
            described_by: the description that holds instead of the one in `content`.
            own: the serializer to read with if the value was written with one of this name.

        Raises:
            SerializationError: it is something else, was cut off, or cannot be read here.
        """
        metadata = described_by or ResultRecordMetadata.from_bytes(content, own)
        blob = split(content)[1]
        try:
            return ResultRecord(metadata.serializer.loads(blob), metadata)
        except SerializationError:
            raise
        except Exception as error:  # a serializer of the author's
            raise SerializationError(f"The stored value cannot be read: {error}") from error


def kept_as(metadata: ResultRecordMetadata, uri: str, blob: bytes) -> KeptResult:
    """What the record of a run says about a value whose bytes are `blob`."""
    return KeptResult(
        metadata.serializer.type,
        uri,
        len(blob),
        hashlib.sha256(blob).digest(),
        blob if len(blob) <= INLINE_PAYLOAD_BYTES else None,
    )


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The description in an object, and the value behind it.

    Raises:
        SerializationError: it is something else, or was cut off.
    """
    described, start = _line(content)
    blob = content[start:]
    if described.get("size") != len(blob):
        raise SerializationError(
            f"A stored value has {len(blob)} bytes in place of {described.get('size')}: it was cut off."
        )
    return described, blob


def _line(content: bytes) -> tuple[dict[str, Any], int]:
    end = content.find(b"\n", 0, _LINE_MAX)
    try:
        described = json.loads(content[:end]) if end > 0 else None
    except ValueError:
        described = None
    if not isinstance(described, dict) or "headrace_result" not in described:
        raise SerializationError("What lies in storage is not a result.")
    found = cast("dict[str, Any]", described)
    if found["headrace_result"] != _FORMAT:
        raise SerializationError(f"A result of format {found['headrace_result']} cannot be read here.")
    return found, end + 1
