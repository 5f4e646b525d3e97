"""What a call depends on: edges, values in place of upstreams, and whose results are recognised."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from headrace.core.ids import new_id
from headrace.exceptions import MissingResult, UpstreamTaskError
from headrace.futures import HeadraceFuture, HeadraceFutureList, resolve_futures_to_states
from headrace.runs import FlowRun, Owner, TaskRun
from headrace.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    State,
    StateDetails,
)
from headrace.upstreams import ResultOrigins, collect_inputs, resolve_inputs
from headrace.utilities.annotations import allow_failure, opaque, quote


def future_in(state: State[Any] | None) -> HeadraceFuture[Any]:
    run_id = new_id()
    run = TaskRun(run_id, "t", run_id, Owner(run_id))
    future: HeadraceFuture[Any] = HeadraceFuture(run)
    if state is not None:
        state.state_details.task_run_id = run_id
        run.state = state
        future.finish()
    return future


def resolved(value: Any) -> Any:
    return resolve_inputs({"x": value})["x"]


@dataclass(frozen=True)
class Config:
    rows: Any


def test_plain_arguments_depend_on_nothing_and_stay_as_they_are() -> None:
    rows = [1, 2]
    inputs = collect_inputs({"a": 1, "b": "text"})
    assert (inputs.waits_for, inputs.edges, inputs.as_they_are) == ([], {}, True)
    assert resolve_inputs({"rows": rows})["rows"] is rows


def test_upstreams_at_any_depth_become_values_and_edges() -> None:
    a, b, running = future_in(Completed(data=1)), future_in(Completed(data=2)), future_in(None)
    parameters = {"x": [a, {"k": Config((b, a))}], "y": a.state, "z": {running}}
    inputs = collect_inputs(parameters, wait_for=[b, {"also": running}])
    assert inputs.edges == {
        "x": [a.task_run_id, b.task_run_id],
        "y": [a.task_run_id],
        "z": [running.task_run_id],
        "wait_for": [b.task_run_id, running.task_run_id],
    }
    assert set(inputs.waits_for) == {running}
    assert not inputs.as_they_are
    assert resolved([a, {"k": Config((b, a))}, {a: b}]) == [1, {"k": Config((2, 1))}, {1: 2}]


def test_a_future_list_becomes_a_plain_list() -> None:
    values = resolved(HeadraceFutureList([future_in(Completed(data=1)), future_in(Completed(data=2))]))
    assert type(values) is list
    assert values == [1, 2]


def test_a_flow_run_that_is_passed_as_a_state_gives_an_edge_too() -> None:
    state = Completed(data=7, state_details=StateDetails(flow_run_id="f" * 36))
    assert collect_inputs({"x": state}).edges == {"x": ["f" * 36]}
    assert resolved(state) == 7


@pytest.mark.parametrize(
    "state", [Failed(data=ValueError()), Crashed(), Cancelled(), Pending(name="NotReady")], ids=repr
)
def test_an_upstream_must_have_completed(state: State[Any]) -> None:
    future = future_in(state)
    message = f"Upstream task run '{future.task_run_id}' did not reach a 'COMPLETED' state."
    for check in (lambda: resolved([future]), lambda: resolve_inputs({}, wait_for=(future,))):
        with pytest.raises(UpstreamTaskError) as raised:
            check()
        assert str(raised.value) == message


def test_allow_failure_gives_the_exception_in_place_of_the_value() -> None:
    error = ValueError("no")
    bad, unready, good = future_in(Failed(data=error)), future_in(Pending(name="NotReady")), ok(3)
    assert resolved(allow_failure(bad)) is error
    assert resolved(allow_failure([good, bad, {"deep": unready}])) == [3, error, {"deep": None}]
    resolve_inputs({}, wait_for=allow_failure([bad, good]))
    with pytest.raises(UpstreamTaskError):
        resolved([allow_failure(bad), bad])


def ok(data: Any) -> HeadraceFuture[Any]:
    return future_in(Completed(data=data))


@pytest.mark.parametrize("state", [Crashed(), Cancelled(), Pending(), Running()], ids=repr)
def test_allow_failure_allows_nothing_but_failures(state: State[Any]) -> None:
    with pytest.raises(UpstreamTaskError):
        resolved(allow_failure(future_in(state)))


def test_a_state_made_by_hand_is_a_value_without_an_edge() -> None:
    running = Running()
    assert collect_inputs({"x": Completed(data=1), "y": running}).edges == {}
    assert resolved(Completed(data=1)) == 1
    assert resolved(running) is running
    with pytest.raises(UpstreamTaskError, match="Failed"):
        resolved(Failed(message="by hand"))


def test_a_result_that_was_not_recorded_is_missing() -> None:
    with pytest.raises(MissingResult):
        resolved(future_in(Completed()))


def test_quote_and_opaque() -> None:
    future = ok([1])
    assert collect_inputs({"x": quote(future), "y": opaque([future])}).edges == {}
    assert resolved(quote([future])) == [future]
    assert resolved(opaque([future])) == [future]
    assert resolved(opaque(future)) == [1]


@pytest.mark.parametrize("cls", [FlowRun, TaskRun])
def test_the_record_of_a_run_is_refused_unless_it_is_opaque(cls: type[Any]) -> None:
    run = cls("r" * 36, "name", "r" * 36, Owner("r" * 36))
    with pytest.raises(TypeError, match=r"`\.id`.*`opaque\(run\)`"):
        collect_inputs({"x": [run]})
    assert collect_inputs({"x": opaque(run)}).edges == {}
    assert resolved(opaque(run)) is run
    assert resolved(quote([run])) == [run]


def test_a_call_that_would_wait_for_itself_is_refused() -> None:
    future = future_in(None)
    with pytest.raises(ValueError, match="wait for itself"):
        collect_inputs({"x": [future]}, own_run_ids=(future.task_run_id,))


def test_futures_in_a_returned_value_become_states() -> None:
    a, b = ok(1), future_in(Failed(data=ValueError()))
    returned = resolve_futures_to_states({"a": [a], "b": Config(b), "c": quote(a)})
    assert returned == {"a": [a.state], "b": Config(b.state), "c": quote(a)}
    assert resolve_futures_to_states(HeadraceFutureList([a])) == [a.state]


def test_five_thousand_futures_in_one_argument() -> None:
    futures = [ok(i) for i in range(5_000)]
    started = time.process_time()
    assert collect_inputs({"x": futures}).edges["x"] == [future.task_run_id for future in futures]
    assert resolved({"all": futures}) == {"all": list(range(5_000))}
    assert time.process_time() - started < 2


def test_no_more_edges_are_recorded_than_the_wire_carries() -> None:
    futures = [future_in(None) for _ in range(5_001)]
    inputs = collect_inputs({"x": futures})
    assert len(inputs.edges["x"]) == 5_000
    assert len(inputs.waits_for) == 5_001


class Colour(Enum):
    RED = 1


class Table:
    """Something that can be told apart from everything else."""


def test_a_result_is_recognised_when_it_is_passed_on_by_value() -> None:
    origins = ResultOrigins()
    table, numbers, big, text = Table(), [1, 2], 10**9, "a b".join(["x", "y"])
    for run_id, value in {"t": table, "n": numbers, "b": big, "s": text}.items():
        origins.remember(value, run_id)
    parameters = {"a": table, "b": [numbers, {"k": table}], "c": big, "d": text, "e": Table(), "f": [1, 2]}
    assert collect_inputs(parameters, origins=origins).edges == {
        "a": ["t"],
        "b": ["n", "t"],
        "c": ["b"],
        "d": ["s"],
    }


def test_what_a_result_is_unpacked_into_is_recognised() -> None:
    origins = ResultOrigins()
    left, right = Table(), Table()
    origins.remember((left, right), "run")
    assert collect_inputs({"x": right}, origins=origins).edges == {"x": ["run"]}


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, 1, -5, 256, "", "a", "name", (), b"", b"a", ..., Colour.RED, int],
    ids=repr,
)
def test_values_without_an_identity_of_their_own_are_not_recognised(value: Any) -> None:
    origins = ResultOrigins()
    origins.remember(value, "run")
    origins.remember([value], "run")
    assert collect_inputs({"x": value}, origins=origins).edges == {}


def test_the_last_run_that_handed_a_value_out_is_its_origin() -> None:
    origins = ResultOrigins()
    table = Table()
    origins.remember(table, "made")
    origins.remember(table, "changed")
    assert origins.of(table) == "changed"


def test_an_object_in_the_place_of_a_dead_one_has_no_origin() -> None:
    origins = ResultOrigins()
    for i in range(5_000):
        origins.remember([i, i], f"run {i}")
        # Whatever the allocator puts where a former result was.
        assert origins.of([i, i]) is None
    assert len(origins) < 20, "results that nobody holds are let go"


def test_results_that_somebody_holds_are_kept_up_to_a_bound() -> None:
    origins = ResultOrigins()
    held = [Table() for _ in range(10_500)]
    for i, table in enumerate(held):
        origins.remember(table, str(i))
    assert origins.of(held[-1]) == "10499"
    assert len(origins) <= 10_001
    held.clear()
    gc.collect()
    for i in range(10_500):
        origins.remember([i], "more")
    assert len(origins) < 100


def test_large_results_are_remembered_but_not_searched() -> None:
    origins = ResultOrigins()
    table = Table()
    large = [table] * 1_000_000
    started = time.process_time()
    origins.remember(large, "run")
    for _ in range(20):
        assert collect_inputs({"x": large}, origins=origins).edges == {"x": ["run"]}
    assert time.process_time() - started < 4
    assert origins.of(table) is None
