"""Arguments: bound before any run, resolved, validated and coerced for flows, and recorded."""

from __future__ import annotations

import datetime
import enum
import importlib
import json
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, Field, SecretStr

from headrace import flow, opaque, task
from headrace.exceptions import (
    MissingResult,
    ParameterBindError,
    ParameterTypeError,
    ReservedArgumentError,
    UpstreamTaskError,
)
from headrace.runs import FlowRun
from headrace.states import Completed, Failed, State, StateType
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = [pytest.mark.usefixtures("recorder"), pytest.mark.parametrize("kind", KINDS)]


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    x: int


class Unknown:
    """A type that pydantic knows nothing about."""


class Pair(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1,), {"y": 2}), ((1, 2), {}), ((1,), {"x": 1})])
def test_what_does_not_bind_makes_no_run(
    kind: str, decorate: Any, args: Any, kwargs: Any, recorder: MemoryRecorder
) -> None:
    subject = decorate(of_kind(kind, lambda x: x))
    for options in ({}, {"return_state": True}):
        with pytest.raises(ParameterBindError) as caught:
            subject(*args, **kwargs, **options)
        assert isinstance(caught.value, TypeError)
    assert recorder.entries == []


def test_the_text_of_a_bind_error_tells_names_not_values(kind: str) -> None:
    def greet(name: str) -> None: ...

    with pytest.raises(ParameterBindError) as caught:
        flow(of_kind(kind, greet))("a", secret="hush")
    text = str(caught.value)
    assert "'greet'" in text and "name: 'str'" in text and "('a',)" in text and "['secret']" in text
    assert "hush" not in text


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("name", ["return_state", "wait_for"])
def test_reserved_names_are_refused_at_decoration(kind: str, decorate: Any, name: str) -> None:
    body = {"return_state": lambda return_state: None, "wait_for": lambda wait_for: None}[name]
    with pytest.raises(ReservedArgumentError, match=name):
        decorate(of_kind(kind, body))


