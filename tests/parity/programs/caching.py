"""Results that are kept, and calls that are not run again."""

from __future__ import annotations

import datetime
from typing import Any

from plain import outcome, plain

from headrace import flow, task
from headrace.cache_policies import DEFAULT, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE
from headrace.runtime import flow_run
from headrace.states import Failed
from headrace.tasks import task_input_hash

_count = 0


def _unique() -> str:
    """Keys of one program are not those of another."""
    global _count
    _count += 1
    return f"parity-{_count}"


def _twice(first: Any = (1,), second: Any = (1,), **options: Any) -> Any:
    """How often the body ran, and the states, when the task is called twice in one flow run."""
    bodies: list[Any] = []

    @task(**options)
    def subject(x: Any, y: Any = 0, case: str = "") -> Any:
        bodies.append(x)
        return [case, x]

    @flow
    def around() -> Any:
        states = [subject(*given, case=case, return_state=True) for given in (first, second)]
        return [[state.type.value, state.name] for state in states]

    case = _unique()
    return outcome(lambda: [around(), len(bodies)])


def program_caching() -> dict[str, Any]:
    day = datetime.timedelta(days=1)
    keyed = _unique()
    return {
        "nothing said": _twice(),
        "persisted": _twice(persist_result=True),
        "other arguments": _twice((1,), (2,), persist_result=True),
        "INPUTS": _twice(cache_policy=INPUTS),
        "INPUTS less one": _twice((1, 2), (1, 3), cache_policy=INPUTS - "y"),
        "INPUTS + RUN_ID": _twice(cache_policy=INPUTS + RUN_ID),
        "TASK_SOURCE": _twice((1,), (2,), cache_policy=TASK_SOURCE),
        "DEFAULT": _twice(cache_policy=DEFAULT),
        "DEFAULT less one": _twice((1, 2), (1, 3), cache_policy=DEFAULT - "y"),
        "NO_CACHE": _twice(cache_policy=NO_CACHE, persist_result=True),
        "not persisted": _twice(cache_policy=INPUTS, persist_result=False),
        "a key function": _twice((1,), (2,), cache_key_fn=lambda *_: keyed),
        "a key function without a key": _twice(cache_key_fn=lambda *_: None),
        "a key function that raises": _twice(cache_key_fn=lambda *_: 1 / 0),
        "task_input_hash": _twice(cache_key_fn=task_input_hash),
        "task_input_hash, other arguments": _twice((1,), (2,), cache_key_fn=task_input_hash),
        "refreshed": _twice(cache_policy=INPUTS, refresh_cache=True),
        "expired": _twice(cache_policy=INPUTS, cache_expiration=datetime.timedelta(seconds=-1)),
        "not expired": _twice(cache_policy=INPUTS, cache_expiration=day),
        "a storage key": _twice((1,), (2,), result_storage_key=_unique()),
        "a storage key of parameters": _twice((1,), (2,), result_storage_key=_unique() + "-{parameters[x]}"),
        "a serializer": _twice(result_serializer="json"),
        "equal values of two types": _twice((1,), (True,), cache_policy=INPUTS),
        "sets": _twice(({"a", "b"},), ({"b", "a"},), cache_policy=INPUTS),
        "dicts in another order": _twice(({"a": 1, "b": 2},), ({"b": 2, "a": 1},), cache_policy=INPUTS),
        "an argument without a key": _twice((lambda: 1,), (object(),), cache_policy=INPUTS - "x"),
    }


def program_caching_of_failures() -> dict[str, Any]:
    bodies: list[str] = []

    @task(cache_policy=INPUTS)
    def better_later(x: str) -> str:
        bodies.append(x)
        if len(bodies) < 2:
            raise ValueError("not yet")
        return x

    @task(cache_policy=INPUTS)
    def failed_by_hand(x: str) -> Any:
        bodies.append(x)
        return Failed(message="no")

    @flow
    def around(subject: Any) -> Any:
        states = [subject(key, return_state=True) for _ in range(3)]
        return [[state.type.value, state.name] for state in states]

    around.should_validate_parameters = False
    key = _unique()
    facts = {"raised once": outcome(lambda: around(better_later)), "raised once: bodies": len(bodies)}
    bodies.clear()
    key = _unique()
    facts |= {
        "failed by hand": outcome(lambda: around(failed_by_hand)),
        "failed by hand: bodies": len(bodies),
    }
    return facts


def program_caching_and_hooks() -> dict[str, Any]:
    seen: list[str] = []

    def note(_task: Any, _run: Any, state: Any) -> None:
        seen.append(state.name)

    @task(cache_policy=INPUTS, on_running=[note], on_completion=[note])
    def subject(x: str) -> str:
        return x

    @flow
    def around() -> Any:
        return [subject(key), subject(key), subject.submit(key).result()]

    key = _unique()
    return {"values": len(set(outcome(around))), "hooks": seen}


def program_caching_between_flows() -> dict[str, Any]:
    bodies: list[Any] = []

    @task(cache_policy=INPUTS)
    def shared(x: str) -> str:
        bodies.append(["shared", flow_run.name])
        return x

    @task(persist_result=True)
    def own(x: str) -> str:
        bodies.append(["own", flow_run.name])
        return x

    @flow(flow_run_name="{name}")
    def around(name: str, key: str) -> None:
        shared(key)
        own(key)

    key = _unique()
    around("first", key)
    around("second", key)
    return {"bodies": bodies}


def program_retried_flow_with_kept_results() -> dict[str, Any]:
    bodies: list[str] = []

    @task
    def lost() -> str:
        bodies.append("lost")
        return "lost"

    @task(persist_result=True)
    def kept() -> str:
        bodies.append("kept")
        return "kept"

    @flow(retries=2)
    def around() -> Any:
        lost()
        state = kept(return_state=True)
        if flow_run.run_count < 3:
            raise ValueError("again")
        return [state.name, state.result()]

    return {"result": outcome(around), "bodies": bodies}


def program_persistence() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, options in {
        "nothing said": {},
        "yes": {"persist_result": True},
        "no": {"persist_result": False},
        "storage key": {"result_storage_key": "x"},
        "serializer": {"result_serializer": "json"},
        "policy": {"cache_policy": INPUTS},
        "NO_CACHE": {"cache_policy": NO_CACHE},
        "key function": {"cache_key_fn": task_input_hash},
        "policy, no": {"cache_policy": INPUTS, "persist_result": False},
        "expiry": {"cache_expiration": datetime.timedelta(days=1)},
    }.items():
        facts[f"task: {name}"] = outcome(
            lambda options=options: plain(task(**options)(lambda: 1).persist_result)
        )
    for name, options in {
        "nothing said": {},
        "yes": {"persist_result": True},
        "serializer": {"result_serializer": "json"},
    }.items():
        facts[f"flow: {name}"] = outcome(
            lambda options=options: plain(flow(**options)(lambda: 1).persist_result)
        )

    @task
    def inheriting() -> Any:
        from headrace.context import TaskRunContext

        context: Any = TaskRunContext.get()
        return bool(context.persist_result)

    @flow(persist_result=True)
    def persisting() -> Any:
        return inheriting()

    @flow
    def silent() -> Any:
        return inheriting()

    facts["inherited"] = outcome(persisting)
    facts["not inherited"] = outcome(silent)
    facts["policies that are equal"] = [INPUTS == INPUTS, plain(type(DEFAULT).__name__)]
    facts["less what is no name"] = outcome(lambda: plain(INPUTS - 3))
    facts["a bad policy"] = outcome(lambda: plain(task(cache_policy="inputs")(lambda: 1).cache_policy))
    return facts
