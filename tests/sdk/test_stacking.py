"""Flows and tasks among the decorators of others, above and below them, sync and async."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import queue
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio.to_thread
import click
import dramatiq
import fastapi
import httpx
import pydantic
import pytest
import tenacity
import typer
from click.testing import CliRunner
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware.asyncio import AsyncIO
from typer.testing import CliRunner as TyperRunner

from headrace import Flow, flow, task
from headrace.context import FlowRunContext, TaskRunContext
from headrace.core.fingerprint import fingerprint
from headrace.core.fingerprint.functions import source_of
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

BOTH = pytest.mark.parametrize("decorate", [flow, task])
SYNC_AND_ASYNC = pytest.mark.parametrize("kind", KINDS)


def run_name() -> str:
    """The name of the flow or task that runs here."""
    context = TaskRunContext.get() or FlowRunContext.get()
    assert context is not None
    return context.run.name


# FastAPI.


def client_of(app: fastapi.FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@BOTH
@SYNC_AND_ASYNC
async def test_a_fastapi_endpoint(decorate: Any, kind: str) -> None:
    def double(number: int, times: Annotated[int, fastapi.Query(le=9)] = 2) -> dict[str, Any]:
        """Multiplies."""
        return {"product": number * times, "in": run_name() != ""}

    app = fastapi.FastAPI()
    app.get("/double/{number}")(decorate(of_kind(kind, double)))
    async with client_of(app) as client:
        assert (await client.get("/double/4?times=3")).json() == {"product": 12, "in": True}
        assert (await client.get("/double/four")).status_code == 422
        operation = (await client.get("/openapi.json")).json()["paths"]["/double/{number}"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["number", "times"]
    assert operation["description"] == "Multiplies."


@BOTH
@SYNC_AND_ASYNC
async def test_a_fastapi_dependency(decorate: Any, kind: str) -> None:
    found = decorate(of_kind(kind, lambda user: f"found {user}"))
    app = fastapi.FastAPI()

    @app.get("/me")
    async def me(user: str = fastapi.Depends(found)) -> str:
        return user

    async with client_of(app) as client:
        assert (await client.get("/me?user=ada")).json() == "found ada"


@SYNC_AND_ASYNC
async def test_a_flow_per_request_sees_its_own_run_only(kind: str, recorder: MemoryRecorder) -> None:
    @task
    def named() -> tuple[str, str]:
        flow_run = FlowRunContext.get()
        assert flow_run is not None
        return flow_run.flow_run.id, str(flow_run.parameters["number"])

    async def body(number: int) -> list[str]:
        assert FlowRunContext.get() is not None
        first = named()
        await asyncio.sleep(0)
        return [*first, *named()]

    def plain(number: int) -> list[str]:
        return [*named(), *named()]

    app = fastapi.FastAPI()
    app.get("/{number}")(flow(name="per request")(body if kind == "async" else plain))
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(60)))
    found = [answer.json() for answer in answers]
    assert [one[1] for one in found] == [str(number) for number in range(60)]
    assert all(one[:2] == one[2:] for one in found)
    assert len({one[0] for one in found}) == 60
    assert FlowRunContext.get() is None


# Command lines.


@BOTH
def test_a_typer_command(decorate: Any) -> None:
    def greet(name: str, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
        """Says hello."""
        typer.echo(" ".join(["hello", name] * times))

    app = typer.Typer()
    app.command()(decorate(greet))
    shown = TyperRunner().invoke(app, ["ada", "--times", "2"])
    assert (shown.exit_code, shown.stdout) == (0, "hello ada hello ada\n")
    help_text = TyperRunner().invoke(app, ["--help"]).output
    assert "Says hello." in help_text
    assert "return" not in help_text and "wait" not in help_text


@BOTH
def test_a_click_command(decorate: Any) -> None:
    @click.command()
    @click.argument("name")
    @click.option("--times", default=1)
    @decorate
    def greet(name: str, times: int) -> None:
        """Says hello."""
        click.echo(" ".join(["hello", name] * times))

    shown = CliRunner().invoke(greet, ["ada", "--times", "2"])
    assert (shown.exit_code, shown.stdout) == (0, "hello ada hello ada\n")
    assert greet.name == "greet"
    assert "Says hello." in CliRunner().invoke(greet, ["--help"]).output


# pydantic.


@BOTH
@SYNC_AND_ASYNC
def test_validate_call_above(decorate: Any, kind: str) -> None:
    def double(number: int) -> int:
        return number * 2

    made = decorate(of_kind(kind, double))

    # pydantic asks `isinstance`, and refuses all callables but functions, methods and partials of them.
    for refused in (made, functools.partial(made)):
        with pytest.raises(pydantic.errors.PydanticUserError) as caught:
            pydantic.validate_call(refused)
        assert caught.value.code == "validate-call-type"

    @pydantic.validate_call
    @functools.wraps(made)
    def checked(*args: Any, **kwargs: Any) -> Any:
        return made(*args, **kwargs)

    assert call(checked, "4") == 8
    with pytest.raises(pydantic.ValidationError):
        call(checked, "four")


@BOTH
@SYNC_AND_ASYNC
def test_validate_call_below(decorate: Any, kind: str) -> None:
    def double(number: pydantic.PositiveInt) -> int:
        return number * 2

    made = decorate(pydantic.validate_call(of_kind(kind, double)))
    assert call(made, 4) == 8
    assert list(inspect.signature(made).parameters) == ["number"]
    with pytest.raises(Exception, match="greater than 0"):
        call(made, -1)


# functools.


@BOTH
def test_lru_cache_above_and_below(decorate: Any, recorder: MemoryRecorder) -> None:
    calls: list[int] = []

    def square(number: int) -> int:
        calls.append(number)
        return number * number

    above = functools.lru_cache(decorate(square))
    assert (above(3), above(3), calls) == (9, 9, [3])
    assert above.cache_info().hits == 1
    below = decorate(functools.lru_cache(square))
    assert (below(4), below(4), calls) == (16, 16, [3, 4])
    assert below.__name__ == "square"


@BOTH
@SYNC_AND_ASYNC
def test_wraps_above(decorate: Any, kind: str) -> None:
    made = decorate(of_kind(kind, lambda number: number + 1))

    @functools.wraps(made)
    def logged(*args: Any, **kwargs: Any) -> Any:
        return made(*args, **kwargs)

    assert call(logged, 1) == 2
    assert inspect.signature(logged) == inspect.signature(made)
    assert inspect.unwrap(logged, stop=lambda fn: fn is made.fn) is made.fn


@BOTH
@SYNC_AND_ASYNC
def test_singledispatch_above_and_registered(decorate: Any, kind: str) -> None:
    def default(value: Any) -> str:
        return "anything"

    def number(value: int) -> str:
        return "number"

    show = functools.singledispatch(decorate(of_kind(kind, default)))
    show.register(int)(decorate(of_kind(kind, number)))
    assert (call(show, "x"), call(show, 1)) == ("anything", "number")


@BOTH
def test_singledispatch_below(decorate: Any) -> None:
    @functools.singledispatch
    def show(value: Any) -> str:
        return "anything"

    show.register(int)(lambda value: "number")
    made = decorate(show)
    assert (made("x"), made(1)) == ("anything", "number")


@BOTH
def test_cached_property_and_partialmethod(decorate: Any) -> None:
    class Host:
        @functools.cached_property
        def answer(self) -> Any:
            return decorate(lambda: 42, name="answer")()

        @decorate
        def add(self, one: int, other: int) -> int:
            return one + other

        add_one = functools.partialmethod(add, 1)

    assert Host().answer == 42
    assert Host().add_one(2) == 3


# contextlib.


class Entered(contextlib.ContextDecorator):
    def __init__(self) -> None:
        self.depth = 0
        self.entries = 0

    def __enter__(self) -> None:
        self.depth += 1
        self.entries += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


class AsyncEntered(contextlib.AsyncContextDecorator):
    def __init__(self) -> None:
        self.depth = 0
        self.entries = 0

    async def __aenter__(self) -> None:
        self.depth += 1
        self.entries += 1

    async def __aexit__(self, *_: object) -> None:
        self.depth -= 1


@BOTH
@pytest.mark.parametrize("ours_on_top", [True, False])
def test_context_decorators(decorate: Any, ours_on_top: bool) -> None:
    plain = Entered()

    def body() -> int:
        return plain.depth

    made = decorate(plain(body)) if ours_on_top else plain(decorate(body))
    assert (made(), plain.depth, plain.entries) == (1, 0, 1)


@BOTH
@pytest.mark.parametrize("ours_on_top", [True, False])
async def test_async_context_decorators(decorate: Any, ours_on_top: bool) -> None:
    entered = AsyncEntered()

    async def body() -> int:
        await asyncio.sleep(0)
        return entered.depth

    made = decorate(entered(body)) if ours_on_top else entered(decorate(body))
    assert (await made(), entered.depth, entered.entries) == (1, 0, 1)


def test_a_generator_task_as_context_manager() -> None:
    ended: list[str] = []

    @contextlib.contextmanager
    @task
    def opened(name: str) -> Iterator[str]:
        try:
            yield f"open {name}"
        finally:
            ended.append(name)

    with opened("a") as word:
        assert (word, ended) == ("open a", [])
    assert ended == ["a"]


async def test_an_async_generator_task_as_context_manager() -> None:
    ended: list[str] = []

    @contextlib.asynccontextmanager
    @task
    async def opened(name: str) -> AsyncIterator[str]:
        try:
            yield f"open {name}"
        finally:
            ended.append(name)

    async with opened("a") as word:
        assert (word, ended) == ("open a", [])
    assert ended == ["a"]


# tenacity.


@BOTH
@SYNC_AND_ASYNC
@pytest.mark.parametrize("ours_on_top", [True, False])
def test_tenacity(decorate: Any, kind: str, ours_on_top: bool, recorder: MemoryRecorder) -> None:
    calls: list[int] = []

    def flaky(number: int) -> int:
        calls.append(number)
        if len(calls) < 3:
            raise ConnectionError("no")
        return number

    again = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    body = of_kind(kind, flaky)
    made = decorate(name="flaky")(again(body)) if ours_on_top else again(decorate(name="flaky")(body))
    assert call(made, 7) == 7
    assert calls == [7, 7, 7]
    assert len({entry.run.id for entry in recorder.all("flaky")}) == (1 if ours_on_top else 3)


# Workers of others.


@BOTH
@SYNC_AND_ASYNC
def test_the_body_of_a_dramatiq_actor(decorate: Any, kind: str, recorder: MemoryRecorder) -> None:
    broker = StubBroker(middleware=[AsyncIO()])
    done: queue.Queue[tuple[int, str]] = queue.Queue()

    def work(number: int) -> None:
        done.put((number * 2, run_name()))

    actor = dramatiq.actor(decorate(name="body")(of_kind(kind, work)), broker=broker)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    try:
        actor.send(21)
        doubled, name = done.get(timeout=60)
        broker.join(actor.queue_name)
    finally:
        worker.stop()
        broker.close()
    assert doubled == 42
    assert len(recorder.runs) == 1 and name == recorder.runs[0].run.name


# Classes.


@pytest.mark.parametrize("slots", [False, True])
def test_methods_of_dataclasses(slots: bool) -> None:
    @dataclasses.dataclass(frozen=True, slots=slots)
    class Loader:
        factor: int

        @task
        def load(self, number: int) -> int:
            return number * self.factor

        @flow
        async def load_all(self, numbers: list[int]) -> list[int]:
            return [self.load(number) for number in numbers]

    assert Loader(3).load(2) == 6
    assert asyncio.run(Loader(3).load_all([1, 2])) == [3, 6]
    assert [field.name for field in dataclasses.fields(Loader)] == ["factor"]


def test_a_task_as_field_of_a_model() -> None:
    @task
    def load(number: int) -> int:
        return number + 1

    class Job(pydantic.BaseModel):
        step: Callable[[int], int] = load

    assert Job().step(1) == Job(step=load).step(1) == 2


# pytest.


@pytest.fixture
@flow
def from_a_flow() -> Iterator[str]:
    """A fixture whose value is a flow's result."""
    return run_name()


