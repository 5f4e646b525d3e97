"""Flows and tasks behave as functions: methods, partials, copies, pickling, introspection."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from headrace import Flow, Task, flow, task
from headrace.runs import RunPolicy
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

pytestmark = pytest.mark.usefixtures("recorder")

BOTH = pytest.mark.parametrize("decorate", [flow, task])


@task
def module_task(x: int) -> int:
    """What it does."""
    return x + 1


@flow
async def module_flow(x: int = 1) -> int:
    return x


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_with_and_without_brackets(decorate: Any, kind: str) -> None:
    body = of_kind(kind, lambda x: x)
    assert vars(decorate(body)).keys() == vars(decorate()(body)).keys()
    assert call(decorate(body), 1) == call(decorate()(body), 1) == call(decorate(name="n")(body), 1) == 1


@BOTH
def test_what_is_no_function_is_refused_with_a_hint(decorate: Any) -> None:
    with pytest.raises(TypeError, match=r"name='load'"):
        decorate("load")
    with pytest.raises(TypeError, match="takes a function"):
        decorate(5)


@BOTH
@pytest.mark.parametrize("option", ["on_rollbacks", "nonsense"])
def test_options_that_do_not_exist_are_not_swallowed(decorate: Any, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        decorate(**{option: None})(lambda: None)


def test_the_defaults() -> None:
    plain = task(lambda: None)
    assert (plain.retries, plain.retry_delay_seconds, plain.timeout_seconds, plain.policy) == (
        0,
        0,
        None,
        None,
    )
    assert (plain.tags, plain.version, plain.log_prints, plain.persist_result) == (
        frozenset(),
        None,
        None,
        None,
    )
    plain_flow = flow(lambda: None)
    assert (plain_flow.retries, plain_flow.retry_delay_seconds, plain_flow.timeout_seconds) == (0, 0, None)
    assert plain_flow.should_validate_parameters is True
    assert plain_flow.task_runner.name == "threadpool"


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_like_its_function(decorate: Any, kind: str) -> None:
    def original(a: int, *, b: str = "x") -> float:
        """Doc."""
        return 1.0

    body = of_kind(kind, original)
    made = decorate(body)
    assert (made.__name__, made.__doc__, made.__module__, made.__wrapped__) == (
        "original",
        "Doc.",
        __name__,
        body,
    )
    assert made.__annotations__ == original.__annotations__
    assert inspect.signature(made) == inspect.signature(original)
    assert inspect.iscoroutinefunction(made) is asyncio.iscoroutinefunction(made) is (kind != "def")
    assert made.isasync is (kind != "def")
    assert made.fn is body
    assert callable(made)


def test_the_function_itself_makes_no_run(recorder: MemoryRecorder) -> None:
    assert module_task.fn(1) == 2
    assert recorder.entries == []


# Methods.


class Host:
    def __init__(self, word: str) -> None:
        self.word = word

    @task
    def method(self, x: int) -> str:
        return f"{self.word}{x}"

    @task
    async def amethod(self, x: int) -> str:
        return f"{self.word}{x}"

    @flow
    def flow_method(self, x: int) -> str:
        return f"{self.word}{x}"

    @classmethod
    @task
    def class_method(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @task
    @classmethod
    def class_method_below(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @staticmethod
    @task
    def static_method(x: int) -> str:
        return f"static{x}"

    @task
    @staticmethod
    def static_method_below(x: int) -> str:
        return f"static{x}"


class SubHost(Host):
    pass


def test_instances_keep_to_themselves(recorder: MemoryRecorder) -> None:
    a, b = Host("a").method, Host("b").method
    assert (a(0), b(0), a(1)) == ("a0", "b0", "a1")
    assert asyncio.run(Host("c").amethod(1)) == "c1"
    assert Host("d").flow_method("1") == "d1"  # type: ignore[arg-type]
    assert recorder.all("method")[0].run.parameters.inline == b'{"x":0}'


def test_class_and_static_methods() -> None:
    assert Host.class_method(1) == "Host1"
    assert Host.class_method_below(1) == "Host1"
    assert SubHost.class_method_below(1) == SubHost("x").class_method_below(1) == "SubHost1"
    assert Host.static_method(1) == Host("x").static_method(1) == "static1"
    assert Host.static_method_below(1) == Host("x").static_method_below(1) == "static1"


def test_methods_in_two_threads() -> None:
    results: dict[str, list[str]] = {"a": [], "b": []}
    barrier = threading.Barrier(2)

    def work(word: str) -> None:
        host = Host(word)
        barrier.wait()
        for _ in range(50):
            results[word].append(host.method(0))

    threads = [threading.Thread(target=work, args=(word,)) for word in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"a": ["a0"] * 50, "b": ["b0"] * 50}


def test_a_method_with_other_options_and_submitted() -> None:
    @flow
    def outer() -> Any:
        host = Host("h")
        return [
            host.method.submit(1).result(),
            host.method.with_options(name="n")(2),
            *host.method.map([3]).result(),
        ]

    assert outer() == ["h1", "h2", "h3"]


# Other callables.


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n


class AsyncAdder(Adder):
    async def __call__(self, x: int) -> int:  # type: ignore[override]
        return x + self.n


async def coroutine(x: int, y: int) -> int:
    return x + y


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        lambda x: x + 1,
        Adder(1),
        AsyncAdder(1),
        Adder(1).__call__,
        functools.partial(lambda x, y: x + y, y=1),
        functools.partial(coroutine, y=1),
    ],
)
def test_anything_callable(decorate: Any, body: Callable[..., Any]) -> None:
    assert call(decorate(body, name="it"), 2) == 3


def test_a_builtin() -> None:
    assert task(len)([1, 2]) == 2
    assert task(max, name="m")(1, 2) == 2


def test_a_decorator_below_ours() -> None:
    def keywords_only(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(**kwargs: Any) -> Any:
            return fn(**kwargs)

        return wrapper

    @task
    @keywords_only
    def add(x: int, y: int = 2) -> int:
        return x + y

    assert add(1) == 3
    assert list(inspect.signature(add).parameters) == ["x", "y"]


def test_a_plain_wrapper_round_a_coroutine_function() -> None:
    @task
    @functools.wraps(coroutine)
    def wrapper(x: int, y: int) -> Any:
        return coroutine(x, y)

    assert wrapper(1, 2) == 3


def test_a_coroutine_returned_from_a_plain_flow_is_awaited() -> None:
    @task
    async def step() -> int:
        return 5

    @flow
    def outer() -> Any:
        return step()

    assert outer() == 5


async def test_a_plain_flow_called_in_a_loop() -> None:
    @flow
    def outer() -> Any:
        return coroutine(1, 2)

    assert outer() == 3


# Options.


def test_with_options_changes_what_is_given_and_keeps_the_rest() -> None:
    def hook(*_: Any) -> None: ...

    original = task(
        lambda x: x,
        name="a",
        version="1",
        tags=["t"],
        retries=3,
        retry_delay_seconds=[1, 2],
        timeout_seconds=5,
        persist_result=True,
        log_prints=True,
        task_run_name="n",
        on_failure=[hook],
    )
    same = original.with_options()
    assert same is not original
    ignored = {"on_failure_hooks", "_bound_binder", "binder"}
    for name, value in vars(original).items():
        if name not in ignored:
            assert getattr(same, name) == value, name
    assert same.on_failure_hooks == [hook]
    assert same.on_failure_hooks is not original.on_failure_hooks
    assert original.with_options(retries=0).policy == RunPolicy(0, (1.0, 2.0), 0.0, 5.0)
    assert original.with_options(tags=[]).tags == frozenset()
    reset = original.with_options(
        persist_result=None, log_prints=None, task_run_name=None, timeout_seconds=None
    )
    assert (reset.persist_result, reset.log_prints, reset.task_run_name, reset.timeout_seconds) == (None,) * 4
    assert (reset.name, reset.version, reset.retries) == ("a", "1", 3)


def test_with_options_of_a_flow() -> None:
    original = flow(lambda x: x, name="a", retries=3, retry_delay_seconds=2, flow_run_name="n")
    changed = original.with_options(name="b", retries=0, flow_run_name=None, validate_parameters=False)
    assert (changed.name, changed.retries, changed.flow_run_name) == ("b", 0, None)
    assert changed.should_validate_parameters is False
    assert (original.name, original.retries, changed.retry_delay_seconds) == ("a", 3, 2)
    assert isinstance(changed, Flow)


# Identity.


def test_they_pickle_by_reference() -> None:
    assert pickle.loads(pickle.dumps(module_task)) is module_task
    assert pickle.loads(pickle.dumps(module_flow)) is module_flow


def test_copies_pickle_by_value() -> None:
    copied = cloudpickle.loads(cloudpickle.dumps(module_task.with_options(name="other")))
    assert isinstance(copied, Task)
    assert (copied.name, copied(1)) == ("other", 2)


def key_of(source: str, name: str = "f") -> str:
    namespace: dict[str, Any] = {}
    exec(compile(source, f"/tmp/{hash(source)}.py", "exec"), namespace)
    return task(namespace[name]).task_key


BODY = "def f(x):\n    y = {1, 2, 'a', (3, 4)}\n    return [v for v in y if x]\n"


@pytest.mark.parametrize(
    ("source", "is_same"),
    [
        (BODY, True),
        ("# a comment\n\n\n" + BODY, True),
        (BODY.replace("    y", "    # why\n    y"), True),
        (BODY.replace("def f(x):", 'def f(x):\n    """Doc."""'), False),
        (BODY.replace("3", "5"), False),
        (BODY.replace("if x", "if not x"), False),
        (BODY.replace("y", "z"), False),
    ],
)
def test_the_task_key_follows_the_code(source: str, is_same: bool) -> None:
    assert (key_of(source) == key_of(BODY)) is is_same


def test_the_task_key_counts_nested_functions() -> None:
    def source(n: int) -> str:
        return f"def f():\n    def g():\n        return {n}\n    return g\n"

    assert key_of(source(1)) != key_of(source(2))

    def make(inner: Any) -> Any:
        @task
        def f() -> Any:
            return inner()

        return f

    assert make(lambda: 1).task_key != make(lambda: 2).task_key
    assert make(lambda: 1).task_key == make(lambda: 1).task_key


def test_the_version_of_a_flow() -> None:
    version = module_flow.version
    assert version is not None and len(version) == 32
    assert flow(lambda: None, version="v1").version == "v1"
    assert flow(len, name="len").version is None
