"""Microseconds and the wire's own kinds of time."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration_micros", "micros", "set_duration", "set_micros", "stamp", "to_duration"]


def micros(instant: Timestamp) -> int:
    """Microseconds since 1970-01-01 UTC; what is finer is cut off."""
    return instant.seconds * 1_000_000 + instant.nanos // 1000


def set_micros(instant: Timestamp, value: int) -> None:
    """Make `instant` say `value`, microseconds since 1970-01-01 UTC."""
    seconds, rest = divmod(value, 1_000_000)
    instant.seconds = seconds
    instant.nanos = rest * 1000


def stamp(value: int) -> Timestamp:
    """The instant of `value`, microseconds since 1970-01-01 UTC."""
    seconds, rest = divmod(value, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def duration_micros(duration: Duration) -> int:
    """Microseconds of a duration; what is finer is cut off."""
    return duration.seconds * 1_000_000 + duration.nanos // 1000


def set_duration(duration: Duration, value: int) -> None:
    """Make `duration` say `value` microseconds, at least 0."""
    seconds, rest = divmod(value, 1_000_000)
    duration.seconds = seconds
    duration.nanos = rest * 1000


def to_duration(value: int) -> Duration:
    """The duration of `value` microseconds, at least 0."""
    seconds, rest = divmod(value, 1_000_000)
    return Duration(seconds=seconds, nanos=rest * 1000)