@pytest.fixture
@task
def needing_another(from_a_flow: str) -> tuple[str, str]:
    return from_a_flow, run_name()


def test_fixtures(needing_another: tuple[str, str]) -> None:
    flow_name, task_name = needing_another
    assert flow_name and task_name.startswith("needing_another")


# Contexts.


async def test_a_run_is_kept_in_the_threads_of_others() -> None:
    @flow
    async def outer() -> tuple[str, str, str, str]:
        in_thread = await anyio.to_thread.run_sync(run_name)
        in_pool = await fastapi.concurrency.run_in_threadpool(run_name)
        in_asyncio = await asyncio.to_thread(run_name)
        return run_name(), in_thread, in_pool, in_asyncio

    assert len(set(await outer())) == 1


async def test_generators_may_end_in_another_context() -> None:
    @task
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    @task
    def plain_numbers() -> Iterator[int]:
        yield 1
        yield 2

    started, plainly_started = numbers(), plain_numbers()
    assert await asyncio.create_task(anext(started)) == 1
    assert next(plainly_started) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncio.create_task(started.aclose())
        await asyncio.to_thread(plainly_started.close)
    assert TaskRunContext.get() is None


# Identity.


@BOTH
def test_the_source_that_counts_is_the_authors(decorate: Any) -> None:
    def body(number: int) -> int:
        return number + 1

    def other(number: int) -> int:
        return number - 1

    made = decorate(functools.lru_cache(tenacity.retry(body)))
    assert source_of(made.fn) == source_of(body) != source_of(other)
    assert (
        fingerprint(decorate(retries=2)(body)) == fingerprint(decorate(body)) != fingerprint(decorate(other))
    )


@BOTH
def test_inspection_sees_the_authors_function(decorate: Any) -> None:
    async def body(number: int, *rest: str, flag: bool = False) -> str:
        """Documentation."""
        return ""

    made = decorate(body)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(made, name) == getattr(body, name)
    assert made.__wrapped__ is body
    assert made.__signature__ == inspect.signature(body)
    assert inspect.iscoroutinefunction(made)
    assert inspect.getsource(made) == inspect.getsource(body)
    assert isinstance(flow(body), Flow)
