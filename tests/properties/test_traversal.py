"""The traversal against the obvious recursion, over values of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from headrace.utilities.annotations import allow_failure, quote, unmapped
from headrace.utilities.collections import Traversal


@dataclass(frozen=True)
class Leaf:
    number: int


@dataclass(frozen=True)
class Box:
    content: Any


class Pair(NamedTuple):
    left: Any
    right: Any


class Model(BaseModel):
    content: Any


TRAVERSAL = Traversal(Leaf)

hashable = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.builds(Leaf, st.integers(0, 5)))
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.builds(Pair, inner, inner),
        st.builds(Box, inner),
        st.builds(lambda content: Model(content=content), inner),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.builds(quote, inner),
        st.builds(allow_failure, inner),
        st.builds(unmapped, inner),
    ),
    max_leaves=25,
)


def obvious(value: Any) -> Any:
    """Every leaf replaced by its negative number, written out."""
    match value:
        case Leaf(number):
            return -number - 1
        case quote():
            return value.value
        case allow_failure() | unmapped():
            return obvious(value.value)
        case Box(content):
            return Box(obvious(content))
        case Model():
            return Model(content=obvious(value.content))
        case Pair(left, right):
            return Pair(obvious(left), obvious(right))
        case list() | tuple() | set() | frozenset():
            return type(value)(map(obvious, value))
        case dict():
            return {obvious(key): obvious(item) for key, item in value.items()}
        case _:
            return value


def leaves(value: Any) -> set[Leaf]:
    found: set[Leaf] = set()
    TRAVERSAL.substitute(value, lambda leaf, _: found.add(leaf), keep_annotations=True)
    return found


@given(values)
def test_substitution_is_the_obvious_recursion(value: Any) -> None:
    result = TRAVERSAL.substitute(value, lambda leaf, _: -leaf.number - 1)
    assert result == obvious(value)
    assert type(result) is type(obvious(value))


@given(values)
def test_what_is_found_is_what_is_substituted(value: Any) -> None:
    assert set(TRAVERSAL.find(value)) == leaves(value)


@given(values)
def test_replacing_leaves_by_themselves_changes_nothing(value: Any) -> None:
    assert TRAVERSAL.substitute(value, lambda leaf, _: leaf, keep_annotations=True) is value
