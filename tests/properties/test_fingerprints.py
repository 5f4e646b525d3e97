"""Two values have one fingerprint exactly when they are the same value, types included."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.fingerprint import fingerprint

# Few values, much alike: then two that are drawn are often the same, and often nearly so.
LEAVES = [
    0,
    1,
    -1,
    255,
    256,
    True,
    False,
    0.0,
    -0.0,
    1.0,
    float("nan"),
    1j,
    "",
    "1",
    "a",
    b"",
    b"1",
    None,
    "None",
]
HASHABLE = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    """What the fingerprints must say, told by comparing the values themselves."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one != one and other != other) or struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return same_members(list(one), list(other))
    if isinstance(one, dict):
        return same_members(list(one.items()), list(other.items()))
    return bool(one == other)


def same_members(ones: list[Any], others: list[Any]) -> bool:
    left = list(others)
    for member in ones:
        twin = next((index for index, candidate in enumerate(left) if same(member, candidate)), None)
        if twin is None:
            return False
        del left[twin]
    return not left


def rebuilt(value: Any, chance: random.Random) -> Any:
    """The same value, made anew and in another order."""
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(item, chance) for item in value)
    if isinstance(value, set | frozenset):
        return type(value)(chance.sample(sorted(value, key=repr), len(value)))
    if isinstance(value, dict):
        items = list(value.items())
        return {key: rebuilt(item, chance) for key, item in chance.sample(items, len(items))}
    return copy.deepcopy(value)


@given(VALUES, VALUES)
def test_equal_exactly_when_the_same(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == same(one, other)


@given(VALUES, st.randoms(use_true_random=False))
def test_order_of_making_does_not_count(value: Any, chance: random.Random) -> None:
    assert fingerprint(rebuilt(value, chance)) == fingerprint(value)


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_shared_parts_and_equal_copies_are_one(parts: list[Any]) -> None:
    shared = [parts, parts, {"again": parts}]
    copies = [rebuilt(parts, random.Random(0)) for _ in range(3)]
    assert fingerprint(shared) == fingerprint([copies[0], copies[1], {"again": copies[2]}])


@given(VALUES, VALUES)
def test_values_do_not_run_into_each_other(one: Any, other: Any) -> None:
    found = {fingerprint(value) for value in ([one, other], [[one, other]], [[one], other], [one, [other]])}
    assert len(found) == 4 or same(one, other)


@given(
    st.sampled_from(["<i2", ">i8", "<f4", ">f8", "<c8", "?", "<U3", "<M8[ms]"]),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.data(),
)
def test_layout_of_arrays_does_not_count(dtype: str, shape: list[int], data: st.DataObject) -> None:
    size = int(np.prod(shape))
    array = (np.arange(size) % 7).astype("i8").astype(dtype).reshape(shape)
    axes = data.draw(st.permutations(range(len(shape))))
    view = array.transpose(axes)[
        tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in shape)
    ]
    twin = np.ascontiguousarray(view).reshape(view.shape).astype(view.dtype.newbyteorder("<"))
    assert fingerprint(view) == fingerprint(twin)
    if size and view.size:
        first, second = np.arange(2).astype("i8").astype(dtype)
        twin.flat[0] = second if twin.flat[0] == first else first
        assert fingerprint(view) != fingerprint(twin)