SHAPES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = [
    (lambda a, /, b: (a, b), (1, 2), {}, (1, 2)),
    (lambda a, /, **k: (a, k), (1,), {"a": 2}, (1, {"a": 2})),
    (lambda *, a, b=3: (a, b), (), {"a": 1}, (1, 3)),
    (lambda *args: args, (1, 2, 3), {}, (1, 2, 3)),
    (lambda *args: args, (), {}, ()),
    (lambda **k: k, (), {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (lambda a, *args, b=4, **k: (a, args, b, k), (1, 2), {"c": 5}, (1, (2,), 4, {"c": 5})),
    (lambda a, b=2, c=3: (a, b, c), (1,), {"c": 5}, (1, 2, 5)),
    (lambda self: self, (1,), {}, 1),
    (
        lambda copy, schema, model_config, json: (copy, schema, model_config, json),
        (1, 2, 3, 4),
        {},
        (1, 2, 3, 4),
    ),
    (lambda _private, __x=1: (_private, __x), (1,), {}, (1, 1)),
    (lambda name, kind, args=0, kwargs=0: (name, kind, args, kwargs), (1, 2), {"kwargs": 3}, (1, 2, 0, 3)),
]


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(("body", "args", "kwargs", "result"), SHAPES)
def test_every_kind_of_parameter(
    kind: str, decorate: Any, body: Any, args: Any, kwargs: Any, result: Any
) -> None:
    assert call(decorate(of_kind(kind, body)), *args, **kwargs) == result


def test_names_that_pydantic_has_itself_are_validated_too(kind: str) -> None:
    def body(copy: int, schema: int, model_config: int, json: int, _private: int) -> list[int]:
        return [copy, schema, model_config, json, _private]

    assert call(flow(of_kind(kind, body)), "1", "2", "3", "4", "5") == [1, 2, 3, 4, 5]
    with pytest.raises(ParameterTypeError, match="copy: "):
        call(flow(of_kind(kind, body)), "x", 1, 1, 1, 1)


COERCED: list[tuple[Any, Any, Any]] = [
    (int, "7", 7),
    (int, True, 1),
    (float, 3, 3.0),
    (tuple[int, ...], [1, "2"], (1, 2)),
    (Model, {"x": "1"}, Model(x=1)),
    (Colour, "red", Colour.RED),
    (datetime.datetime, "2024-01-02T03:04:05Z", datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
    (uuid.UUID, "12345678123456781234567812345678", uuid.UUID("12345678123456781234567812345678")),
    (int | None, None, None),
    (int | str, "x", "x"),
    (Literal["a", "b"], "a", "a"),
    (Annotated[int, Field(gt=0)], "3", 3),
    (Path, "/tmp", Path("/tmp")),
    (list[Model], [{"x": 1}], [Model(x=1)]),
]


@pytest.mark.parametrize(("annotation", "given", "received"), COERCED)
def test_flows_coerce(kind: str, annotation: Any, given: Any, received: Any) -> None:
    def body(x: Any) -> Any:
        return {"x": x}

    body.__annotations__["x"] = annotation
    result = call(flow(of_kind(kind, body)), given)["x"]
    assert (result, type(result)) == (received, type(received))


@pytest.mark.parametrize(
    ("annotation", "given"),
    [(int, "x"), (int, 1.5), (Colour, "blue"), (Unknown, 5), (Annotated[int, Field(gt=0)], 0), (Model, {})],
)
def test_what_does_not_fit(kind: str, annotation: Any, given: Any, recorder: MemoryRecorder) -> None:
    entered: list[int] = []

    def body(x: Any) -> None:
        entered.append(1)

    body.__annotations__["x"] = annotation
    subject = flow(of_kind(kind, body), name="strict", retries=3)
    with pytest.raises(ParameterTypeError, match="x"):
        call(subject, given)
    run = recorder.the("strict")
    assert run.names == ["Pending", "Failed"]
    assert run.states[-1].message.startswith("Validation of flow parameters failed with error: ")
    assert call(subject, given, return_state=True).type is StateType.FAILED
    assert entered == []


def test_every_bad_field_is_listed(kind: str) -> None:
    def body(a: int, b: Model, c: int) -> None: ...

    with pytest.raises(ParameterTypeError) as caught:
        call(flow(of_kind(kind, body)), "x", {"x": "y"}, 1)
    text = str(caught.value)
    assert "a: Input should be a valid integer" in text and "b.x: Input should be" in text
    assert "\n - c" not in text


def test_a_default_that_contradicts_its_annotation_fails(kind: str) -> None:
    def body(d: int = "bad") -> None:  # type: ignore[assignment]
        ...

    with pytest.raises(ParameterTypeError, match="d: "):
        call(flow(of_kind(kind, body)))


def test_a_field_as_default(kind: str) -> None:
    def body(a: int = Field(default=3, gt=1), b: Any = Field(default_factory=list)) -> Any:  # noqa: B008
        return (a, b)

    subject = flow(of_kind(kind, body))
    assert call(subject) == (3, [])
    with pytest.raises(ParameterTypeError, match="a: "):
        call(subject, 0)


def test_a_type_that_exists_for_type_checkers_only_is_not_checked(kind: str) -> None:
    def body(a: Decimal, b: int) -> Any:
        return (a, b)

    assert call(flow(of_kind(kind, body)), "anything", "3") == ("anything", 3)


def test_validation_can_be_switched_off(kind: str) -> None:
    def body(x: int) -> Any:
        return x

    assert call(flow(of_kind(kind, body), validate_parameters=False), "raw") == "raw"


def test_tasks_never_validate(kind: str) -> None:
    def body(x: int) -> Any:
        return x

    assert call(task(of_kind(kind, body)), "raw") == "raw"


def test_values_of_the_right_type_keep_their_identity(kind: str) -> None:
    model, unknown, data, numbers = Model(x=1), Unknown(), {"a": [1]}, [1, 2]

    def body(m: Model, u: Unknown, d: dict[str, list[int]], n: list[int], any_: Any) -> Any:
        return {"ids": [id(m), id(u), id(d), id(n), id(any_)]}

    given = (model, unknown, data, numbers, numbers)
    assert call(flow(of_kind(kind, body)), *given)["ids"] == [id(value) for value in given]


def test_a_list_of_a_million_numbers_passes_without_a_copy(kind: str) -> None:
    numbers = list(range(1_000_000))

    def body(xs: list) -> bool:  # type: ignore[type-arg]
        return xs is numbers

    assert call(flow(of_kind(kind, body)), numbers)
    assert call(task(of_kind(kind, lambda xs: xs is numbers)), numbers)


def test_a_list_that_holds_itself(kind: str) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert call(task(of_kind(kind, lambda x: x is loop)), loop)


# Resolution.


@task
def ok(value: Any = 1) -> Any:
    return value


@task
def bad() -> None:
    raise ValueError("bad")


def test_futures_and_states_become_their_results(kind: str) -> None:
    receives = task(of_kind(kind, lambda *values: {"values": values}))

    @flow
    def outer() -> Any:
        future = ok.submit(2)
        state = ok(3, return_state=True)
        return call(receives, future, [state, Pair(future, {"k": state})], {future: 1}, Completed(data=4))

    values = outer()["values"]
    assert values == (2, [3, Pair(2, {"k": 3})], {2: 1}, 4)
    assert type(values[1][1]) is Pair


def test_an_upstream_that_failed(kind: str, recorder: MemoryRecorder) -> None:
    entered: list[Any] = []
    names = {task: "downstream", flow: "downflow"}
    for decorate, name in names.items():
        subject = decorate(of_kind(kind, entered.append), name=name)

        @flow
        def outer(subject: Any = subject) -> Any:
            state = bad(return_state=True)
            with pytest.raises(UpstreamTaskError, match="did not reach a 'COMPLETED' state"):
                call(subject, state)
            return call(subject, state, return_state=True).name

        assert outer() == "NotReady"
        for run in recorder.all(name):
            assert run.names == ["Pending", "NotReady"]
            assert run.types[-1] is StateType.PENDING
    assert entered == []


def test_the_record_of_a_run_is_no_argument(kind: str, recorder: MemoryRecorder) -> None:
    seen: list[FlowRun] = []
    call(flow(of_kind(kind, lambda: 1), on_running=[lambda f, run, s: seen.append(run)]))
    receives = task(of_kind(kind, lambda run: {"run": run}), name="receives")
    with pytest.raises(TypeError, match=r"\.id"):
        call(receives, seen[0])
    assert recorder.all("receives") == []
    assert call(receives, opaque(seen[0]))["run"] is seen[0]


def test_a_failed_state_made_by_hand_stops_the_call(kind: str) -> None:
    with pytest.raises(UpstreamTaskError):
        call(task(of_kind(kind, lambda x: x)), Failed())


# What goes on the record.


@dataclass
class Point:
    x: int
    y: Any


class Hostile:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("do not look")

    def __str__(self) -> str:
        raise RuntimeError("do not print")

    __repr__ = __str__


def recorded(recorder: MemoryRecorder, kind: str, value: Any) -> Any:
    call(task(of_kind(kind, lambda x: None), name="recorded"), value)
    return json.loads(recorder.all("recorded")[-1].run.parameters.inline)["x"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, 5),
        ("text", "text"),
        (None, None),
        (1.5, 1.5),
        (float("nan"), "nan"),
        ([1, (2, {3})], [1, [2, [3]]]),
        ({"a": {1: b"x"}}, {"a": {"1": "x"}}),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (Colour.RED, "red"),
        (Path("/a"), "/a"),
        (Model(x=1), {"x": 1}),
        (Point(1, [2]), {"x": 1, "y": [2]}),
        (SecretStr("hush"), "**********"),
        (Unknown(), "<Unknown>"),
        (Hostile(), "<Hostile>"),
        (Completed(data=1), "<State>"),
        ((n for n in [1]), "<generator>"),
        pytest.param(list(range(1_000_000)), "<list>", id="long list"),
        pytest.param("x" * 1_000_000, "<str>", id="long text"),
        pytest.param(b"\xff\xfe", "<bytes>", id="bytes"),
        pytest.param(10**6000, "<int>", id="huge int"),
        pytest.param("\ud800", "\ud800", id="surrogate"),
    ],
)
def test_what_is_recorded_of_an_argument(kind: str, recorder: MemoryRecorder, value: Any, shown: Any) -> None:
    assert recorded(recorder, kind, value) == shown


def test_recording_uses_nothing_up(kind: str) -> None:
    assert call(task(of_kind(kind, lambda x: list(x))), iter([1, 2])) == [1, 2]


def test_arguments_that_are_too_large_together(kind: str, recorder: MemoryRecorder) -> None:
    call(task(of_kind(kind, lambda **k: None), name="wide"), **{f"p{n}": "x" * 9000 for n in range(50)})
    inline = recorder.the("wide").run.parameters.inline
    assert len(inline) <= 65536


def test_futures_are_recorded_by_their_type_and_as_edges(kind: str, recorder: MemoryRecorder) -> None:
    receives = task(of_kind(kind, lambda x, y: None), name="receives")

    @flow
    def outer() -> None:
        call(receives, ok.submit(), {"k": ok(return_state=True)}, wait_for=[ok.submit()])

    outer()
    upstream = [run.run.id for run in recorder.all("ok")]
    run = recorder.the("receives").run
    assert {edge.parameter: list(edge.run_ids) for edge in run.inputs} == {
        "x": [upstream[0]],
        "y": [upstream[1]],
        "wait_for": [upstream[2]],
    }


def test_results_passed_by_value_are_edges(kind: str, recorder: MemoryRecorder) -> None:
    makes, receives = task(of_kind(kind, lambda: {"a": 1}), name="makes"), task(lambda x: x, name="receives")

    @flow
    def outer() -> None:
        receives(call(makes))

    outer()
    (edge,) = recorder.the("receives").run.inputs
    assert (edge.parameter, list(edge.run_ids)) == ("x", [recorder.the("makes").run.id])


def test_a_missing_result_of_an_upstream(kind: str) -> None:
    state: State[Any] = Completed()
    with pytest.raises(MissingResult):
        call(task(of_kind(kind, lambda x: x)), state)


def test_the_schema_of_the_parameters(kind: str) -> None:
    def body(a: int, b: list[Model], c: Literal["x"] = "x", d: Unknown | None = None, *rest: Any) -> None:
        """Does it.

        Args:
            a: how many,
                really.
            b (list): models.
        """

    schema = flow(of_kind(kind, body)).parameters
    assert schema["required"] == ["a", "b"]
    properties = schema["properties"]
    assert [properties[name]["position"] for name in "abcd"] == [0, 1, 2, 3]
    assert properties["a"] == {
        "type": "integer",
        "title": "a",
        "position": 0,
        "description": "how many, really.",
    }
    assert properties["b"]["items"] == {"$ref": "#/definitions/Model"}
    assert schema["definitions"]["Model"]["properties"]["x"]["type"] == "integer"
    assert (properties["c"]["const"], properties["c"]["default"]) == ("x", "x")
    assert properties["d"] == {"title": "d", "position": 3, "default": None}


def test_a_class_that_comes_later(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations are looked at when the flow is called first: by then the module is whole."""
    module = f"coming_later_{len(kind)}"
    code = f"""
        from __future__ import annotations
        import pydantic
        from headrace import flow

        @flow
        {kind} made(one: Later, more: list[Later] | None = None) -> list[int]:
            return [later.number for later in (one, *(more or ()))]

        class Later(pydantic.BaseModel):
            number: int
        """
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    made: Any = importlib.import_module(module).made
    assert call(made, {"number": "3"}, [{"number": 4}]) == [3, 4]
    assert made.parameters["properties"].keys() == {"one", "more"}
    with pytest.raises(ParameterTypeError, match="number"):
        call(made, {"number": "three"})
