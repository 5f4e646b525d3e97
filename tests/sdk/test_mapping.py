"""What `map` spreads, and over what."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import allow_failure, flow, quote, tags, task, unmapped
from headrace.exceptions import MappingLengthMismatch, MappingMissingIterable, UpstreamTaskError
from headrace.futures import HeadraceFuture, HeadraceFutureList
from headrace.states import Completed
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")


@task
def show(x: Any, y: Any = "-", *rest: Any, **named: Any) -> Any:
    return (x, y, *rest, named) if rest or named else (x, y)


@task
def one(x: Any) -> Any:
    return x


@task
def fail_at(x: int, bad: int) -> int:
    if x == bad:
        raise ValueError(f"bad {x}")
    return x


def mapped(*args: Any, **kwargs: Any) -> Any:
    @flow
    def run() -> Any:
        return show.map(*args, **kwargs).result()

    return run()


class Point(BaseModel):
    x: int
    y: int


def numbers() -> Iterator[int]:
    yield from (1, 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        (range(2), [0, 1]),
        (numbers(), [1, 2]),
        (Point(x=1, y=2), [("x", 1), ("y", 2)]),
        ([], []),
    ],
    ids=["list", "tuple", "set", "dict", "range", "generator", "model", "empty"],
)
def test_what_can_be_iterated_over_is_spread(given: Any, expected: list[Any]) -> None:
    assert mapped(given) == [(x, "-") for x in expected]


@pytest.mark.parametrize(
    "whole", ["text", b"bytes", 5, None, io.StringIO("lines\n")], ids=lambda value: type(value).__name__
)
def test_what_is_one_value_to_people_is_not(whole: Any) -> None:
    assert mapped([1, 2], whole) == [(1, whole), (2, whole)]


def test_an_array_is_spread_over_what_iterating_gives() -> None:
    class Array:
        def __getitem__(self, i: int) -> list[int]:
            if i == 2:
                raise IndexError
            return [i, i]

    assert mapped(Array()) == [([0, 0], "-"), ([1, 1], "-")]


def test_iterables_are_zipped_and_must_have_one_length() -> None:
    assert mapped([1, 2], y=["a", "b"]) == [(1, "a"), (2, "b")]
    with pytest.raises(MappingLengthMismatch, match=r"'x': 2, 'y': 3"):
        mapped([1, 2], [1, 2, 3])
    with pytest.raises(MappingMissingIterable, match="'x': 1"):
        mapped(1)
    with pytest.raises(MappingMissingIterable):
        mapped(unmapped([1]))


def test_every_one_of_varargs_and_keywords_is_an_argument_of_its_own() -> None:
    assert mapped([1, 2], "s", [3, 4], 5, k=[6, 7], m=8) == [
        (1, "s", 3, 5, {"k": 6, "m": 8}),
        (2, "s", 4, 5, {"k": 7, "m": 8}),
    ]
    with pytest.raises(MappingLengthMismatch, match=r"named\['k'\]"):
        mapped([1, 2], k=[1])


def test_a_default_is_not_spread() -> None:
    @task
    def with_default(x: int, options: Any = (1, 2, 3)) -> Any:
        return (x, options)

    @flow
    def run() -> Any:
        return with_default.map([1, 2]).result()

    assert run() == [(1, (1, 2, 3)), (2, (1, 2, 3))]


def test_unmapped_goes_whole_to_every_call() -> None:
    assert mapped([1, 2], unmapped([3, 4])) == [(1, [3, 4]), (2, [3, 4])]
    assert unmapped([3, 4])[17] == [3, 4]


def test_quoted_items_stay_what_they_are() -> None:
    @flow
    def run() -> Any:
        futures = [one.submit(1), one.submit(2)]
        return [[type(x) for x in pair] for pair in show.map(quote(futures), quote([3, 4])).result()]

    assert run() == [[HeadraceFuture, int], [HeadraceFuture, int]]


def test_a_future_or_state_is_waited_for_and_its_result_spread(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        rows = one.submit([1, 2])
        return show.map(rows, Completed(data=["a", "b"])).result()

    assert run() == [(1, "a"), (2, "b")]
    source = recorder.the("one").run.id
    for call in recorder.all("show"):
        assert [(edge.parameter, list(edge.run_ids)) for edge in call.run.inputs] == [("x", [source])]


def test_a_future_whose_result_is_one_value_goes_to_every_call() -> None:
    @flow
    def run() -> Any:
        return show.map([1, 2], one.submit("text")).result()

    assert run() == [(1, "text"), (2, "text")]


def test_a_future_of_a_list_of_futures_is_spread_over_those(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        futures = [one.submit(1), one.submit(2)]
        return show.map(one.submit(quote(futures))).result()

    assert run() == [(1, "-"), (2, "-")]


def test_futures_in_a_list_are_one_per_call(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> Any:
        return show.map(one.map([1, 2])).result()

    assert run() == [(1, "-"), (2, "-")]
    sources = [[call.run.id] for call in recorder.all("one")]
    assert [list(call.run.inputs[0].run_ids) for call in recorder.all("show")] == sources


def test_an_upstream_that_failed_cannot_be_spread() -> None:
    @flow
    def run() -> None:
        with pytest.raises(UpstreamTaskError):
            show.map(fail_at.submit(1, 1))

    run()


def test_allow_failure_keeps_its_meaning_per_call() -> None:
    @flow
    def run() -> Any:
        some = fail_at.map([1, 2], bad=2)
        bad = fail_at.submit(3, 3)
        per_item = show.map(allow_failure(some)).result()
        static = show.map([1, 2], allow_failure(bad)).result()
        around = show.map([1], allow_failure(unmapped([bad]))).result()
        inside = show.map([1], unmapped(allow_failure([bad]))).result()
        return per_item, static, around, inside

    per_item, static, around, inside = run()
    assert repr(per_item) == "[(1, '-'), (ValueError('bad 2'), '-')]"
    assert repr(static) == "[(1, ValueError('bad 3')), (2, ValueError('bad 3'))]"
    assert repr(around) == repr(inside) == "[(1, [ValueError('bad 3')])]"


def test_an_item_that_fails_does_not_stop_the_others() -> None:
    @flow
    def run() -> Any:
        futures = fail_at.map([1, 2, 3], bad=2)
        futures.wait()
        return [future.state.name for future in futures]

    assert run() == ["Completed", "Failed", "Completed"]


def test_return_state_waits_and_gives_states() -> None:
    @flow
    def run() -> Any:
        return {"names": [state.name for state in fail_at.map([1, 2], bad=2, return_state=True)]}

    assert run() == {"names": ["Completed", "Failed"]}


def test_mapping_over_nothing_is_an_empty_list() -> None:
    @flow
    def run() -> Any:
        futures = one.map([])
        assert isinstance(futures, HeadraceFutureList)
        return {"futures": list(futures), "results": futures.result()}

    assert run() == {"futures": [], "results": []}


def test_all_items_wait_for_what_they_are_told_to(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        first = one.submit(0)
        show.map([1, 2], wait_for=[first]).wait()

    run()
    source = recorder.the("one").run.id
    waits = [
        [list(edge.run_ids) for edge in call.run.inputs if edge.parameter == "wait_for"]
        for call in recorder.all("show")
    ]
    assert waits == [[[source]]] * 2


def test_each_item_has_its_own_name_and_tags(recorder: MemoryRecorder) -> None:
    named = one.with_options(task_run_name="item-{x}", tags=["of-task"])

    @flow
    def run() -> None:
        with tags("around"):
            named.map([1, 2]).wait()
        named.map([3]).wait()

    run()
    runs = [(call.run.name, list(call.run.tags)) for call in recorder.all("one")]
    assert runs == [
        ("item-1", ["around", "of-task"]),
        ("item-2", ["around", "of-task"]),
        ("item-3", ["of-task"]),
    ]


def test_items_are_submitted_in_order(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        one.map(range(50)).wait()

    run()
    assert [call.run.dynamic_key for call in recorder.all("one")] == [str(i) for i in range(50)]


async def test_async_tasks_are_mapped_from_async_flows() -> None:
    @task
    async def double(x: int) -> int:
        return 2 * x

    @flow
    async def run() -> Any:
        return double.map([1, 2, 3]).result(timeout=60)

    assert await run() == [2, 4, 6]
