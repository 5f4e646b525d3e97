"""Where code stands, taken from one process to another: see `headrace.context.serialize_context`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, TypeAlias

from headrace.context import FlowRunContext, TagsContext, TaskRunContext, current_run
from headrace.exceptions import SerializationError
from headrace.runs import FlowRun, TaskRun
from headrace.serializers import PickleSerializer
from headrace.settings import carried_settings, use_carried_settings
from headrace.states.value import NO_DATA
from headrace.tracing import attached, current_traceparent

__all__ = ["Described", "Describer", "describe", "entered", "portable_run", "serialized"]

_PICKLE: Final = PickleSerializer()

Described: TypeAlias = dict[str, Any]
"""One run: plain values and bytes."""


def serialized(
    describe_run: Callable[[FlowRunContext | TaskRunContext], Described] | None = None,
) -> Described:
    """What `serialize_context` gives.

    Args:
        describe_run: makes the description of one run; default: `describe`.
    """
    describe_run = describe_run or describe
    runs: list[Described] = []
    context = current_run()
    while context is not None:
        runs.append(describe_run(context))
        context = context.parent
    return {
        "runs": runs[::-1],
        "tags": TagsContext.get().current_tags,
        "settings": carried_settings(),
        "traceparent": current_traceparent(),
    }


def describe(context: FlowRunContext | TaskRunContext) -> Described:
    """One run with its flow or task, and those of its arguments that can be pickled."""
    definition: Any = context.flow if isinstance(context, FlowRunContext) else context.task
    return {
        "definition": _pickled_definition(definition),
        "run": portable_run(context.run),
        "parameters": {name: blob for name, blob in _pickled(context.parameters) if blob is not None},
        "log_prints": context.log_prints,
        "persist_result": context.persist_result,
    }


class Describer:
    """`describe`, which remembers what it has said: a run that submits a thousand tasks is pickled once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, int, Described]] = {}

    def __call__(self, context: FlowRunContext | TaskRunContext) -> Described:
        run = context.run
        known = self._known.get(run.id)
        if known is None or known[0] is not context or known[1] != run.run_count:
            known = self._known[run.id] = (context, run.run_count, describe(context))
        return known[2]


def portable_run(run: FlowRun | TaskRun) -> FlowRun | TaskRun:
    """A copy without the values that belong to its process: arguments, and the data of its state."""
    state = None if run.state is None else run.state.with_data(NO_DATA)
    return dataclasses.replace(run, parameters={}, state=state)


def _pickled_definition(definition: Any) -> bytes:
    """A flow or task, with as much of it as can be pickled."""
    with suppress(SerializationError):
        return _PICKLE.dumps(definition)
    # Its function stays where it is, and its hooks too, if need be.
    bodiless = definition.without_body()
    with suppress(SerializationError):
        return _PICKLE.dumps(bodiless)
    return _PICKLE.dumps(
        definition.again(bodiless.fn, {"name": definition.name, "version": definition.version})
    )


def _pickled(parameters: Mapping[str, Any]) -> Generator[tuple[str, bytes | None]]:
    for name, value in parameters.items():
        try:
            yield name, _PICKLE.dumps(value)
        except SerializationError:
            yield name, None


@contextmanager
def entered(serialized_context: Mapping[str, Any]) -> Generator[None]:
    """The settings, the trace and the runs of a serialised context, while inside."""
    with ExitStack() as stack:
        stack.enter_context(use_carried_settings(serialized_context["settings"]))
        stack.enter_context(attached(serialized_context["traceparent"]))
        context: FlowRunContext | TaskRunContext | None = None
        for described in serialized_context["runs"]:
            context = _rebuilt(described, context)
        if context is not None:
            stack.enter_context(context)
        yield


def _rebuilt(
    described: Described, parent: FlowRunContext | TaskRunContext | None
) -> FlowRunContext | TaskRunContext:
    run: FlowRun | TaskRun = described["run"]
    parameters = {name: _PICKLE.loads(blob) for name, blob in described["parameters"].items()}
    run = dataclasses.replace(run, parameters=parameters)
    definition = _definition(described["definition"])
    log_prints, persist_result = described["log_prints"], described["persist_result"]
    if isinstance(run, FlowRun):
        return FlowRunContext(
            definition, run, parameters, parent=parent, log_prints=log_prints, persist_result=persist_result
        )
    flow = parent.flow_context if isinstance(parent, TaskRunContext) else parent
    return TaskRunContext(
        definition,
        run,
        parameters,
        parent=parent,
        flow_context=flow,
        log_prints=log_prints,
        persist_result=persist_result,
    )


@lru_cache(maxsize=16)
def _definition(blob: bytes) -> Any:
    return _PICKLE.loads(blob)
