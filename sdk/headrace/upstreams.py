"""What a run depends on: the futures and states among its arguments, and results of earlier runs.

A future or state stands for the result of its run: the run that takes it waits for it, receives the value,
and remembers where the value came from. A result that is passed on by value is recognised by identity.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final, TypeAlias

from headrace.core.limits import INPUT_RUN_IDS
from headrace.exceptions import UpstreamTaskError
from headrace.futures import HeadraceFuture
from headrace.results import StoredResult
from headrace.runs import FlowRun, TaskRun
from headrace.states import State, StateType, is_state
from headrace.utilities.collections import Traversal

__all__ = [
    "Inputs",
    "ResultOrigins",
    "collect_inputs",
    "futures_in",
    "futures_to",
    "has_identity",
    "require",
    "resolve_inputs",
]

_UPSTREAMS: Final = Traversal(HeadraceFuture, State, FlowRun, TaskRun, hidden_by_opaque=(FlowRun, TaskRun))
_FUTURES: Final = Traversal(HeadraceFuture)
_MEMBERS_LOOKED_AT: Final = 1000
_MEMBERS_REMEMBERED: Final = 100
_ORIGINS_KEPT: Final = 10_000


class ResultOrigins:
    """Which run made a value, for the results of one flow run. Safe to use from several threads.

    The values are held, so that no other object can take their identity; one that nobody else holds any
    longer is let go, since nobody can pass it on.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[int, tuple[Any, str]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, value: Any, run_id: str) -> None:
        """`value` is the result of the run; what it is unpacked into is remembered with it.

        None, booleans, small integers and strings that may be constants of a program have no identity of
        their own: they are not remembered.
        """
        if value is None:
            return
        with self._lock:
            self._put(value, run_id)
            for member in _few(_UPSTREAMS.kind_of(value).members(value), _MEMBERS_REMEMBERED):
                self._put(member, run_id)

    def of(self, value: Any) -> str | None:
        """The run whose result `value` is, or None."""
        entry = self._runs.get(id(value))
        return None if entry is None else entry[1]

    def __len__(self) -> int:
        return len(self._runs)

    def _put(self, value: Any, run_id: str) -> None:
        if not has_identity(value):
            return
        self._runs[id(value)] = (value, run_id)
        self._runs.move_to_end(id(value))
        self._look_at_oldest()
        self._look_at_oldest()

    def _look_at_oldest(self) -> None:
        key, entry = next(iter(self._runs.items()))
        if sys.getrefcount(entry[0]) <= _HELD_BY_US or len(self._runs) > _ORIGINS_KEPT:
            del self._runs[key]
        else:
            self._runs.move_to_end(key)


def _held_by_a_tuple_alone() -> int:
    """What `getrefcount` says of an object that nothing but an entry holds."""
    entry = (object(), "")
    return sys.getrefcount(entry[0])


_HELD_BY_US: Final = _held_by_a_tuple_alone()


def has_identity(value: Any) -> bool:
    """Whether `value` can be told from an equal one, so that it is known by itself where it came from."""
    cls = _class_of(value)
    if value is None or value is ... or value is NotImplemented:
        return False
    if cls is int:
        return not -5 <= value <= 256
    if cls is str:
        # The compiler interns constants that look like names; they are the same object everywhere.
        return len(value) > 1 and not value.isidentifier()
    if cls is bytes or cls is tuple or cls is frozenset:
        return len(value) > (1 if cls is bytes else 0)
    return cls is not bool and not issubclass(cls, (type, Enum))


def _class_of(value: object) -> type:
    return type(value)


def _few(members: Any, limit: int) -> Iterable[Any]:
    return members if len(members) <= limit else ()


@dataclass(slots=True)
class Inputs:
    """What the arguments of one call depend on.

    Attributes:
        waits_for: the futures that have not ended yet.
        edges: for each parameter, the ids of the runs its value comes from; `wait_for` for those that
            are only waited for.
        as_they_are: whether `resolve_inputs` would change nothing.
    """

    waits_for: list[HeadraceFuture[Any]] = field(default_factory=list[HeadraceFuture[Any]])
    edges: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    as_they_are: bool = True


def collect_inputs(
    parameters: Mapping[str, Any],
    wait_for: Any = None,
    origins: ResultOrigins | None = None,
    *,
    own_run_ids: Iterable[str] = (),
) -> Inputs:
    """What the arguments depend on.

    Args:
        parameters: the arguments by parameter name.
        wait_for: futures and states, in any collection, that are waited for and give no value.
        origins: the results of the flow run so far.
        own_run_ids: runs that cannot end before the call does: the run itself and those it is called in.

    Raises:
        ValueError: the call would wait for itself.
        TypeError: the record of a run is among the arguments.
    """
    inputs = Inputs()
    if not _UPSTREAMS.holds_none(parameters.values()):
        inputs.as_they_are = False
        for name, value in parameters.items():
            _collect(inputs, name, _UPSTREAMS.find(value))
    if wait_for is not None:
        _collect(inputs, "wait_for", _UPSTREAMS.find(wait_for))
    if origins:
        for name, value in parameters.items():
            _add_origins(inputs.edges, name, value, origins)
    for future in inputs.waits_for:
        if future.task_run_id in own_run_ids:
            raise ValueError(
                f"Task run '{future.task_run_id}' would wait for itself: its own future is among the inputs"
                " of what it calls."
            )
    return inputs


