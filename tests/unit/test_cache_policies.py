"""Which calls share a key under which policy."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest

from headrace import task
from headrace.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
    Inputs,
    task_input_hash,
)
from headrace.context import TaskRunContext
from headrace.locking import IsolationLevel
from headrace.locking.filesystem import FileSystemLockManager
from headrace.locking.memory import MemoryLockManager
from headrace.runs import Owner, TaskRun
from headrace.tasks import Task


@task
def load(a: int = 1, b: int = 2) -> int:
    return a + b


@task
def store(a: int = 1, b: int = 2) -> int:
    return a - b


@pytest.fixture
def context() -> Callable[..., TaskRunContext]:
    """Makes the context of a task run."""

    def make(
        called: Task[..., Any] = load, *, flow_run_id: str | None = "flow run", run_id: str = "run"
    ) -> TaskRunContext:
        run = TaskRun(
            run_id, "a run", run_id, Owner(run_id, 1, 1), flow_run_id=flow_run_id, task_key=called.task_key
        )
        return TaskRunContext(called, run, {})

    return make


def test_inputs(context: Any) -> None:
    def key(policy: CachePolicy = INPUTS, **inputs: Any) -> str | None:
        return policy.compute_key(context(), inputs, {})

    assert key(a=1, b=2) == key(b=2, a=1) != key(a=2, b=1)
    assert key(a=1) != key(a=True) != key(a="1")
    assert key() is None
    assert key(INPUTS - "b", a=1, b=2) == key(INPUTS - "b", a=1, b=3) != key(INPUTS - "b", a=2, b=2)
    assert key(INPUTS - "a" - "b", a=1, b=2) == key(INPUTS - "a" - "b", a=2, b=3) is not None
    assert key(INPUTS - "elsewhere", a=1) == key(a=1)
    assert INPUTS.exclude == []


def test_task_source(context: Any) -> None:
    def key(called: Task[..., Any]) -> str | None:
        return TASK_SOURCE.compute_key(context(called), {}, {})

    assert key(load) == key(load.with_options(retries=3, name="other")) != key(store)
    assert TASK_SOURCE.compute_key(None, {}, {}) is None


def test_flow_parameters(context: Any) -> None:
    def key(**parameters: Any) -> str | None:
        return FLOW_PARAMETERS.compute_key(context(), {"a": 1}, parameters)

    assert key(day={"b", "a"}) == key(day={"a", "b"}) != key(day={"a"})
    assert key() is None


def test_run_id(context: Any) -> None:
    assert RUN_ID.compute_key(context(flow_run_id="f"), {}, {}) == "f"
    assert RUN_ID.compute_key(context(flow_run_id=None, run_id="t"), {}, {}) == "t"
    assert RUN_ID.compute_key(None, {}, {}) is None


def test_default_is_inputs_source_and_run(context: Any) -> None:
    def key(made: TaskRunContext, a: int = 1) -> str | None:
        return DEFAULT.compute_key(made, {"a": a}, {"p": 1})

    first = key(context())
    assert key(context(run_id="another")) == first
    assert len({first, key(context(), a=2), key(context(store)), key(context(flow_run_id="other"))}) == 4


@pytest.mark.parametrize("policy", [NO_CACHE, NONE, NONE + NONE, NONE - "a"])
def test_no_cache(context: Any, policy: CachePolicy) -> None:
    assert policy.compute_key(context(), {"a": 1}, {"p": 1}) is None


def test_no_cache_is_neutral() -> None:
    assert NONE + INPUTS is INPUTS
    assert INPUTS + NONE is INPUTS
    assert DEFAULT + NO_CACHE is DEFAULT


def test_sums_leave_out_parts_without_a_key(context: Any) -> None:
    def key(policy: CachePolicy, **inputs: Any) -> str | None:
        return policy.compute_key(context(), inputs, {})

    assert key(INPUTS + FLOW_PARAMETERS) is None
    assert key(INPUTS + FLOW_PARAMETERS, a=1) is not None
    assert key(INPUTS + RUN_ID) is not None
    assert key((INPUTS + RUN_ID) + TASK_SOURCE, a=1) == key(INPUTS + (RUN_ID + TASK_SOURCE), a=1)


def test_what_is_left_out_stays_out_of_sums(context: Any) -> None:
    def key(policy: CachePolicy, **inputs: Any) -> str | None:
        return policy.compute_key(context(), inputs, {})

    for policy in (DEFAULT - "b", (INPUTS - "b") + TASK_SOURCE, (INPUTS - "b") + (INPUTS - "c") + RUN_ID):
        assert key(policy, a=1, b=1) == key(policy, a=1, b=2) != key(policy, a=2, b=1)
    merged = (INPUTS - "b") + (INPUTS - "c")
    assert isinstance(merged, CompoundCachePolicy)
    assert [policy.exclude for policy in merged.policies if isinstance(policy, Inputs)] == [["b", "c"]]
    assert (RUN_ID - "b") is RUN_ID


def test_only_names_can_be_left_out() -> None:
    for policy in (INPUTS, DEFAULT, RUN_ID):
        with pytest.raises(TypeError, match="Can only subtract strings from key policies"):
            policy - 1  # type: ignore[operator]


def test_configure_makes_a_copy() -> None:
    locks = MemoryLockManager()
    configured = INPUTS.configure(key_storage="/srv/keys", lock_manager=locks, isolation_level="SERIALIZABLE")
    assert (configured.key_storage, configured.lock_manager) == ("/srv/keys", locks)
    assert configured.isolation_level is IsolationLevel.SERIALIZABLE
    assert INPUTS.key_storage is INPUTS.lock_manager is INPUTS.isolation_level is None
    assert configured.configure(key_storage="/other").lock_manager is locks
    with pytest.raises(ValueError, match="CHAOS"):
        INPUTS.configure(isolation_level="CHAOS")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [INPUTS, DEFAULT, INPUTS - "a", DEFAULT - "a"])
def test_sums_and_differences_keep_the_configuration(policy: CachePolicy) -> None:
    locks = MemoryLockManager()
    configured = policy.configure(key_storage="/k", lock_manager=locks, isolation_level="SERIALIZABLE")
    for made in (
        configured + FLOW_PARAMETERS,
        FLOW_PARAMETERS + configured,
        configured - "b",
        configured + NONE,
    ):
        assert (made.key_storage, made.lock_manager, made.isolation_level) == ("/k", locks, "SERIALIZABLE")


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"key_storage": "/a"}, {"key_storage": "/b"}, "storage locations"),
        ({"isolation_level": "SERIALIZABLE"}, {"isolation_level": "READ_COMMITTED"}, "isolation levels"),
        ({"lock_manager": MemoryLockManager()}, {"lock_manager": FileSystemLockManager("/a")}, "lock"),
    ],
)
def test_different_configurations_do_not_add_up(one: Any, other: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"Cannot add CachePolicies with different {words}"):
        INPUTS.configure(**one) + RUN_ID.configure(**other)
    same = INPUTS.configure(**one) + RUN_ID.configure(**one)
    assert isinstance(same, CompoundCachePolicy)


def test_a_function_of_ones_own(context: Any) -> None:
    made = context()
    policy = CachePolicy.from_cache_key_fn(lambda ctx, parameters: f"{ctx.task.name}-{parameters['a']}")
    assert isinstance(policy, CacheKeyFnPolicy)
    assert policy.compute_key(made, {"a": 1}, {}) == "load-1"
    assert CacheKeyFnPolicy(cache_key_fn=lambda *_: None).compute_key(made, {}, {}) is None
    assert CacheKeyFnPolicy().compute_key(made, {}, {}) is None
    with pytest.raises(TypeError, match="cache_key_fn must return a string or None, got int"):
        CacheKeyFnPolicy(cache_key_fn=lambda *_: 1).compute_key(made, {}, {})  # type: ignore[arg-type, return-value]


def test_a_policy_of_ones_own(context: Any) -> None:
    class ByDay(CachePolicy):
        def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str:
            return str(inputs["day"])

    def key(policy: CachePolicy, **inputs: Any) -> str | None:
        return policy.compute_key(context(), inputs, {})

    assert key(ByDay(), day=1) == "1"
    both = ByDay() + (INPUTS - "at")
    assert key(both, day=1, at=1) == key(both, day=1, at=2) != key(both, day=2, at=1)
    with pytest.raises(NotImplementedError, match="CachePolicy has no compute_key"):
        CachePolicy().compute_key(None, {}, {})


@pytest.mark.parametrize("policy", [INPUTS, DEFAULT, INPUTS + RUN_ID])
def test_what_has_no_fingerprint_is_explained(context: Any, policy: CachePolicy) -> None:
    with pytest.raises(ValueError, match="Unable to create a cache key") as caught:
        policy.compute_key(context(), {"a": 1, "clients": [threading.Lock()]}, {})
    for hint in ("inputs['clients'][0]", "INPUTS - ", "cache_key_fn", "NO_CACHE"):
        assert hint in str(caught.value)
    assert (policy - "clients").compute_key(context(), {"a": 1, "clients": [threading.Lock()]}, {})


def test_task_input_hash(context: Any) -> None:
    key = task_input_hash(context(), {"a": {1, 2}})
    assert key == task_input_hash(context(flow_run_id="other"), {"a": {2, 1}})
    assert key != task_input_hash(context(), {"a": {1}})
    assert key != task_input_hash(context(store), {"a": {1, 2}})


def test_policies_are_values() -> None:
    assert Inputs(exclude=["a"]) == INPUTS - "a" != INPUTS
    assert copy.deepcopy(DEFAULT) == DEFAULT
    assert repr(INPUTS - "a").endswith("exclude=['a'])")
