"""Generator tasks and flows: iterators whose run lasts as long as they do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from headrace import flow, task
from headrace.context import current_run
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")
BOTH = pytest.mark.parametrize("decorate", [flow, task])


class Body:
    """A generator body that notes what happens to it."""

    def __init__(self, count: int = 3, fail_at: int | None = None) -> None:
        self.count = count
        self.fail_at = fail_at
        self.attempts = 0
        self.cleaned = 0

    def sync(self) -> Iterator[int]:
        self.attempts += 1
        try:
            for n in range(self.count):
                if n == self.fail_at and self.attempts == 1:
                    raise ValueError("once")
                yield n
        finally:
            self.cleaned += 1
        return "the end"

    async def async_(self) -> AsyncIterator[int]:
        self.attempts += 1
        try:
            for n in range(self.count):
                await asyncio.sleep(0)
                if n == self.fail_at and self.attempts == 1:
                    raise ValueError("once")
                yield n
        finally:
            self.cleaned += 1


def made(decorate: Any, body: Any, **options: Any) -> Any:
    return decorate(body, name="it", **options)


async def collected(iterator: Any) -> list[Any]:
    return [value async for value in iterator]


@BOTH
def test_the_run_lasts_as_long_as_the_iterator(decorate: Any, recorder: MemoryRecorder) -> None:
    iterator = made(decorate, Body().sync)()
    assert recorder.entries == []
    assert next(iterator) == 0
    assert recorder.the("it").names == ["Pending", "Running"]
    assert list(iterator) == [1, 2]
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]
    assert recorder.the("it").result == "the end"
    assert recorder.owners == {}


@BOTH
def test_async(decorate: Any, recorder: MemoryRecorder) -> None:
    assert asyncio.run(collected(made(decorate, Body().async_)())) == [0, 1, 2]
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]


@BOTH
def test_a_consumer_that_leaves(decorate: Any, recorder: MemoryRecorder) -> None:
    body = Body()
    iterator = made(decorate, body.sync)()
    next(iterator)
    iterator.close()
    assert body.cleaned == 1
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]
    assert recorder.owners == {}


@BOTH
def test_a_consumer_that_forgets(decorate: Any, recorder: MemoryRecorder) -> None:
    body = Body()
    next(made(decorate, body.sync)())
    gc.collect()
    assert body.cleaned == 1
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]


@BOTH
def test_breaking_out_of_an_async_loop(decorate: Any, recorder: MemoryRecorder) -> None:
    body = Body()

    async def consume() -> None:
        async with aclosing(made(decorate, body.async_)()) as values:
            async for _ in values:
                break

    asyncio.run(consume())
    assert body.cleaned == 1
    assert recorder.the("it").names == ["Pending", "Running", "Completed"]


@BOTH
def test_a_failure_is_raised_from_next(decorate: Any, recorder: MemoryRecorder) -> None:
    iterator = made(decorate, Body(fail_at=1).sync)()
    assert next(iterator) == 0
    with pytest.raises(ValueError, match="once"):
        next(iterator)
    assert recorder.the("it").names == ["Pending", "Running", "Failed"]
    with pytest.raises(ValueError, match="once"):
        asyncio.run(collected(made(decorate, Body(fail_at=0).async_)()))


@BOTH
def test_a_retry_begins_again(decorate: Any, recorder: MemoryRecorder) -> None:
    assert list(made(decorate, Body(fail_at=2).sync, retries=1)()) == [0, 1, 0, 1, 2]
    assert asyncio.run(collected(made(decorate, Body(fail_at=2).async_, retries=1)())) == [0, 1, 0, 1, 2]
    for run in recorder.all("it"):
        assert run.names == ["Pending", "Running", "Retrying", "Completed"]


@BOTH
def test_the_state_cannot_be_asked_for(decorate: Any) -> None:
    for body in (Body().sync, Body().async_):
        with pytest.raises(ValueError, match="return_state"):
            made(decorate, body)(return_state=True)


def test_the_consumer_is_not_in_the_run() -> None:
    inside: list[Any] = []

    def body() -> Iterator[int]:
        context = current_run()
        assert context is not None
        inside.append(context.run.id)
        yield 1
        inside.append(context.run.id)

    @flow
    def outer() -> list[Any]:
        return [(current_run() or inside).run.id for _ in task(body)()]  # type: ignore[union-attr]

    (consumer,) = outer()
    assert inside[0] == inside[1] != consumer


def test_one_task_generator_in_another(recorder: MemoryRecorder) -> None:
    inner = task(Body().sync, name="inner")

    @task(name="outer")
    def outer() -> Iterator[int]:
        result = yield from inner()
        assert result == "the end"
        yield 9

    assert list(outer()) == [0, 1, 2, 9]
    assert recorder.the("inner").run.parent_run_id == recorder.the("outer").run.id


def test_values_can_be_sent_and_errors_thrown() -> None:
    @task
    def echo() -> Iterator[Any]:
        given = yield "first"
        while True:
            try:
                given = yield given
            except KeyError as error:
                given = f"caught {error}"

    iterator = echo()
    assert next(iterator) == "first"
    assert iterator.send(5) == 5
    assert iterator.throw(KeyError("x")) == "caught 'x'"


def test_submitted_it_gives_the_list_of_its_values() -> None:
    @flow
    def outer() -> Any:
        return [
            task(Body().sync).submit().result(),
            task(Body().async_).submit().result(),
        ]

    assert outer() == [[0, 1, 2], [0, 1, 2]]


def test_values_are_products_of_the_run(recorder: MemoryRecorder) -> None:
    @task(name="makes")
    def makes() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        yield {"a": 2}

    takes = task(lambda x: x, name="takes")

    @flow
    def outer() -> None:
        for value in makes():
            takes(value)

    outer()
    source = recorder.the("makes").run.id
    assert [[list(edge.run_ids) for edge in run.run.inputs] for run in recorder.all("takes")] == [
        [[source]]
    ] * 2


def test_a_crash_in_a_generator(recorder: MemoryRecorder) -> None:
    def body() -> Iterator[int]:
        yield 1
        raise SystemExit(3)

    iterator = task(body, name="it")()
    next(iterator)
    with pytest.raises(SystemExit):
        next(iterator)
    assert recorder.the("it").names == ["Pending", "Running", "Crashed"]