def _collect(inputs: Inputs, name: str, upstreams: list[_Upstream]) -> None:
    for upstream in upstreams:
        if isinstance(upstream, (FlowRun, TaskRun)):
            raise _run_record(upstream)
        if isinstance(upstream, HeadraceFuture) and not upstream.done():
            inputs.waits_for.append(upstream)
    _add_edges(inputs.edges, name, [run_id for run_id in map(_run_id, upstreams) if run_id is not None])


def _add_edges(edges: dict[str, list[str]], name: str, run_ids: list[str]) -> None:
    if run_ids:
        edges[name] = list(dict.fromkeys([*edges.get(name, ()), *run_ids]))[:INPUT_RUN_IDS]


def _add_origins(edges: dict[str, list[str]], name: str, value: Any, origins: ResultOrigins) -> None:
    """Edges for what is a result itself, or holds results, in containers of a reasonable size."""
    pending = [value]
    seen: set[int] = set()
    run_ids: list[str] = []
    for item in pending:
        run_id = origins.of(item)
        if run_id is not None:
            run_ids.append(run_id)
        elif id(item) not in seen:
            seen.add(id(item))
            members = _UPSTREAMS.kind_of(item).members(item)
            pending.extend(_few(members, _MEMBERS_LOOKED_AT - len(pending)))
    _add_edges(edges, name, run_ids)


def resolve_inputs(
    parameters: Mapping[str, Any],
    wait_for: Any = None,
    stays: Callable[[StoredResult], bool] | None = None,
) -> dict[str, Any]:
    """The arguments as the body receives them: upstreams replaced by their results, annotations taken off.

    Every future must have ended. A container that holds none is passed on itself.

    Args:
        parameters: the arguments as they were given.
        wait_for: futures and states that must have completed.
        stays: whether a result that is stored elsewhere is passed on as it is, and not fetched.

    Raises:
        UpstreamTaskError: an upstream did not complete, and `allow_failure` does not allow that.
        MissingResult: the result of an upstream was not recorded.
    """
    if wait_for is not None:
        require(wait_for)
    if _UPSTREAMS.holds_none(parameters.values()):
        return dict(parameters)
    value_of = _value_of if stays is None else partial(_value_of, stays=stays)
    return {name: _UPSTREAMS.substitute(value, value_of) for name, value in parameters.items()}


def require(wait_for: Any) -> None:
    """Check that everything waited for has completed.

    Raises:
        UpstreamTaskError: an upstream did not complete, and `allow_failure` does not allow that.
    """
    _UPSTREAMS.substitute(wait_for, _checked)


def futures_in(value: Any) -> list[HeadraceFuture[Any]]:
    """Every future in `value`, at any depth but inside `quote`."""
    return _FUTURES.find(value)


def futures_to(value: Any, replace: Callable[[HeadraceFuture[Any]], Any]) -> Any:
    """`value` with `replace` of every future in its place; not inside `quote`."""
    return _FUTURES.substitute(value, lambda future, _: replace(future), keep_annotations=True)


_Upstream: TypeAlias = HeadraceFuture[Any] | State[Any]


def _run_id(upstream: _Upstream) -> str | None:
    if isinstance(upstream, HeadraceFuture):
        return upstream.task_run_id
    return upstream.state_details.task_run_id or upstream.state_details.flow_run_id


def _checked(upstream: Any, allow_failure: bool) -> State[Any]:
    """The state of an upstream that has completed, or is allowed not to have."""
    if isinstance(upstream, (FlowRun, TaskRun)):
        raise _run_record(upstream)
    state: State[Any] = upstream if is_state(upstream) else upstream.state
    if not state.is_completed() and not (allow_failure and _may_fail(state)):
        raise _not_completed(upstream, state)
    return state


def _value_of(upstream: Any, allow_failure: bool, stays: Callable[[StoredResult], bool] | None = None) -> Any:
    if _is_by_hand(upstream) and not upstream.is_final():
        return upstream
    state = _checked(upstream, allow_failure)
    if stays is not None and isinstance(state.data, StoredResult) and stays(state.data):
        return state.data
    return state.data if state.is_pending() else state.result(raise_on_failure=False, _sync=True)


def _is_by_hand(upstream: Any) -> bool:
    """Whether this is a state about no run."""
    return is_state(upstream) and _run_id(upstream) is None


def _may_fail(state: State[Any]) -> bool:
    return state.is_failed() or (state.type is StateType.PENDING and state.name == "NotReady")


def _not_completed(upstream: _Upstream, state: State[Any]) -> UpstreamTaskError:
    if _is_by_hand(upstream):
        return UpstreamTaskError(f"Upstream state {state} is not a 'COMPLETED' state.")
    of_flow = isinstance(upstream, State) and state.state_details.task_run_id is None
    kind = "flow" if of_flow else "task"
    return UpstreamTaskError(f"Upstream {kind} run '{_run_id(upstream)}' did not reach a 'COMPLETED' state.")


def _run_record(run: FlowRun | TaskRun) -> TypeError:
    return TypeError(
        f"{type(run).__name__} '{run.name}' was passed as an argument. Pass its id (`.id`) instead, or"
        " `opaque(run)` to pass it as it is."
    )
