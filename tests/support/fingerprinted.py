"""Values of every kind that has a fingerprint."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np
import pandas as pd
import pydantic
import pydantic.v1

from headrace.core.fingerprint import fingerprint

__all__ = ["Colour", "Job", "Model", "Point", "fingerprints", "values"]


class Colour(enum.Enum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Job:
    name: str
    tags: set[str]
    note: str = dataclasses.field(default="", compare=False)


@attrs.define
class Part:
    name: str
    seen: int = attrs.field(default=0, eq=False)


class Model(pydantic.BaseModel):
    name: str
    sizes: dict[str, int] = {}
    _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)


class OldModel(pydantic.v1.BaseModel):
    name: str


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left: int, right: int) -> None:
        self.left = left
        self.right = right


class Keyed:
    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = object()

    def __headrace_key__(self) -> str:
        return self.url


class Bag(set[str]):
    pass


def scaled(factor: int) -> Callable[[int], int]:
    def scale(number: int, *, offset: int = 1) -> int:
        """Documentation does not count."""
        return number * factor + offset

    return scale


def cyclic() -> list[Any]:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    return ring


def deep(levels: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(levels):
        nest = [nest]
    return nest


def values() -> dict[str, Any]:
    """One value of each kind, by name."""
    return {**_plain(), **_moments(), **_collections(), **_objects(), **_functions(), **_tables()}


def _plain() -> dict[str, Any]:
    return {
        "none": None,
        "true": True,
        "one": 1,
        "negative": -129,
        "big": 10**40,
        "float": 1.0,
        "minus zero": -0.0,
        "nan": float("nan"),
        "infinity": float("inf"),
        "complex": complex(1, -0.0),
        "text": "1",
        "none in words": "None",
        "surrogate": "\ud800",
        "long text": "é" * 1000,
        "bytes": b"1",
        "bytearray": bytearray(b"1"),
        "view": memoryview(b"1"),
        "decimal": decimal.Decimal("1.0"),
        "fraction": fractions.Fraction(1, 3),
        "range": range(0, 10, 3),
        "slice": slice(1, None, 2),
        "ellipsis": ...,
        "uuid": uuid.UUID(int=7),
        "path": pathlib.PurePosixPath("a/b"),
        "pattern": re.compile("a+", re.IGNORECASE),
    }


def _moments() -> dict[str, Any]:
    return {
        "date": dt.date(2026, 3, 1),
        "naive": dt.datetime(2026, 3, 1, 12),
        "utc": dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC),
        "paris": dt.datetime(2026, 3, 1, 13, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        "offset": dt.datetime(2026, 3, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        "time": dt.time(12, 30, tzinfo=dt.UTC),
        "duration": dt.timedelta(days=-1, microseconds=1),
        "zone": zoneinfo.ZoneInfo("Europe/Paris"),
    }


def _collections() -> dict[str, Any]:
    return {
        "list": [1, [2, "three"]],
        "tuple": (1, (2, "three")),
        "set": {f"member {number}" for number in range(50)},
        "frozenset": frozenset({1, "a", None, (1, 2)}),
        "dict": {"b": 1, "a": [2], 3: None, (4, 5): {"c": {6}}},
        "ordered": collections.OrderedDict(b=1, a=2),
        "default": collections.defaultdict(list, b=[1], a=[2]),
        "counter": collections.Counter("mississippi"),
        "deque": collections.deque([1, 2], maxlen=3),
        "view of a dict": types.MappingProxyType({"a": 1}),
        "bag": Bag(f"member {number}" for number in range(50)),
        "cycle": cyclic(),
        "nest": deep(5000),
    }


def _objects() -> dict[str, Any]:
    return {
        "enum": Colour.RED,
        "flags": Access.READ | Access.WRITE,
        "int enum": Level.LOW,
        "named tuple": Point(1, 2),
        "dataclass": Job("a", {"x", "y", "z"}, note="left out"),
        "attrs": Part("a", seen=3),
        "pydantic": Model(name="a", sizes={"s": 1, "m": 2}),
        "pydantic 1": OldModel(name="a"),
        "plain object": Plain(b={"x", "y", "z"}, a=1),
        "slots": Slotted(1, 2),
        "own key": Keyed("https://example.org"),
        "exception": ValueError("a", 1),
        "class": Plain,
        "type": int,
    }


def _functions() -> dict[str, Any]:
    return {
        "function": scaled(3),
        "lambda": lambda number: number + 1,
        "partial": functools.partial(scaled, factor=3),
        "method": Point(1, 2).count,
        "builtin": len,
    }


def _tables() -> dict[str, Any]:
    frame = pd.DataFrame(
        {
            "count": [1, 2],
            "share": [0.5, float("nan")],
            "name": pd.Series(["a", None], dtype="string"),
            "maybe": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["u", "v"]),
            "at": pd.to_datetime(["2026-01-01", "2026-01-02"]).tz_localize("Europe/Paris").as_unit("ns"),
        }
    )
    return {
        "array": np.arange(12, dtype="<i4").reshape(3, 4),
        "text array": np.array(["a", "bcd"]),
        "object array": np.array([1, "a", None], dtype=object),
        "moments": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"),
        "records": np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "<f8")]),
        "numpy float": np.float64(1),
        "frame": frame,
        "series": frame["share"],
        "index": pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", None]),
        "instant": pd.Timestamp("2026-01-01", tz="Europe/Paris").as_unit("ns"),
        "missing": [pd.NA, pd.NaT, None, float("nan")],
    }


def fingerprints() -> dict[str, str]:
    """The fingerprint of each value, by name."""
    return {name: fingerprint(value) for name, value in values().items()}
