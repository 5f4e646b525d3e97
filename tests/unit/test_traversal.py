"""The traversal of arguments: what it enters, what it keeps, that it ends, and that it is cheap."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel

from headrace.utilities.annotations import allow_failure, opaque, quote, unmapped
from headrace.utilities.collections import Traversal


class Leaf:
    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Plain:
    x: Any
    y: Any = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    doubled: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", self.doubled + 1)


class Pair(NamedTuple):
    left: Any
    right: Any


class Words(list[Any]):
    def __init__(self, language: str, words: list[Any]) -> None:
        super().__init__(words)
        self.language = language


class Sealed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
    x: Any
    y: Any = 5
    _secret: Any = PrivateAttr(default=None)


traversal = Traversal(Leaf)


def resolved(value: Any) -> Any:
    return traversal.substitute(value, lambda leaf, _: leaf.value)


def test_containers_of_every_kind_come_back_as_the_same_kind() -> None:
    leaf = Leaf(1)
    default: defaultdict[str, Any] = defaultdict(list, a=leaf)
    ordered: OrderedDict[str, Any] = OrderedDict(b=leaf, a=2)
    ordered.move_to_end("b")

    assert resolved([leaf, 2]) == [1, 2]
    assert resolved((leaf, 2)) == (1, 2)
    assert resolved(Pair(leaf, 2)) == Pair(1, 2)
    assert isinstance(resolved(Pair(leaf, 2)), Pair)
    assert resolved({leaf, 2}) == {1, 2}
    assert resolved(frozenset({leaf})) == frozenset({1})
    assert resolved({"k": leaf, leaf: "v"}) == {"k": 1, 1: "v"}
    assert resolved(default) == {"a": 1}
    assert resolved(default)["missing"] == []
    assert list(resolved(ordered).items()) == [("a", 2), ("b", 1)]
    assert resolved(Counter({leaf: 3})) == Counter({1: 3})
    assert resolved(Plain(leaf)) == Plain(1)


def test_a_list_subclass_keeps_its_attributes_without_its_constructor() -> None:
    words = resolved(Words("en", [Leaf("a"), "b"]))
    assert (type(words), words.language, list(words)) == (Words, "en", ["a", "b"])


def test_a_frozen_dataclass_is_copied_without_running_its_hooks_again() -> None:
    value = Frozen([Leaf(1)])
    result = resolved(value)
    assert result.x == [1]
    assert result.doubled == 1
    assert value.x != [1], "the original is left alone"


def test_a_frozen_model_with_extra_fields_and_private_attributes() -> None:
    model = Sealed(x=Leaf(1), more=[Leaf(2)])  # type: ignore[call-arg]
    model._secret = Leaf(3)
    result = resolved(model)
    assert (result.x, result.more, result._secret) == (1, [2], 3)
    assert result.model_fields_set == {"x", "more"}
    assert isinstance(model.x, Leaf), "the original is left alone"


def test_a_root_model_is_entered() -> None:
    assert resolved(RootModel[list[Any]]([Leaf(1)])).root == [1]


@pytest.mark.parametrize(
    "value",
    [
        [1, [2, (3, {"a": {4}})]],
        Pair(1, [2]),
        Plain([1]),
        Sealed(x=[1]),
        frozenset({1}),
        "text",
        iter([Leaf(1)]),
        (x for x in [Leaf(1)]),
        MagicMock(),
        object(),
        Plain,
    ],
    ids=lambda value: type(value).__name__,
)
def test_untouched_values_keep_their_identity(value: Any) -> None:
    assert resolved(value) is value
    assert traversal.find(value) == []


def test_untouched_parts_of_a_changed_container_keep_theirs() -> None:
    part = {"rows": [1, 2]}
    assert resolved([Leaf(0), part])[1] is part


def test_iterators_are_not_consumed() -> None:
    def numbers() -> Iterator[Any]:
        yield Leaf(1)

    source = numbers()
    resolved([source, Leaf(2)])
    assert len(list(source)) == 1


def test_a_container_that_holds_itself_ends() -> None:
    inside: list[Any] = [1, Leaf(2)]
    inside.append(inside)
    assert traversal.find(inside) == [inside[1]]
    result = resolved(inside)
    assert result[:2] == [1, 2]
    assert result[2] is inside

    plain: dict[str, Any] = {}
    plain["self"] = plain
    assert resolved(plain) is plain


def test_shared_parts_are_looked_at_once() -> None:
    value: Any = [Leaf(1)]
    for _ in range(200):
        value = [value, value]  # 2**200 paths
    assert len(traversal.find(value)) == 1
    result = resolved(value)
    assert result[0] is result[1]


def test_any_depth_can_be_searched() -> None:
    leaf = Leaf(1)
    value: Any = leaf
    for _ in range(100_000):
        value = [value]
    assert traversal.find(value) == [leaf]


def test_leaves_are_found_in_order_and_once() -> None:
    a, b, c = Leaf("a"), Leaf("b"), Leaf("c")
    assert traversal.find([a, {"k": (b, a)}, Plain(c), b]) == [a, b, c]


def test_a_leaf_that_stands_in_two_places_is_replaced_once() -> None:
    asked: list[Leaf] = []
    leaf = Leaf(1)

    def replace(found: Leaf, _: bool) -> Any:
        asked.append(found)
        return [found.value]

    result = traversal.substitute([leaf, {"again": leaf}], replace)
    assert asked == [leaf]
    assert result[0] is result[1]["again"]


def test_annotations_are_taken_off_or_kept() -> None:
    leaf = Leaf(1)
    value = [quote(leaf), opaque([leaf]), opaque(leaf), unmapped([leaf]), allow_failure(leaf)]
    assert traversal.find(value) == [leaf]
    assert traversal.find([quote(leaf), opaque([leaf])]) == []
    assert resolved(value) == [leaf, [leaf], 1, [1], 1]
    kept = traversal.substitute(value, lambda found, _: found.value, keep_annotations=True)
    assert kept == [quote(leaf), opaque([leaf]), opaque(1), unmapped([1]), allow_failure(1)]
    assert kept[0] is value[0]


def test_only_leaves_inside_allow_failure_are_told_so() -> None:
    told: list[tuple[Any, bool]] = []

    def replace(found: Leaf, allowed: bool) -> Any:
        told.append((found.value, allowed))
        return found.value

    shared = Leaf("both")
    traversal.substitute(
        [Leaf(1), allow_failure([Leaf(2), shared]), unmapped(allow_failure(Leaf(3))), shared], replace
    )
    assert told == [(1, False), (2, True), ("both", True), (3, True), ("both", False)]


def test_classes_made_on_the_fly_do_not_pile_up() -> None:
    own = Traversal(Leaf)
    for _ in range(10_000):
        assert own.find([type("Made", (), {})()]) == []
    assert len(own._kinds) < 5000
    assert own.find([Leaf(1)]) != []


def test_a_million_numbers_are_neither_copied_nor_walked_one_by_one() -> None:
    numbers = list(range(1_000_000))
    value = {"numbers": numbers, "leaf": Leaf(1)}
    resolved(value)
    started = time.process_time()
    assert resolved(value)["numbers"] is numbers
    assert time.process_time() - started < 0.25


def test_a_few_scalars_cost_about_a_microsecond() -> None:
    arguments = (1, "text", None)
    traversal.find(arguments)
    started = time.process_time()
    for _ in range(20_000):
        traversal.find(arguments)
    assert (time.process_time() - started) / 20_000 < 10e-6
