"""Flows: functions whose calls are recorded as flow runs, with everything that they call.

@flow(retries=1, log_prints=True)
def nightly(day: date) -> int: ...
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, get_args, overload

from headrace.annotations import exact_types
from headrace.context import current_sketch
from headrace.core.budget import RETRIES_MAX, UNTIL_DEADLINE
from headrace.decorated import (
    UNSET,
    Decorated,
    Hook,
    RunName,
    callable_name,
    check_name,
    checked_run_name,
    chosen,
    code_of,
    count_of_retries,
    hook_list,
    positive_timeout,
    retry_deadline,
)
from headrace.deployable import Deployable
from headrace.drawable import Drawable
from headrace.entrypoints import load_flow_from_entrypoint
from headrace.result_options import (
    ResultSerializer,
    ResultStorage,
    checked_serializer,
    checked_storage,
    implied,
)
from headrace.runs import RunPolicy
from headrace.settings import get_current_settings
from headrace.utilities.typevars import TypeVar as DefaultTypeVar

if TYPE_CHECKING:
    from headrace.deployments.sources import Source
    from headrace.runner import aserve, serve
    from headrace.states import State
    from headrace.task_runners import TaskRunner
    from headrace.validation import Validator

__all__ = ["Flow", "aserve", "flow", "load_flow_from_entrypoint", "serve"]

P = ParamSpec("P")
R = DefaultTypeVar("R", default=Any, covariant=True)
H = TypeVar("H", bound=Hook)
T = TypeVar("T")

OnCodeChange = Literal["resume", "restart", "fail"]
"""What becomes of a run that is taken up again with other code than before."""


class Flow(Deployable, Drawable, Decorated[P, R]):
    """A function whose calls are recorded as flow runs.

    Made by the `flow` decorator, whose arguments are described there.

    Attributes:
        fn: the function itself; calling it makes no run.
        name: what people see.
        isasync: whether it has to be awaited.
        isgenerator: whether it yields values.
        should_validate_parameters: whether arguments are checked against the annotations.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        version: str | None = None,
        flow_run_name: RunName | None = None,
        retries: int | None = None,
        retry_delay_seconds: float | None = None,
        retry_deadline_seconds: float | None = None,
        task_runner: TaskRunner[Any] | type[TaskRunner[Any]] | None = None,
        description: str | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        result_storage: ResultStorage | None = None,
        result_serializer: ResultSerializer | None = None,
        cache_result_in_memory: bool = True,
        log_prints: bool | None = None,
        durable: bool | None = None,
        on_code_change: OnCodeChange = "resume",
        on_completion: list[Hook] | None = None,
        on_failure: list[Hook] | None = None,
        on_cancellation: list[Hook] | None = None,
        on_crashed: list[Hook] | None = None,
        on_running: list[Hook] | None = None,
    ) -> None:
        self._adopt(fn)
        settings = get_current_settings()
        self.name = check_name(name or _default_name(self.fn))
        self._version = version
        self.flow_run_name = checked_run_name("flow_run_name", flow_run_name)
        self.retry_deadline_seconds = retry_deadline(retry_deadline_seconds)
        self._retries_given = retries
        self.retries = count_of_retries(retries, settings.flows_default_retries, self.retry_deadline_seconds)
        if retry_delay_seconds is None:
            retry_delay_seconds = settings.flows_default_retry_delay_seconds
        self.retry_delay_seconds = _seconds(retry_delay_seconds)
        self._task_runner = task_runner() if isinstance(task_runner, type) else task_runner
        self.description = description or inspect.getdoc(self.fn)
        self.timeout_seconds = positive_timeout(timeout_seconds)
        self.should_validate_parameters = validate_parameters
        self.result_storage = checked_storage(result_storage)
        self.result_serializer = checked_serializer(result_serializer)
        self.cache_result_in_memory = cache_result_in_memory
        self._persist_given = persist_result
        self.persist_result = implied(persist_result, result_storage, result_serializer)
        self.log_prints = log_prints
        self.durable = _flag("durable", durable)
        self.on_code_change = _checked_code_change(on_code_change)
        self.on_completion_hooks = hook_list("on_completion", on_completion, "flow")
        self.on_failure_hooks = hook_list("on_failure", on_failure, "flow")
        self.on_cancellation_hooks = hook_list("on_cancellation", on_cancellation, "flow")
        self.on_crashed_hooks = hook_list("on_crashed", on_crashed, "flow")
        self.on_running_hooks = hook_list("on_running", on_running, "flow")
        self.policy: RunPolicy | None = None
        if self.retries or self.timeout_seconds or self.retry_deadline_seconds or self.durable:
            delays = (self.retry_delay_seconds,) if self.retry_delay_seconds else ()
            self.policy = RunPolicy(
                self.retry_limit,
                delays,
                timeout_seconds=self.timeout_seconds,
                deadline_seconds=self.retry_deadline_seconds,
                is_durable=bool(self.durable),
            )
        self._exact_types: Mapping[str, type] | None = UNSET
        self._validator: Validator | None = None

    @property
    def retry_limit(self) -> int:
        """How many retries there may be at most: `retries`, or as good as no limit up to the deadline."""
        return RETRIES_MAX if self.retries == UNTIL_DEADLINE else self.retries

    @property
    def version(self) -> str | None:
        """What was given, else a hash of the file that the function stands in, else None."""
        if self._version is None:
            code = code_of(self.fn)
            return _file_hash(code.co_filename) if code else None
        return self._version

    @property
    def task_runner(self) -> TaskRunner[Any]:
        """What runs the submitted tasks; each run of the flow uses a duplicate of its own."""
        if self._task_runner is None:
            from headrace.task_runners import ThreadPoolTaskRunner

            self._task_runner = ThreadPoolTaskRunner()
        return self._task_runner

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the parameters; a type that has none accepts anything."""
        return self._own_validator().schema()

    def validate_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the body receives them: checked against the annotations, and coerced.

        Args:
            parameters: all of them, by parameter name.

        Raises:
            ParameterTypeError: some do not fit; it names each one.
        """
        # Looked at by the first call, when all names that annotations refer to exist.
        if self._exact_types is UNSET:
            self._exact_types = exact_types(self.fn, self.binder.signature)
        exact = self._exact_types
        if exact is not None and all(type(parameters.get(name)) is exact[name] for name in exact):
            return dict(parameters)
        return self._own_validator().validate(parameters)

    def _own_validator(self) -> Validator:
        if self._validator is None:
            from headrace.validation import Validator

            self._validator = Validator(self.fn, self.binder.signature)
        return self._validator

    # The overlap that is ignored: what a coroutine function returns could be any T, too.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self: Flow[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self: Flow[..., T], *args: Any, return_state: Literal[True], wait_for: Any = None, **kwargs: Any
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
        """Run the flow here and now; a coroutine function must be awaited.

        Called in a flow or task, it makes a subflow run.

        Args:
            return_state: give the final state of the run; nothing is raised for a run that failed.
            wait_for: futures and states that must complete first, in any collection.

        Raises:
            ParameterBindError: the arguments do not fit; no run is made.
            ParameterTypeError: a value does not fit its annotation; the run is FAILED.
            UpstreamTaskError: something that the flow depends on did not complete.
            Exception: what the body raised.
        """
        from headrace.execution import api

        parameters = self.binder.bind(args, kwargs)
        if (sketch := current_sketch.get()) is not None:
            return sketch.call(self, parameters, return_state, wait_for)
        if self.isgenerator:
            return api.iterate_flow(self, parameters, return_state, wait_for)
        if self.isasync:
            return api.call_flow_async(self, parameters, return_state, wait_for)
        return api.call_flow(self, parameters, return_state, wait_for)

    def with_options(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        flow_run_name: RunName | None = UNSET,
        retries: int | None = UNSET,
        retry_delay_seconds: float | None = UNSET,
        retry_deadline_seconds: float | None = UNSET,
        task_runner: TaskRunner[Any] | type[TaskRunner[Any]] | None = None,
        description: str | None = None,
        timeout_seconds: float | None = UNSET,
        validate_parameters: bool | None = None,
        persist_result: bool | None = UNSET,
        result_storage: ResultStorage | None = UNSET,
        result_serializer: ResultSerializer | None = UNSET,
        cache_result_in_memory: bool | None = None,
        log_prints: bool | None = UNSET,
        durable: bool | None = UNSET,
        on_code_change: OnCodeChange | None = None,
        on_completion: list[Hook] | None = None,
        on_failure: list[Hook] | None = None,
        on_cancellation: list[Hook] | None = None,
        on_crashed: list[Hook] | None = None,
        on_running: list[Hook] | None = None,
    ) -> Flow[P, R]:
        """A new flow of the same function, with other options; those not given stay as they are."""
        plain = {
            "name": (name, self.name),
            "version": (version, self._version),
            "task_runner": (task_runner, self._task_runner),
            "description": (description, self.description),
            "validate_parameters": (validate_parameters, self.should_validate_parameters),
            "cache_result_in_memory": (cache_result_in_memory, self.cache_result_in_memory),
            "on_code_change": (on_code_change, self.on_code_change),
            "on_completion": (on_completion, self.on_completion_hooks),
            "on_failure": (on_failure, self.on_failure_hooks),
            "on_cancellation": (on_cancellation, self.on_cancellation_hooks),
            "on_crashed": (on_crashed, self.on_crashed_hooks),
            "on_running": (on_running, self.on_running_hooks),
        }
        nullable = {
            "flow_run_name": (flow_run_name, self.flow_run_name),
            "retries": (retries, self._held_retries(retry_deadline_seconds)),
            "retry_delay_seconds": (retry_delay_seconds, self.retry_delay_seconds),
            "retry_deadline_seconds": (retry_deadline_seconds, self.retry_deadline_seconds),
            "timeout_seconds": (timeout_seconds, self.timeout_seconds),
            "persist_result": (persist_result, self._persist_given),
            "result_storage": (result_storage, self.result_storage),
            "result_serializer": (result_serializer, self.result_serializer),
            "log_prints": (log_prints, self.log_prints),
            "durable": (durable, self.durable),
        }
        other = Flow[P, R](self._undecorated, **chosen(plain, None), **chosen(nullable, UNSET))
        other.source = self.source
        return other

    def _held_retries(self, deadline_seconds: Any) -> int | None:
        """The option `retries` of what `with_options` makes, when it is not given."""
        is_open = self._retries_given is None and deadline_seconds not in (UNSET, None)
        return None if is_open or self.retries == UNTIL_DEADLINE else self.retries

    def on_completion(self, fn: H) -> H:
        """Call `fn(flow, flow_run, state)` when a run has completed."""
        self.on_completion_hooks.append(fn)
        return fn

    def on_failure(self, fn: H) -> H:
        """Call `fn(flow, flow_run, state)` when a run has failed for good."""
        self.on_failure_hooks.append(fn)
        return fn

    def on_cancellation(self, fn: H) -> H:
        """Call `fn(flow, flow_run, state)` when a run is being cancelled."""
        self.on_cancellation_hooks.append(fn)
        return fn

    def on_crashed(self, fn: H) -> H:
        """Call `fn(flow, flow_run, state)` when a run has crashed."""
        self.on_crashed_hooks.append(fn)
        return fn

    def on_running(self, fn: H) -> H:
        """Call `fn(flow, flow_run, state)` at each entry into RUNNING."""
        self.on_running_hooks.append(fn)
        return fn


