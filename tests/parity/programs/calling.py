"""Parameters, options, names, tags, generators."""

from __future__ import annotations

import datetime
from typing import Any

from plain import ended, outcome, plain
from pydantic import BaseModel

from headrace import flow, tags, task, unmapped
from headrace.runtime import flow_run, task_run


class Point(BaseModel):
    x: int
    y: int = 0


def program_parameters() -> dict[str, Any]:
    @flow
    def integer(number: int) -> Any:
        return number

    @flow
    def model(point: Point) -> Any:
        return [type(point).__name__, point.x, point.y]

    @flow(validate_parameters=False)
    def anything(number: int) -> Any:
        return number

    @flow
    def several(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> Any:
        return [a, b, list(rest), c, more]

    @flow
    def day(day: datetime.date) -> str:
        return type(day).__name__

    @flow
    def bad_default(number: int = "x") -> Any:  # type: ignore[assignment]
        return number

    @task
    def untyped_task(number: int) -> Any:
        return number

    point = Point(x=1)

    @flow
    def identity(given: Point) -> bool:
        return given is point

    return {
        "converted": outcome(lambda: integer("5")),
        "a bool for an int": outcome(lambda: integer(True)),
        "a fraction for an int": outcome(lambda: integer(1.5)),
        "a word for an int": outcome(lambda: integer("x")),
        "a word for an int: state": ended(integer("x", return_state=True), message=False),
        "none for an int": outcome(lambda: integer(None)),
        "missing": outcome(integer),
        "too many": outcome(lambda: integer(1, 2)),
        "unknown": outcome(lambda: integer(number=1, other=2)),
        "twice": outcome(lambda: integer(1, number=2)),
        "model from a dict": outcome(lambda: model({"x": "3"})),
        "model from a model": outcome(lambda: model(Point(x=1, y=2))),
        "model with a wrong field": outcome(lambda: model({"x": "a"})),
        "not validated": outcome(lambda: anything("x")),
        "all kinds": outcome(lambda: several(1, 2, 3, 4, c=5, d=6)),
        "date from text": outcome(lambda: day("2026-01-05")),
        "wrong default": outcome(bad_default),
        "tasks are not validated": outcome(lambda: untyped_task("x")),
        "task: missing": outcome(untyped_task),
        "a model keeps its identity": outcome(lambda: identity(point)),
        "reserved: return_state": outcome(lambda: plain(flow(_with_return_state))),
        "reserved: wait_for": outcome(lambda: plain(task(_with_wait_for))),
        "validate()": outcome(lambda: integer.validate_parameters({"number": "7"})),
    }


def _with_return_state(return_state: int) -> None: ...


def _with_wait_for(wait_for: int) -> None: ...


def program_declarations() -> dict[str, Any]:
    @flow
    def some_flow() -> None:
        """What it does."""

    @task
    def some_task() -> None:
        """What it does."""

    @flow(
        name="by name", description="told", version="3", retries=2, retry_delay_seconds=4, timeout_seconds=5
    )
    def named() -> None: ...

    def facts(subject: Any, *names: str) -> dict[str, Any]:
        return {name: plain(getattr(subject, name)) for name in names}

    return {
        "flow": facts(
            some_flow, "name", "description", "retries", "retry_delay_seconds", "timeout_seconds", "isasync"
        ),
        "task": facts(some_task, "name", "description", "retries", "retry_delay_seconds", "timeout_seconds"),
        "task: tags": plain(some_task.tags),
        "named flow": facts(
            named, "name", "description", "version", "retries", "retry_delay_seconds", "timeout_seconds"
        ),
        "lambda flow": outcome(lambda: flow(lambda: 1).name),
        "bad flow name": outcome(lambda: flow(name="a/b")(lambda: 1).name),
        "hook that is no list": outcome(lambda: plain(flow(on_failure=print)(lambda: 1))),
        "hook that cannot be called": outcome(lambda: plain(task(on_failure=[3])(lambda: 1))),
        "not a function": outcome(lambda: plain(flow(3))),
        "a name for a function": outcome(lambda: plain(flow("etl"))),
        "schema": _schema(),
        "unknown option": outcome(lambda: plain(flow(no_such_option=1)(lambda: 1))),
    }


def _schema() -> Any:
    @flow
    def described(
        number: int, word: str = "a", day: datetime.date | None = None, point: Point | None = None
    ) -> None:
        """Do it.

        Args:
            number: how many.
            word: which.
        """

    schema: Any = described.parameters
    if not isinstance(schema, dict):
        schema = schema.model_dump()
    properties = schema["properties"]
    return {
        "required": schema["required"],
        "number": properties["number"],
        "word": properties["word"],
        "names": list(properties),
    }


def program_with_options() -> dict[str, Any]:
    @task(name="one", tags=["a"], retries=3, retry_delay_seconds=2, timeout_seconds=9, description="d")
    def subject() -> list[str]:
        return sorted(task_run.tags)

    @flow(name="one", retries=3, timeout_seconds=9, version="5", log_prints=True)
    def subject_flow() -> None: ...

    names = ("name", "retries", "retry_delay_seconds", "timeout_seconds", "description")
    flow_names = ("name", "retries", "timeout_seconds", "version", "log_prints")

    def facts(changed: Any, names: tuple[str, ...]) -> Any:
        return [plain(getattr(changed, name)) for name in names]

    return {
        "nothing": facts(subject.with_options(), names),
        "name": facts(subject.with_options(name="two"), names),
        "no retries": facts(subject.with_options(retries=0), names),
        "tags": plain(subject.with_options(tags=["b"]).tags),
        "no tags": plain(subject.with_options(tags=[]).tags),
        "kept tags": plain(subject.with_options(name="x").tags),
        "original": facts(subject, names),
        "flow: nothing": facts(subject_flow.with_options(), flow_names),
        "flow: name": facts(subject_flow.with_options(name="two"), flow_names),
        "flow: no retries": facts(subject_flow.with_options(retries=0), flow_names),
        "flow: no prints": facts(subject_flow.with_options(log_prints=False), flow_names),
        "run": outcome(subject.with_options(tags=["b", "c"])),
    }


def program_names_and_tags() -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @task(task_run_name="{x}-{day:%Y}", tags=["own"])
    def templated(x: int, day: datetime.date) -> list[Any]:
        return [task_run.name, sorted(task_run.tags)]

    @task(task_run_name=lambda: "from a function")
    def by_function() -> str:
        return task_run.name

    def with_parameters(parameters: dict[str, Any]) -> str:
        return f"x is {parameters['x']}"

    @task(task_run_name=with_parameters)
    def by_parameters(x: int) -> str:
        return task_run.name

    @task
    def plainly() -> str:
        return task_run.name

    @task(task_run_name=lambda: 3)
    def no_text() -> str:
        return task_run.name

    @flow(flow_run_name="for {word}")
    def templated_flow(word: str) -> str:
        return flow_run.name

    @flow(flow_run_name=lambda: f"of {flow_run.flow_name}")
    def by_function_flow() -> str:
        return flow_run.name

    @flow(flow_run_name="{missing}")
    def missing_flow() -> str:
        return flow_run.name

    @flow
    def tagged() -> list[str]:
        return sorted(flow_run.tags)

    facts["template"] = outcome(lambda: templated(3, datetime.date(2026, 1, 5)))
    facts["function"] = outcome(by_function)
    facts["function of parameters"] = outcome(lambda: by_parameters(4))
    facts["default outside a flow"] = outcome(plainly)
    facts["not text"] = outcome(no_text)
    facts["flow template"] = outcome(lambda: templated_flow("x"))
    facts["flow function"] = outcome(by_function_flow)
    facts["flow template without its parameter"] = outcome(missing_flow)
    with tags("a", "b"):
        facts["flow tags"] = outcome(tagged)
        with tags("c") as current:
            facts["nested tags"] = sorted(current)
            facts["task tags"] = outcome(lambda: templated(3, datetime.date(2026, 1, 5)))
    facts["no tags any longer"] = outcome(tagged)

    @flow
    def around() -> list[Any]:
        name = plainly()
        return [name[:-3], len(name) - len("plainly-")]

    facts["default in a flow"] = outcome(around)
    return facts


def program_mapping() -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @task
    def pair(a: Any, b: Any = None, c: Any = (1, 2)) -> list[Any]:
        return [a, b, plain(c)]

    @task
    def numbers() -> list[int]:
        return [1, 2, 3]

    @task
    def failing() -> list[int]:
        raise ValueError("boom")

    @task
    def keywords(**values: int) -> dict[str, int]:
        return values

    def mapped(*args: Any, **kwargs: Any) -> Any:
        return outcome(lambda: pair.map(*args, **kwargs).result())

    @flow
    def around() -> None:
        facts["list"] = mapped([1, 2])
        facts["range"] = mapped(range(2))
        facts["generator"] = mapped(n for n in (1, 2))
        facts["tuple"] = mapped((1, 2))
        facts["text is whole"] = mapped([1, 2], "ab")
        facts["dict by its keys"] = mapped({"x": 1, "y": 2})
        facts["two lists"] = mapped([1, 2], [3, 4])
        facts["lengths that differ"] = mapped([1, 2], [3])
        facts["nothing to spread"] = mapped(1, 2)
        facts["empty"] = mapped([])
        facts["unmapped"] = mapped([1, 2], unmapped([3, 4]))
        facts["a future of a list"] = mapped(numbers.submit())
        facts["a failed future"] = mapped(failing.submit())
        facts["futures in a list"] = mapped([numbers.submit(), 5])
        facts["keyword"] = mapped(a=[1, 2], b=3)
        facts["default is whole"] = mapped([0])
        facts["extra keywords"] = outcome(lambda: keywords.map(x=[1, 2], y=[3, 4]).result())
        facts["states"] = outcome(lambda: pair.map([1, 2], return_state=True))
        facts["one fails"] = outcome(lambda: [f.state.name for f in _waited(failing.map())])

    around()
    facts["outside a flow"] = outcome(lambda: pair.map([1, 2]).result())
    facts["submitted outside a flow"] = outcome(lambda: numbers.submit().result())
    return facts


def _waited(futures: Any) -> Any:
    futures.wait()
    return futures


def program_generators() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    seen: list[Any] = []

    def note(_: Any, __: Any, state: Any) -> None:
        seen.append(state.name)

    @task(on_completion=[note], on_failure=[note])
    def counting(stop: int) -> Any:
        yield from range(stop)

    @task(on_completion=[note], on_failure=[note])
    def breaking() -> Any:
        yield 1
        raise ValueError("boom")

    @task(retries=1, on_completion=[note], on_failure=[note])
    def again() -> Any:
        yield "a"
        yield "b"
        if task_run.run_count < 2:
            raise ValueError("boom")
        yield "c"

    @flow
    def flowing(stop: int) -> Any:
        yield from range(stop)

    def first_only() -> int:
        values = counting(3)
        value = next(values)
        values.close()
        return value

    facts["all"] = outcome(lambda: list(counting(3)))
    facts["all: hooks"] = _taken(seen)
    facts["first only"] = outcome(first_only)
    facts["first only: hooks"] = _taken(seen)
    facts["breaking"] = outcome(lambda: list(breaking()))
    facts["breaking: hooks"] = _taken(seen)
    facts["again"] = outcome(lambda: list(again()))
    facts["again: hooks"] = _taken(seen)
    facts["state of a generator"] = outcome(lambda: counting(3, return_state=True))
    facts["flow"] = outcome(lambda: list(flowing(3)))

    @flow
    def submitting() -> Any:
        return counting.submit(3).result()

    facts["submitted"] = outcome(submitting)

    @flow
    def returning() -> Any:
        return (n for n in range(3))

    facts["returned"] = outcome(returning)
    return facts


def _taken(seen: list[Any]) -> list[Any]:
    taken = list(seen)
    seen.clear()
    return taken
