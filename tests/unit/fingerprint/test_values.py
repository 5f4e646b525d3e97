"""What counts in a fingerprint and what does not, kind by kind."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import functools
import gc
import io
import pathlib
import subprocess
import sys
import threading
import tracemalloc
import zoneinfo
from typing import Any

import numpy as np
import pydantic
import pydantic.dataclasses
import pytest

from headrace.core.fingerprint import HashError, fingerprint, register_cache_encoder
from tests.support.fingerprinted import (
    Bag,
    Job,
    Keyed,
    Model,
    OldModel,
    Part,
    Plain,
    Point,
    Slotted,
    cyclic,
    deep,
)


@dataclasses.dataclass
class Chain:
    following: Any


class Connection:
    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()


class PooledConnection(Connection):
    pass


def test_types_count() -> None:
    values = [
        1,
        True,
        1.0,
        "1",
        b"1",
        bytearray(b"1"),
        decimal.Decimal(1),
        None,
        "None",
        1 + 0j,
        [1],
        (1,),
        {1},
    ]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_the_version_stands_in_front() -> None:
    found = fingerprint(None)
    assert found.startswith("01")
    assert len(found) == 66


def test_not_a_number_is_one_value() -> None:
    assert fingerprint(float("nan")) == fingerprint(-float("nan"))
    assert fingerprint(0.0) != fingerprint(-0.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (range(0, 4, 2), range(0, 3, 2)),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))),
        (pathlib.Path("a/b"), pathlib.PurePosixPath("a", "b")),
        (Job("a", {"x"}, note="1"), Job("a", {"x"}, note="2")),
        (Part("a", seen=1), Part("a", seen=2)),
        (Model(name="a"), Model(name="a", sizes={})),
        (Keyed("u"), Keyed("u")),
        (Plain(a=1, b=2), Plain(b=2, a=1)),
        (memoryview(b"abcd")[::2], memoryview(b"ac")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equal(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        (
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            dt.datetime(2026, 1, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
        ),
        (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        (dt.date(2026, 1, 1), dt.datetime(2026, 1, 1)),
        (Job("a", {"x"}), Job("a", {"y"})),
        (Point(1, 2), (1, 2)),
        (Model(name="a"), OldModel(name="a")),
        (Keyed("u"), "u"),
        (Slotted(1, 2), Slotted(2, 1)),
        (Bag("ab"), {"a", "b"}),
        (np.float64(1), 1.0),
        (np.zeros(2), [0.0, 0.0]),
        (np.zeros((2, 1)), np.zeros((1, 2))),
        (np.zeros(2, "f4"), np.zeros(2, "f8")),
        (int, float),
        (len, max),
    ],
    ids=lambda value: type(value).__name__,
)
def test_different(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_private_attributes_of_models_do_not_count() -> None:
    one, other = Model(name="a"), Model(name="a")
    other._cache["filled"] = 1
    assert fingerprint(one) == fingerprint(other)


def test_nests_of_any_depth() -> None:
    nest: Any = None
    for _ in range(25_000):
        nest = (Chain({"in": [nest]}),)
    assert fingerprint(deep(100_000)) != fingerprint(nest)


def test_cycles_end() -> None:
    assert fingerprint(cyclic()) == fingerprint(cyclic()) == fingerprint(copy.deepcopy(cyclic()))
    ring = cyclic()
    ring[0] = 2
    assert fingerprint(ring) != fingerprint(cyclic())


def test_a_cycle_is_the_same_whichever_part_was_met_before() -> None:
    parent = Plain(name="parent")
    parent.children = [Plain(name=name, parent=parent) for name in "ab"]
    twin = copy.deepcopy(parent)
    twin.__dict__ = dict(reversed(twin.__dict__.items()))
    assert fingerprint([parent, parent.children[0]]) == fingerprint([twin, twin.children[0]])


def test_shared_parts_are_gone_through_once() -> None:
    diamond: list[Any] = []
    for _ in range(200):
        diamond = [diamond, diamond]
    assert fingerprint(diamond) == fingerprint(copy.deepcopy(diamond))


def test_too_many_cycles_are_refused_in_bounded_time() -> None:
    crowd: list[list[Any]] = [[number] for number in range(12)]
    for member in crowd:
        member.extend(crowd)
    with pytest.raises(HashError, match="too many cycles"):
        fingerprint(crowd)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"cfg": Plain(clients=[1, 2, 3, Connection("u")])}, "inputs['cfg'].clients[3]._lock"),
        ([io.BytesIO(), (n for n in ())], "inputs[1]"),
        ({3: {"a": threading.Event()}}, "inputs[3]['a']._cond._lock"),
        ({Chain: threading.local()}, "inputs[<type>]"),
    ],
)
def test_what_is_no_data_is_named(value: Any, path: str) -> None:
    with pytest.raises(HashError) as caught:
        fingerprint(value, name="inputs")
    assert caught.value.path == path
    assert "__headrace_key__" in str(caught.value)


def test_an_open_file_is_no_data(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "a").open("w") as file, pytest.raises(HashError, match=r"inputs\.file: .*TextIOWrapper"):
        fingerprint(Plain(file=file), name="inputs")


def test_a_key_that_fails_is_named() -> None:
    class Bad:
        def __headrace_key__(self) -> str:
            raise LookupError("no")

    with pytest.raises(HashError, match=r"v\[0\]: its key failed with LookupError: no"):
        fingerprint([Bad()], name="v")


def test_an_object_that_cannot_be_read_is_named() -> None:
    class Lazy:
        __dataclass_fields__ = Job.__dataclass_fields__

        @property
        def name(self) -> str:
            raise ConnectionError("away")

    with pytest.raises(HashError, match=r"^v\[0\]: taking it apart failed with ConnectionError: away"):
        fingerprint([Lazy()], name="v")


class Root(pydantic.RootModel[list[int]]):
    pass


class Open(pydantic.BaseModel, extra="allow"):
    secret: pydantic.SecretStr
    aliased: int = pydantic.Field(alias="as")

    @functools.cached_property
    def slow(self) -> int:
        return 1


@pydantic.dataclasses.dataclass
class Checked:
    number: int


def test_models_of_every_kind_count_by_their_values() -> None:
    def opened(**changes: Any) -> Open:
        return Open.model_validate({"secret": "s", "as": 1, "more": {1, 2}, **changes})

    used = opened()
    assert used.slow == 1
    assert fingerprint(used) == fingerprint(opened())
    for changes in ({"secret": "t"}, {"as": 2}, {"more": {1}}, {"another": 1}):
        assert fingerprint(opened(**changes)) != fingerprint(used)
    assert fingerprint(Root([1])) == fingerprint(Root([1])) != fingerprint(Root([2]))
    assert fingerprint(Checked(1)) == fingerprint(Checked(1)) != fingerprint(Checked(2))


def test_registered_classes_say_what_counts() -> None:
    register_cache_encoder(Connection, lambda connection: connection.url)
    assert fingerprint(Connection("a")) == fingerprint(Connection("a")) != fingerprint(Connection("b"))
    assert fingerprint(PooledConnection("a")) != fingerprint(Connection("a"))
    with pytest.raises(TypeError, match="class"):
        register_cache_encoder("Connection", str)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function"):
        register_cache_encoder(Connection, "url")  # type: ignore[arg-type]


def test_dicts_of_one_class_keep_their_order_where_it_is_theirs() -> None:
    forward, backward = collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)
    assert fingerprint(forward) != fingerprint(backward)
    assert fingerprint(collections.Counter("ab")) == fingerprint(collections.Counter("ba"))


@pytest.mark.parametrize("kind", ["array", "every other item", "other byte order", "bytes"])
def test_large_buffers_are_not_copied(kind: str) -> None:
    size = 64 * 1024 * 1024
    whole: Any = bytes(size) if kind == "bytes" else np.zeros(size // 8)
    value = {"every other item": lambda: whole[::2], "other byte order": lambda: whole.view(">f8")}.get(
        kind, lambda: whole
    )()
    fingerprint(np.zeros(1))
    gc.collect()
    tracemalloc.start()
    try:
        fingerprint({"value": value})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 16


def test_no_library_is_imported_for_plain_values() -> None:
    program = (
        "import sys; from headrace.core.fingerprint import fingerprint; fingerprint({'a': [1, {2.0}]});"
        "print([name for name in ('numpy', 'pandas', 'pydantic', 'attrs', 'asyncio') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
