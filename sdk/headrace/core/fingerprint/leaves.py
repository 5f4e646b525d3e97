"""Tokens of the plain types: exact types only, for subclasses are something else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from types import EllipsisType, NotImplementedType
from typing import Any, Final
from uuid import UUID

from headrace.core.fingerprint.nodes import leaf

__all__ = ["LEAVES", "of_float", "of_text"]

_NAN: Final = bytes.fromhex("7ff8000000000000")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def of_text(text: str) -> bytes:
    return leaf(b"s", text.encode("utf-8", "surrogatepass"))


def _of_int(number: int) -> bytes:
    return leaf(b"i", number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True))


def _bits(number: float) -> bytes:
    return struct.pack(">d", number) if number == number else _NAN


def of_float(number: float) -> bytes:
    return leaf(b"f", _bits(number))


def _of_decimal(number: Decimal) -> bytes:
    sign, digits, exponent = number.as_tuple()
    return leaf(b"D", f"{sign};{''.join(map(str, digits))};{exponent}".encode())


def _of_range(numbers: range) -> bytes:
    # What compares equal: the same numbers in the same order.
    size = len(numbers)
    first = numbers[0] if size else 0
    return leaf(b"r", f"{size};{first};{numbers.step if size > 1 else 0}".encode())


def _of_zone(zone: tzinfo, at: datetime | None) -> str:
    # zoneinfo and pytz call it differently; a zone without a name is its offset.
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str) and name != "UTC":
        return name
    offset = zone.utcoffset(at)
    return "" if offset is None else str(offset // _MICROSECOND)


def _of_datetime(instant: datetime) -> bytes:
    if instant.tzinfo is None or instant.utcoffset() is None:
        return leaf(b"t", instant.isoformat(timespec="microseconds").encode())
    micros = (instant - _EPOCH) // _MICROSECOND
    return leaf(b"z", f"{micros};{_of_zone(instant.tzinfo, instant)}".encode())


def _of_time(clock: time) -> bytes:
    zone = "" if clock.tzinfo is None else f";{_of_zone(clock.tzinfo, None)}"
    return leaf(b"h", f"{clock.replace(tzinfo=None).isoformat(timespec='microseconds')}{zone}".encode())


def _of_view(view: memoryview) -> bytes:
    content = view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
    header = f"{view.format};{view.shape};".encode()
    return leaf(b"v", leaf(b"v", header) + leaf(b"v", content))


LEAVES: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"n\0",
    EllipsisType: lambda _: b".\0",
    NotImplementedType: lambda _: b"!\0",
    bool: lambda value: b"b\1\1" if value else b"b\1\0",
    int: _of_int,
    float: of_float,
    complex: lambda value: leaf(b"c", _bits(value.real) + _bits(value.imag)),
    str: of_text,
    bytes: lambda value: leaf(b"y", value),
    bytearray: lambda value: leaf(b"Y", memoryview(value)),
    memoryview: _of_view,
    Decimal: _of_decimal,
    Fraction: lambda value: leaf(b"q", f"{value.numerator}/{value.denominator}".encode()),
    range: _of_range,
    UUID: lambda value: leaf(b"u", value.bytes),
    date: lambda value: leaf(b"d", value.isoformat().encode()),
    datetime: _of_datetime,
    time: _of_time,
    timedelta: lambda value: leaf(b"l", str(value // _MICROSECOND).encode()),
    timezone: lambda value: leaf(b"w", str(value.utcoffset(None) // _MICROSECOND).encode()),
}
"""By type: what gives the token."""
