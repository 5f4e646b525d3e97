"""Tasks: the steps of flows.

@task(retries=3, retry_delay_seconds=[1, 10])
def fetch(url: str) -> bytes: ...
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from headrace.context import FlowRunContext, current_sketch
from headrace.core.budget import RETRIES_MAX, UNTIL_DEADLINE
from headrace.core.codehash import code_hash
from headrace.core.retry import DELAYS_MAX, Delays, exponential_backoff, normal_delays, valid_jitter_factor
from headrace.decorated import (
    UNSET,
    Decorated,
    Hook,
    RunName,
    callable_name,
    checked_run_name,
    chosen,
    code_of,
    count_of_retries,
    hook_list,
    positive_timeout,
    retry_deadline,
)
from headrace.result_options import (
    ResultSerializer,
    ResultStorage,
    caching,
    checked_expiration,
    checked_key_fn,
    checked_serializer,
    checked_storage,
    checked_storage_key,
)
from headrace.runs import RunPolicy
from headrace.settings import get_current_settings
from headrace.task_options import RetryCondition, TaskOptions
from headrace.utilities.typevars import TypeVar as DefaultTypeVar

if TYPE_CHECKING:
    from datetime import timedelta

    from headrace.assets import Asset, MaterializingTask
    from headrace.cache_policies import CacheKeyFn, CachePolicy, task_input_hash
    from headrace.context import TaskRunContext
    from headrace.futures import HeadraceDistributedFuture, HeadraceFuture, HeadraceFutureList
    from headrace.states import State

__all__ = ["MaterializingTask", "Task", "TaskOptions", "exponential_backoff", "task", "task_input_hash"]

P = ParamSpec("P")
R = DefaultTypeVar("R", default=Any, covariant=True)
T = TypeVar("T")
H = TypeVar("H", bound=Hook)


class Task(Decorated[P, R]):
    """A function whose calls are recorded as task runs.

    Made by the `task` decorator, whose arguments are described there.

    Attributes:
        fn: the function itself; calling it makes no run.
        name: what people see.
        task_key: identity of the task's code: its name and a hash of what it does.
        isasync: whether it has to be awaited.
        isgenerator: whether it yields values.
        assets: what it makes: see `headrace.assets`.
        asset_deps: what it makes them from, besides those of the tasks whose results it is given.
        materialized_by: the tool that makes them, or None.
    """

    assets: Sequence[Asset] = ()
    materialized_by: str | None = None

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        task_run_name: RunName | None = None,
        retries: int | None = None,
        retry_delay_seconds: Delays | None = None,
        retry_jitter_factor: float | None = None,
        retry_deadline_seconds: float | None = None,
        retry_condition_fn: RetryCondition | None = None,
        cache_policy: CachePolicy | None = UNSET,
        cache_key_fn: CacheKeyFn | None = None,
        cache_expiration: timedelta | None = None,
        refresh_cache: bool | None = None,
        persist_result: bool | None = None,
        result_storage: ResultStorage | None = None,
        result_storage_key: str | None = None,
        result_serializer: ResultSerializer | None = None,
        cache_result_in_memory: bool = True,
        timeout_seconds: float | None = None,
        log_prints: bool | None = None,
        on_completion: list[Hook] | None = None,
        on_failure: list[Hook] | None = None,
        on_running: list[Hook] | None = None,
        on_commit: list[Hook] | None = None,
        on_rollback: list[Hook] | None = None,
        viz_return_value: Any = None,
        asset_deps: Iterable[str | Asset] | None = None,
        idempotent: bool = True,
    ) -> None:
        self._adopt(fn)
        settings = get_current_settings()
        self.name = name or callable_name(self.fn)
        self.description = description or inspect.getdoc(self.fn)
        self.tags = _tag_set(tags)
        self.version = version
        self.task_run_name = checked_run_name("task_run_name", task_run_name)
        self.retry_deadline_seconds = retry_deadline(retry_deadline_seconds)
        self._retries_given = retries
        self.retries = count_of_retries(retries, settings.tasks_default_retries, self.retry_deadline_seconds)
        if retry_delay_seconds is None:
            retry_delay_seconds = settings.tasks_default_retry_delay_seconds
        self.retry_delays = normal_delays(retry_delay_seconds, min(self.retry_limit, DELAYS_MAX))
        self.retry_jitter_factor = retry_jitter_factor
        jitter = valid_jitter_factor(retry_jitter_factor)
        self.retry_condition_fn = _checked_condition(retry_condition_fn)
        self.result_storage = checked_storage(result_storage)
        self.result_storage_key = checked_storage_key(result_storage_key)
        self.result_serializer = checked_serializer(result_serializer)
        self.cache_result_in_memory = cache_result_in_memory
        self.cache_key_fn = checked_key_fn(cache_key_fn)
        self.cache_expiration = checked_expiration(cache_expiration)
        self.refresh_cache = refresh_cache
        self._given = {"persist_result": persist_result, "cache_policy": cache_policy}
        self.persist_result, self._cache_policy = caching(
            self, persist_result, cache_policy, settings.tasks_default_no_cache
        )
        self.timeout_seconds = positive_timeout(timeout_seconds)
        self.log_prints = log_prints
        self.on_completion_hooks = hook_list("on_completion", on_completion, "task")
        self.on_failure_hooks = hook_list("on_failure", on_failure, "task")
        self.on_running_hooks = hook_list("on_running", on_running, "task")
        self.on_commit_hooks = hook_list("on_commit", on_commit, "task")
        self.on_rollback_hooks = hook_list("on_rollback", on_rollback, "task")
        self.viz_return_value = viz_return_value
        self.asset_deps = _assets(asset_deps)
        self.idempotent = _checked_flag(idempotent)
        self.task_key = f"{callable_name(self.fn)}-{code_hash(self.fn, code_of(self.fn))}"
        self.policy: RunPolicy | None = None
        if self.retries or self.timeout_seconds or self.retry_deadline_seconds:
            self.policy = RunPolicy(
                self.retry_limit, self.retry_delays, jitter, self.timeout_seconds, self.retry_deadline_seconds
            )

    @property
    def retry_limit(self) -> int:
        """How many retries there may be at most: `retries`, or as good as no limit up to the deadline."""
        return RETRIES_MAX if self.retries == UNTIL_DEADLINE else self.retries

    @property
    def retry_delay_seconds(self) -> float | list[float]:
        """Seconds before each retry: one number for all of them, or a list whose last item repeats."""
        if len(self.retry_delays) > 1:
            return list(self.retry_delays)
        return self.retry_delays[0] if self.retry_delays else 0

    @property
    def cache_policy(self) -> CachePolicy | None:
        """What makes two calls the same; None where `result_storage_key` says it."""
        if self._cache_policy is UNSET:
            # Loaded by the first task whose results are kept.
            from headrace.cache_policies import DEFAULT

            self._cache_policy = DEFAULT
        policy: CachePolicy | None = self._cache_policy
        return policy

    @property
    def looks_up_results(self) -> bool:
        """Whether a result that is there already is used, as settings are here."""
        settings = get_current_settings()
        if settings.tasks_disable_caching or (self.cache_policy is not None and self.cache_policy.is_never):
            return False
        return not (settings.tasks_refresh_cache if self.refresh_cache is None else self.refresh_cache)

    def result_key(self, context: TaskRunContext) -> str | None:
        """The key of the result of the task run that runs here; None: it has none.

        Raises:
            Exception: the template of `result_storage_key` names what there is not, or the cache policy
                cannot make a key.
        """
        if self.result_storage_key is None:
            if self.cache_policy is None or get_current_settings().tasks_disable_caching:
                return None
            flow = context.flow_context
            given: Mapping[str, Any] = {} if flow is None else flow.parameters
            key = self.cache_policy.compute_key(context, dict(context.parameters), given)
            if key is None or self.cache_policy.cache_scope is None:
                return key
            from headrace.cache_scopes import scoped_key

            return scoped_key(key, self.cache_policy.cache_scope, context)
        from headrace import runtime

        names = {name: getattr(runtime, name) for name in ("deployment", "flow_run", "task_run")}
        return self.result_storage_key.format(**names, parameters=runtime.task_run.parameters)

    # The overlap that is ignored: what a coroutine function returns could be any T, too.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self: Task[..., T], *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> State[T]: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self, *args: Any, return_state: Literal[False] = False, wait_for: Any, **kwargs: Any
    ) -> R: ...
    # mypy cannot know that P never holds the two names: `Binder` refuses such functions.
    def __call__(  # type: ignore[misc]
        self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any
    ) -> Any:
        """Run the task here and now; a coroutine function must be awaited.

        Args:
            return_state: give the final state of the run; nothing is raised for a run that failed.
            wait_for: futures and states that must complete first, in any collection.

        Raises:
            ParameterBindError: the arguments do not fit; no run is made.
            UpstreamTaskError: something that the task depends on did not complete.
            Exception: what the body raised.
        """
        from headrace.execution import api

        parameters = self.binder.bind(args, kwargs)
        if (sketch := current_sketch.get()) is not None:
            return sketch.call(self, parameters, return_state, wait_for)
        if self.isgenerator:
            return api.iterate_task(self, parameters, return_state, wait_for)
        if self.isasync:
            return api.call_task_async(self, parameters, return_state, wait_for)
        return api.call_task(self, parameters, return_state, wait_for)

    # The last two take arguments of any type: futures may stand in the place of all of them, at any depth.
    @overload
    def submit(  # type: ignore[overload-overlap]
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        **kwargs: Any,
    ) -> State[T]: ...
    @overload
    def submit(  # type: ignore[overload-overlap]
        self: Task[..., T], *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
    ) -> State[T]: ...
    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> HeadraceFuture[T]: ...
    @overload
    def submit(self: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> HeadraceFuture[T]: ...
    @overload
    def submit(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> HeadraceFuture[T]: ...
    @overload
    def submit(
        self: Task[..., T],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        **kwargs: Any,
    ) -> HeadraceFuture[T]: ...
    def submit(  # type: ignore[misc]
        self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any
    ) -> Any:
        """Hand the task to the flow's task runner, and go on.

        A plain call for both kinds of functions, in both kinds of flows.

        Args:
            return_state: wait for the run, and give its final state.
            wait_for: futures and states that must complete first, in any collection.

        Returns:
            A future of the result.

        Raises:
            ParameterBindError: the arguments do not fit; no run is made.
            RuntimeError: no flow runs here.
        """
        parameters = self.binder.bind(args, kwargs)
        future = _runner("submit").submit(self, parameters, wait_for)
        if not return_state:
            return future
        future.wait()
        return future.state

    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> list[State[T]]: ...
    @overload
    def map(
        self: Task[..., T],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> list[State[T]]: ...
    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> HeadraceFutureList[T]: ...
    @overload
    def map(
        self: Task[..., T],
        *args: Any,
        return_state: Literal[False] = False,
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> HeadraceFutureList[T]: ...
    def map(
        self,
        *args: Any,
        return_state: bool = False,
        wait_for: Any = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Submit the task once for each item of its iterable arguments; `unmapped` ones go to every call.

        Args:
            return_state: wait for the runs, and give their final states.
            wait_for: futures and states that must complete first, in any collection.
            deferred: have task workers run it, wherever they are, as `delay` does; no flow is needed then.

        Returns:
            The futures, in the order of the items; with `deferred` each can be waited for in any process.

        Raises:
            ParameterBindError: the arguments do not fit; no run is made.
            MappingLengthMismatch: the iterables have different lengths.
            MappingMissingIterable: there is nothing to spread.
            RuntimeError: no flow runs here, and the runs are not deferred.
            ServerUnavailable: they are deferred, and there is no server.
            ValueError: they are deferred, and the task is a generator.
        """
        parameters = self.binder.bind_given(args, kwargs)
        if deferred:
            from headrace.execution.deferring import defer_mapped_task_runs

            _refuse_in_sketch("map")
            self._check_can_run_elsewhere()
            futures = defer_mapped_task_runs(self, parameters, wait_for)
        else:
            futures = _runner("map").map(self, parameters, wait_for)
        if not return_state:
            return futures
        futures.wait()
        return [future.state for future in futures]

    @overload
    def delay(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> HeadraceDistributedFuture[T]: ...
    @overload
    def delay(self: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> HeadraceDistributedFuture[T]: ...
    @overload
    def delay(
        self: Task[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
    ) -> HeadraceDistributedFuture[T]: ...
    @overload
    def delay(self: Task[..., T], *args: Any, **kwargs: Any) -> HeadraceDistributedFuture[T]: ...
    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Have a task worker run the task, and go on; see `apply_async`."""
        return self.apply_async(args, kwargs)

    @overload
    def apply_async(
        self: Task[..., Coroutine[Any, Any, T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Any = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> HeadraceDistributedFuture[T]: ...
    @overload
    def apply_async(
        self: Task[..., T],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Any = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> HeadraceDistributedFuture[T]: ...
    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Any = None,
        dependencies: Mapping[str, list[str]] | None = None,
    ) -> Any:
        """Have a task worker run the task, wherever one serves it, and go on.

        It needs no flow. The server has the run when this returns.

        Args:
            args: positional arguments; futures among them, at any depth, are waited for by the worker.
            kwargs: keyword arguments, likewise.
            wait_for: futures and states that must complete first, in any collection.
            dependencies: further edges to record: run ids, by parameter.

        Returns:
            A future of the result, which other processes can wait for, too.

        Raises:
            ParameterBindError: the arguments do not fit; no run is made.
            SerializationError: the arguments cannot be pickled; no run is made.
            ValueError: the task is a generator.
            ServerUnavailable: there is no server, and none can be started.
        """
        from headrace.execution.deferring import defer_task_run

        _refuse_in_sketch("apply_async")
        self._check_can_run_elsewhere()
        parameters = self.binder.bind(tuple(args or ()), dict(kwargs or {}))
        return defer_task_run(self, parameters, wait_for, dependencies)

    def _check_can_run_elsewhere(self) -> None:
        if self.isgenerator:
            raise ValueError(f"Task '{self.name}' is a generator, which cannot be run elsewhere.")

    def serve(self, *, limit: int | None = 10) -> None:
        """Run what others ask of this task with `delay`: `headrace.task_worker.serve` for one task."""
        from headrace.task_worker import serve

        serve(self, limit=limit)

    async def aserve(self, *, limit: int | None = 10) -> None:
        """`serve`, for code on an event loop."""
        from headrace.task_worker import aserve

        await aserve(self, limit=limit)

    def with_options(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        version: str | None = None,
        task_run_name: RunName | None = UNSET,
        retries: int | None = UNSET,
        retry_delay_seconds: Delays | None = UNSET,
        retry_jitter_factor: float | None = UNSET,
        retry_deadline_seconds: float | None = UNSET,
        retry_condition_fn: RetryCondition | None = UNSET,
        cache_policy: CachePolicy | None = UNSET,
        cache_key_fn: CacheKeyFn | None = UNSET,
        cache_expiration: timedelta | None = UNSET,
        refresh_cache: bool | None = UNSET,
        persist_result: bool | None = UNSET,
        result_storage: ResultStorage | None = UNSET,
        result_storage_key: str | None = UNSET,
        result_serializer: ResultSerializer | None = UNSET,
        cache_result_in_memory: bool | None = None,
        timeout_seconds: float | None = UNSET,
        log_prints: bool | None = UNSET,
        on_completion: list[Hook] | None = None,
        on_failure: list[Hook] | None = None,
        on_running: list[Hook] | None = None,
        on_commit: list[Hook] | None = None,
        on_rollback: list[Hook] | None = None,
        viz_return_value: Any = None,
        asset_deps: Iterable[str | Asset] | None = None,
        idempotent: bool | None = None,
    ) -> Task[P, R]:
        """A new task of the same function, with other options; those not given stay as they are."""
        plain = {
            "name": (name, self.name),
            "description": (description, self.description),
            "tags": (tags, self.tags),
            "version": (version, self.version),
            "cache_result_in_memory": (cache_result_in_memory, self.cache_result_in_memory),
            "on_completion": (on_completion, self.on_completion_hooks),
            "on_failure": (on_failure, self.on_failure_hooks),
            "on_running": (on_running, self.on_running_hooks),
            "on_commit": (on_commit, self.on_commit_hooks),
            "on_rollback": (on_rollback, self.on_rollback_hooks),
            "viz_return_value": (viz_return_value, self.viz_return_value),
            "asset_deps": (asset_deps, self.asset_deps),
            "idempotent": (idempotent, self.idempotent),
        }
        nullable = {
            "task_run_name": (task_run_name, self.task_run_name),
            "retries": (retries, self._held_retries(retry_deadline_seconds)),
            "retry_delay_seconds": (retry_delay_seconds, self.retry_delays),
            "retry_jitter_factor": (retry_jitter_factor, self.retry_jitter_factor),
            "retry_deadline_seconds": (retry_deadline_seconds, self.retry_deadline_seconds),
            "retry_condition_fn": (retry_condition_fn, self.retry_condition_fn),
            "cache_policy": (cache_policy, self._given["cache_policy"]),
            "cache_key_fn": (cache_key_fn, self.cache_key_fn),
            "cache_expiration": (cache_expiration, self.cache_expiration),
            "refresh_cache": (refresh_cache, self.refresh_cache),
            "persist_result": (persist_result, self._given["persist_result"]),
            "result_storage": (result_storage, self.result_storage),
            "result_storage_key": (result_storage_key, self.result_storage_key),
            "result_serializer": (result_serializer, self.result_serializer),
            "timeout_seconds": (timeout_seconds, self.timeout_seconds),
            "log_prints": (log_prints, self.log_prints),
        }
        other: Task[P, R] = self.again(self._undecorated, {**chosen(plain, None), **chosen(nullable, UNSET)})
        return other

    def _held_retries(self, deadline_seconds: Any) -> int | None:
        """The option `retries` of what `with_options` makes, when it is not given."""
        is_open = self._retries_given is None and deadline_seconds not in (UNSET, None)
        return None if is_open or self.retries == UNTIL_DEADLINE else self.retries

    def on_completion(self, fn: H) -> H:
        """Call `fn(task, task_run, state)` when a run has completed."""
        self.on_completion_hooks.append(fn)
        return fn

    def on_failure(self, fn: H) -> H:
        """Call `fn(task, task_run, state)` when a run has failed for good."""
        self.on_failure_hooks.append(fn)
        return fn

    def on_running(self, fn: H) -> H:
        """Call `fn(task, task_run, state)` at each entry into RUNNING."""
        self.on_running_hooks.append(fn)
        return fn

    def on_commit(self, fn: H) -> H:
        """Call `fn(transaction)` when the transaction of a run commits."""
        self.on_commit_hooks.append(fn)
        return fn

    def on_rollback(self, fn: H) -> H:
        """Call `fn(transaction)` when a run that has completed is undone."""
        self.on_rollback_hooks.append(fn)
        return fn


def _runner(what: str) -> Any:
    _refuse_in_sketch(what)
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError(
            f"Task.{what}() needs a running flow, whose task runner runs the task. Call it in a flow, call "
            "the task itself, or leave it to task workers: delay(), map(deferred=True)."
        )
    return context.task_runner


def _checked_flag(idempotent: Any) -> bool:
    if not isinstance(idempotent, bool):
        raise TypeError(f"'idempotent' must be True or False, not {idempotent!r}")
    return idempotent


def _refuse_in_sketch(what: str) -> None:
    if (sketch := current_sketch.get()) is not None:
        sketch.refuse(what)


def _assets(given: Iterable[str | Asset] | None) -> Sequence[Asset]:
    if not given:
        return ()
    if isinstance(given, str):
        raise TypeError(f"'asset_deps' must be a collection of assets and keys, not the string {given!r}")
    # Most programs have none.
    assets: list[Asset] = importlib.import_module("headrace.assets.schemas").assets_of(given)
    return assets


def _tag_set(tags: Iterable[str] | None) -> frozenset[str]:
    if isinstance(tags, str):
        raise TypeError(f"'tags' must be a collection of strings, not the string {tags!r}")
    return frozenset(tags or ())


def _checked_condition(condition: RetryCondition | None) -> RetryCondition | None:
    if condition is not None and not callable(condition):
        raise TypeError(
            f"Expected 'retry_condition_fn' to be callable, got {type(condition).__name__} instead."
        )
    return condition


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(fn: None = None, /, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a task of a function; used bare or with options.

    Args:
        fn: the function: plain, a coroutine function, a generator, a method, or anything callable.
        name: what people see; default: the function's name.
        description: default: the function's documentation.
        tags: every run gets them, and those of `tags()` around the call.
        version: any text.
        task_run_name: name of each run: a format string over the parameters, e.g. `"load-{day:%Y}"`, or a
            function without arguments or with one called `parameters`. Default: the task's name and three
            characters.
        retries: attempts after the first; default: setting `tasks.default_retries`, with a
            `retry_deadline_seconds` as many as it leaves time for, which -1 says, too.
        retry_delay_seconds: wait before each retry: a number, a list whose last item repeats, or a
            function such as `exponential_backoff(2)`.
        retry_jitter_factor: spread the delays: 0.5 allows up to 1.5 times the delay.
        retry_deadline_seconds: budget of time over all attempts and the waits between them, from the first
            start. No attempt begins past it, and one that runs is ended by it. The time in which the run is
            paused does not count. None: no budget.
        retry_condition_fn: asked with the task, its run and the failed state whether to retry.
        cache_policy: what makes two calls the same, e.g. `INPUTS`: see `headrace.cache_policies`. A later one
            does not run the body: it is COMPLETED, named `Cached`, with the result of the first. None and
            `NO_CACHE`: never. Default: `DEFAULT`, for tasks whose results are kept. Implies `persist_result`.
        cache_key_fn: gives each call its key: called with the task run's context and the arguments; None:
            this call is not cached. Used in place of `cache_policy`. Implies `persist_result`.
        cache_expiration: how long a result may be used again; default: always.
        refresh_cache: True: run the body in any case, and put the result in the place of what is there;
            None: as setting `tasks.refresh_cache` says.
        persist_result: True: keep the result in storage, and in the record if it is small; False: nowhere;
            None: as setting `tasks.default_persist_result` says, else as the calling run does. Where
            results are not kept, small ones are recorded all the same.
        result_storage: where the result is kept: a path, "memory", a URL such as "s3://bucket/prefix", or a
            file system. Default: as the calling run. Implies `persist_result`.
        result_storage_key: under which key: a format string over `headrace.runtime` and `parameters`, e.g.
            `"{flow_run.flow_name}/{parameters[day]:%Y-%m-%d}"`. A later run with the same key does not run
            the body: it is COMPLETED, named `Cached`, with the result found there. Implies `persist_result`.
        result_serializer: what it is written with: "pickle", "json", "compressed/pickle", or a `Serializer`.
            Implies `persist_result`.
        cache_result_in_memory: keep the result in memory, too, while the flow run lasts.
        timeout_seconds: limit of one attempt; None or 0 for none.
        log_prints: make log lines of what the body prints; None: as the calling run does.
        on_completion: hooks, called with the task, its run and the state.
        on_failure: hooks, called when the run has failed for good.
        on_running: hooks, called at each entry into RUNNING.
        on_commit: hooks, called with the transaction when it commits: see `headrace.transactions`.
        on_rollback: hooks, called with the transaction when a run that has completed is undone.
        viz_return_value: what the task gives while its flow is only drawn: see `flow.visualize`.
        asset_deps: what it depends on outside of the program, as assets or their keys: told by the events of
            the assets that it makes, or that are made from its result. See `headrace.assets`.
        idempotent: False: a run whose process was lost while the body ran is not run again, in a durable flow
            or as a background task, since nobody knows what it has done: it is FAILED, with the exception
            `LostInFlight`. Retries of attempts that have failed are not affected.

    Raises:
        ReservedArgumentError: the function has a parameter `return_state` or `wait_for`.
        TypeError: an option has the wrong type.
        ValueError: an option is out of range.
    """
    if fn is None:
        return partial(Task, **options)
    if isinstance(fn, (classmethod, staticmethod)) or callable(fn):
        return Task(cast("Any", fn), **options)
    hint = f": write @task(name={fn!r})" if isinstance(fn, str) else ""
    raise TypeError(f"task() takes a function or options by keyword, not {fn!r}{hint}.")


def __getattr__(name: str) -> Any:
    # Also found here, and loaded only by those who use it.
    if name == "task_input_hash":
        return importlib.import_module("headrace.cache_policies").task_input_hash
    if name == "MaterializingTask":
        return importlib.import_module("headrace.assets").MaterializingTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