def _default_name(fn: Callable[..., Any]) -> str:
    name = callable_name(fn)
    return "unknown-lambda" if name == "<lambda>" else name.replace("_", "-")


@lru_cache(maxsize=256)
def _file_hash(path: str) -> str | None:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def _flag(option: str, value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"'{option}' must be True, False or None, not {value!r}")
    return value


def _checked_code_change(choice: Any) -> OnCodeChange:
    if choice not in get_args(OnCodeChange):
        raise ValueError(f"'on_code_change' must be 'resume', 'restart' or 'fail', not {choice!r}")
    return cast("OnCodeChange", choice)


def _seconds(delay: Any) -> float:
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(
            f"'retry_delay_seconds' of a flow must be a number of seconds, not {delay!r}: lists are for tasks"
        )
    if delay < 0:
        raise ValueError(f"'retry_delay_seconds' must not be negative, got {delay!r}")
    return delay


class FlowDecorator:
    """The type of `flow`."""

    @overload
    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...
    @overload
    def __call__(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        flow_run_name: RunName | None = None,
        retries: int | None = None,
        retry_delay_seconds: float | None = None,
        retry_deadline_seconds: float | None = None,
        task_runner: TaskRunner[Any] | type[TaskRunner[Any]] | None = None,
        description: str | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        result_storage: ResultStorage | None = None,
        result_serializer: ResultSerializer | None = None,
        cache_result_in_memory: bool = True,
        log_prints: bool | None = None,
        durable: bool | None = None,
        on_code_change: OnCodeChange = "resume",
        on_completion: list[Hook] | None = None,
        on_failure: list[Hook] | None = None,
        on_cancellation: list[Hook] | None = None,
        on_crashed: list[Hook] | None = None,
        on_running: list[Hook] | None = None,
    ) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
    def __call__(self, fn: Any = None, /, **options: Any) -> Any:
        """Make a flow of a function; used bare or with options.

        Args:
            fn: the function: plain, a coroutine function, a generator, a method, or anything callable.
            name: what people see; default: the function's name with dashes.
            version: any text; default: a hash of the source file.
            flow_run_name: name of each run: a format string over the parameters, or a function without
                arguments or with one called `parameters`. Default: two random words.
            retries: attempts after the first; default: setting `flows.default_retries`, with a
                `retry_deadline_seconds` as many as it leaves time for, which -1 says, too.
            retry_delay_seconds: wait before each retry, one number.
            retry_deadline_seconds: budget of time over all attempts and the waits between them, from the
                first start. No attempt begins past it, and one that runs is ended by it. The time in which
                the run is paused does not count. None: no budget.
            task_runner: runs what is submitted; default: `ThreadPoolTaskRunner()`.
            description: default: the function's documentation.
            timeout_seconds: limit of one attempt; None or 0 for none.
            validate_parameters: check arguments against the annotations, and coerce them, as pydantic does.
            persist_result: True: keep the result in storage, and in the record if it is small; False:
                nowhere; None: as the calling run does, at the top as setting `results.persist_by_default`
                says. Where results are not kept, small ones are recorded all the same.
            result_storage: where results of this flow, and of what it calls, are kept: a path, "memory", a
                URL such as "s3://bucket/prefix", or a file system. Implies `persist_result`.
            result_serializer: what they are written with: "pickle", "json", "compressed/pickle", or a
                `Serializer`. Implies `persist_result`.
            cache_result_in_memory: keep results in memory, too, while the run lasts.
            log_prints: make log lines of what the body prints; None: as the calling run does.
            durable: True: when the body is run again (by a retry, after a crash, after a suspension),
                tasks and subflows that have completed are not: they give the results on record.
                None: as the calling flow run, at the top as setting `flows.default_durable` says.
            on_code_change: what becomes of a run that is taken up again, by another process or after a
                suspension, with another `version` of the flow than before. "resume": it goes on, and steps
                that have changed run again; "restart": it begins anew, and all of them run; "fail": it is
                FAILED, with the exception `CodeChanged`. The log tells in any case.
            on_completion: hooks, called with the flow, its run and the state.
            on_failure: hooks, called when the run has failed for good.
            on_cancellation: hooks, called when the run is being cancelled.
            on_crashed: hooks, called when the run has crashed.
            on_running: hooks, called at each entry into RUNNING.

        Raises:
            InvalidNameError: the name holds one of `/ % & > <`.
            ReservedArgumentError: the function has a parameter `return_state` or `wait_for`.
            TypeError: an option has the wrong type.
            ValueError: an option is out of range.
        """
        if fn is None:
            return partial(Flow, **options)
        if isinstance(fn, (classmethod, staticmethod)) or callable(fn):
            return Flow(cast("Any", fn), **options)
        hint = f": write @flow(name={fn!r})" if isinstance(fn, str) else ""
        raise TypeError(f"flow() takes a function or options by keyword, not {fn!r}{hint}.")

    @staticmethod
    def from_source(source: Source, entrypoint: str) -> Flow[..., Any]:
        """A flow whose code is elsewhere; see `Flow.from_source`."""
        return Flow.from_source(source, entrypoint)

    @staticmethod
    async def afrom_source(source: Source, entrypoint: str) -> Flow[..., Any]:
        """`from_source`, for code on an event loop."""
        return await Flow.afrom_source(source, entrypoint)


flow: Final = FlowDecorator()


def __getattr__(name: str) -> Any:
    # Also found here, and loaded only by those who use it.
    if name in {"aserve", "serve"}:
        return getattr(import_module("headrace.runner"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
