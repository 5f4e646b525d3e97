"""Where the code that runs now stands: in which flow run, task run, and under which tags.

Everything is kept in context variables, so `asyncio.gather`, `asyncio.to_thread` and the threads of
`submit` keep the run; a plain `threading.Thread` does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from datetime import datetime
from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from headrace.exceptions import Abort, Cancel, MissingContextError
from headrace.settings import active_profile, get_current_settings
from headrace.settings import use_profile as use_profile_settings
from headrace.upstreams import ResultOrigins

if TYPE_CHECKING:
    from headrace.assets import Asset
    from headrace.engine.api import AssetRecord, Interruptible
    from headrace.engine.gate import PauseGate
    from headrace.engine.leaving import Termination
    from headrace.engine.steps import StepBook
    from headrace.engine.transactions import TransactionNode
    from headrace.flows import Flow
    from headrace.results import ResultStore
    from headrace.runs import FlowRun, TaskRun
    from headrace.settings import Settings
    from headrace.task_runners import TaskRunner
    from headrace.tasks import Task
    from headrace.visualization import Sketch

__all__ = [
    "FlowRunContext",
    "RunContext",
    "SettingsContext",
    "TagsContext",
    "TaskRunContext",
    "current_sketch",
    "current_transaction",
    "entered_transaction",
    "get_result_store",
    "get_run_context",
    "get_settings_context",
    "hydrated_context",
    "serialize_context",
    "should_persist_result",
    "tags",
    "use_profile",
    "with_context",
]

P = ParamSpec("P")
R = TypeVar("R")

_run: ContextVar[FlowRunContext | TaskRunContext | None] = ContextVar("headrace_run", default=None)
_tags: ContextVar[TagsContext | None] = ContextVar("headrace_tags", default=None)
entered_transaction: ContextVar[TransactionNode | None] = ContextVar("headrace_transaction", default=None)
"""The innermost transaction that a `with` block has opened."""
current_sketch: ContextVar[Sketch | None] = ContextVar("headrace_sketch", default=None)
"""Where calls are only noted, because a flow is drawn and not run."""
_making_transaction = threading.RLock()
CANCEL_SECONDS = 15.0
"""How long tasks may take to end when their flow run is cancelled and nobody says how long it may take."""


def current_run() -> FlowRunContext | TaskRunContext | None:
    """The innermost run, if there is one."""
    return _run.get()


class RunContext:
    """A run whose body executes.

    Attributes:
        parent: the context of the run that called this one.
        outermost: the context of the run at the top of the tree in this process.
        log_prints: whether `print` becomes a log line of the run.
        persist_result: whether results are kept in storage; None: in the record alone, where they fit.
        limit_error: what the run's time limit raises, while one is set.
        idle_micros: how long the run was paused, or waited for a place, since it first ran.
        lost: why the run is not this process's any longer, or None; set on the outermost context.
        book: the steps of which the run is one; None: it is none.
        steps: the steps of the runs that the body calls; None: they are not told apart.
        suspended: why the run is to be left at its next task boundary, or None; set on the outermost context.
        cancelled: why the run is being cancelled, or None.
        is_cancelling: whether any run of the tree was cancelled; set on the outermost context.
        scope: what of the run can be interrupted now, or None.
        run_ids: the run and all those around it, outermost first.
    """

    __slots__ = (
        "_store",
        "_token",
        "book",
        "cancelled",
        "idle_micros",
        "is_cancelling",
        "limit_error",
        "log_prints",
        "lost",
        "outermost",
        "parent",
        "persist_result",
        "run_ids",
        "scope",
        "steps",
        "suspended",
    )

    def __init__(
        self,
        run_id: str,
        parent: FlowRunContext | TaskRunContext | None,
        log_prints: bool,
        persist_result: bool | None,
    ) -> None:
        self.parent = parent
        self.outermost: RunContext = self if parent is None else parent.outermost
        self.run_ids: tuple[str, ...] = (run_id,) if parent is None else (*parent.run_ids, run_id)
        self.log_prints = log_prints
        self.persist_result = persist_result
        self.limit_error: TimeoutError | None = None
        self.idle_micros = 0
        self.lost: str | None = None
        self._store: ResultStore | None = None
        self.suspended: str | None = None
        self.cancelled: str | None = None
        self.is_cancelling = False
        self.scope: Interruptible | None = None
        self.book: StepBook | None = None
        self.steps: StepBook | None = None if parent is None else parent.steps
        self._token: Token[FlowRunContext | TaskRunContext | None] | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("Context already entered. Context enter calls cannot be nested.")
        self._token = _run.set(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        token, self._token = self._token, None
        if token is None:
            raise RuntimeError("Asymmetric use of context. Context exit called without an enter.")
        try:
            _run.reset(token)
        except ValueError:
            # A coroutine or generator that was given up is closed by the garbage collector, in a context
            # that never saw this run.
            pass

    @property
    def enclosing_flow(self) -> FlowRunContext | None:
        """The innermost flow run: the run itself, or the one around it."""
        raise NotImplementedError

    def take_id(self, run_id: str) -> None:
        """The run has got another id: it is one that is on record already, or is not after all."""
        self.run_ids = (*self.run_ids[:-1], run_id)

    @property
    def result_store(self) -> ResultStore:
        """Where results of this run are kept: as its options say, else as those of the calling run."""
        if self._store is None:
            if self.parent is None:
                from headrace.results import ResultStore

                self._store = self._own_store(ResultStore())
            else:
                self._store = self._own_store(self.parent.result_store)
        return self._store

    def _own_store(self, store: ResultStore) -> ResultStore:
        raise NotImplementedError

    def check_ownership(self) -> None:
        """See that the run is still this process's.

        Raises:
            Abort: it is not: nothing more may be written.
        """
        if self.outermost.lost is not None:
            raise Abort(self.outermost.lost)

    def cancel(self, reason: str) -> None:
        """End the run before its body does: interrupt what runs, and begin nothing more below it.

        From any thread, at once; whoever executes the run has it recorded.
        """
        self.cancelled = self.cancelled or reason or "The run was cancelled."
        self.outermost.is_cancelling = True
        if self.scope is not None:
            self.scope.interrupt()

    def cancel_reason(self) -> str | None:
        """Why the run ends before its body does; None: it does not."""
        context: RunContext | None = self
        while context is not None and context.cancelled is None:
            context = context.parent
        if context is None:
            return None
        return context.cancelled if context is self else "The run above it was cancelled."

    def check_cancelled(self) -> None:
        """See that neither the run nor one around it is being cancelled.

        Raises:
            Cancel: one is.
        """
        if self.outermost.is_cancelling and (reason := self.cancel_reason()) is not None:
            raise Cancel(reason)

    def is_ended_by_outer_limit(self, error: BaseException) -> bool:
        """Whether `error` comes from the time limit of a run around this one."""
        context = self.parent
        while context is not None:
            if context.limit_error is not None and context.limit_error is error:
                return True
            context = context.parent
        return False


class FlowRunContext(RunContext):
    """The flow run whose body executes.

    Attributes:
        flow: the flow.
        flow_run: the run.
        parameters: what the body was called with; the raw arguments until they are validated.
        origins: which run made a value, for the results of this run's children.
        gate: what holds its tasks back while it is paused.
        lineage: the assets that results of this run's children were made from, by run id; None: there are
            no assets here.
        earlier_version: the version of the flow that is on record of the run; None: there is none.
        kept_subflows: the subflow runs that a retry of this run need not run again; None: all are run again.
        pauses: numbers the pauses of one attempt.
        own_pause: id of the state of the newest pause that the body has asked for.
        on_termination: what becomes of the run when the process is asked to end.
        cancel_seconds: how long what runs below it is waited for when it is being cancelled.
    """

    __slots__ = (
        "_counts",
        "_ending_runner",
        "_lock",
        "_next_key",
        "_runner",
        "cancel_seconds",
        "earlier_version",
        "flow",
        "flow_run",
        "gate",
        "kept_subflows",
        "lineage",
        "on_termination",
        "origins",
        "own_pause",
        "parameters",
        "pauses",
    )

    def __init__(
        self,
        flow: Flow[..., Any],
        flow_run: FlowRun,
        parameters: Mapping[str, Any],
        *,
        parent: FlowRunContext | TaskRunContext | None = None,
        log_prints: bool = False,
        persist_result: bool | None = None,
    ) -> None:
        super().__init__(flow_run.id, parent, log_prints, persist_result)
        self.flow = flow
        self.flow_run = flow_run
        self.parameters = parameters
        self.origins = ResultOrigins()
        self.gate: PauseGate | None = None
        self.kept_subflows: StepBook | None = None
        self.earlier_version: str | None = None
        self.lineage: dict[str, Sequence[Asset]] | None = None
        self.pauses = count(1)
        self.own_pause = ""
        self.on_termination: Termination = "crash"
        self.cancel_seconds = CANCEL_SECONDS
        self._counts: dict[str, count[int]] = {}
        self._lock = threading.Lock()
        self._runner: TaskRunner[Any] | None = None
        self._ending_runner: TaskRunner[Any] | None = None
        self._next_key: Callable[[str], str] | None = None

    @classmethod
    def get(cls) -> FlowRunContext | None:
        """The innermost flow run, also from inside a task; None outside of flows."""
        context = _run.get()
        while type(context) is TaskRunContext:
            context = context.parent
        return context  # type: ignore[return-value]

    def _own_store(self, store: ResultStore) -> ResultStore:
        return store.update_for_flow(self.flow)

    @property
    def run(self) -> FlowRun:
        """The flow run, by the name that both kinds of contexts have."""
        return self.flow_run

    @property
    def code_key(self) -> str:
        """By what the code of the run is recognised."""
        return self.flow.name

    @property
    def has_other_code(self) -> bool:
        """Whether the body was entered before with another version; asked before it is entered."""
        before = self.earlier_version
        return bool(before and before != self.flow_run.flow_version and self.flow_run.run_count)

    @property
    def enclosing_flow(self) -> FlowRunContext:
        return self

    @property
    def start_time(self) -> datetime | None:
        """When the run first entered RUNNING."""
        return self.flow_run.start_time

    @property
    def task_runner(self) -> TaskRunner[Any]:
        """The run's own task runner, started by the first use.

        A task that still runs while the flow ends submits to the runner that it runs on.
        """
        with self._lock:
            if self._ending_runner is not None and self._ending_runner.is_own_thread():
                return self._ending_runner
            if self._runner is None:
                runner = self.flow.task_runner.duplicate()
                runner.__enter__()
                self._runner = runner
            return self._runner

    def cancel(self, reason: str) -> None:
        # What it has submitted first: the body may be waiting for that where it cannot be interrupted.
        self.cancelled = reason or "The run was cancelled."
        self.outermost.is_cancelling = True
        runner = self._runner or self._ending_runner
        if runner is not None:
            runner.interrupt_all(self.cancel_seconds)
        super().cancel(reason)

    def use_runner(self, runner: TaskRunner[Any], next_key: Callable[[str], str]) -> None:
        """Be the stand-in of a flow run whose body runs in another process.

        Args:
            runner: runs what is submitted here; whoever has started it ends it.
            next_key: tells the calls of one task apart, in all processes.
        """
        self._runner = runner
        self._next_key = next_key

    def take_runner(self) -> TaskRunner[Any] | None:
        """Hand over the task runner to whoever ends it; None when it was never used."""
        with self._lock:
            runner, self._runner = self._runner, None
            self._ending_runner = runner
            return runner

    def next_key(self, key: str) -> str:
        """How many calls with this key there were before, as text."""
        counter = self._counts.get(key)
        if counter is None:
            if self._next_key is not None:
                return self._next_key(key)
            counter = self._counts.setdefault(key, count())
        return str(next(counter))


class TaskRunContext(RunContext):
    """The task run whose body executes.

    Attributes:
        task: the task.
        task_run: the run.
        parameters: what the body is called with; the raw arguments until they are resolved.
        flow_context: the innermost flow run around it, or None.
        hand_over: called with what the body returned, when that has to leave this process; None: it stays.
            What it raises is a failure of the body.
        transaction: the run's own, once anything has asked for it.
        earlier_count: what the run's `run_count` was when this process took it up.
        assets: what the run makes of assets; None: there are none here.
    """

    __slots__ = (
        "assets",
        "earlier_count",
        "flow_context",
        "hand_over",
        "parameters",
        "task",
        "task_run",
        "transaction",
    )

    def __init__(
        self,
        task: Task[..., Any],
        task_run: TaskRun,
        parameters: Mapping[str, Any],
        *,
        parent: FlowRunContext | TaskRunContext | None = None,
        flow_context: FlowRunContext | None = None,
        log_prints: bool = False,
        persist_result: bool | None = None,
    ) -> None:
        super().__init__(task_run.id, parent, log_prints, persist_result)
        self.task = task
        self.task_run = task_run
        self.parameters = parameters
        self.flow_context = flow_context
        self.transaction: TransactionNode | None = None
        self.hand_over: Callable[[Any], None] | None = None
        self.assets: AssetRecord | None = None
        self.earlier_count = task_run.run_count

    @classmethod
    def get(cls) -> TaskRunContext | None:
        """The innermost task run, also from inside a subflow that it called; None outside of tasks."""
        context = _run.get()
        while type(context) is FlowRunContext:
            context = context.parent
        return context  # type: ignore[return-value]

    @property
    def tries(self) -> int:
        """How often this process has entered the body."""
        return self.task_run.run_count - self.earlier_count

    def own_transaction(self) -> TransactionNode:
        """The transaction of the run, a child of the one around the call."""
        with _making_transaction:
            if self.transaction is None:
                from headrace.engine.transactions import TransactionNode, TransactionState

                self.transaction = TransactionNode(parent=self._transaction_around())
                self.transaction.state = TransactionState.ACTIVE
            return self.transaction

    def _transaction_around(self) -> TransactionNode | None:
        caller = self.parent
        while type(caller) is FlowRunContext:
            caller = caller.parent
        entered = entered_transaction.get()
        if type(caller) is not TaskRunContext or (entered is not None and entered.owner is caller):
            return entered
        return caller.own_transaction()

    def is_in_transaction(self) -> bool:
        """Whether a failure of the run rolls back what was done before it."""
        if entered_transaction.get() is not None:
            return True
        caller = self.parent
        while caller is not None:
            if type(caller) is TaskRunContext and caller.transaction is not None:
                return True
            caller = caller.parent
        return False

    def _own_store(self, store: ResultStore) -> ResultStore:
        return store.update_for_task(self.task)

    @property
    def run(self) -> TaskRun:
        """The task run, by the name that both kinds of contexts have."""
        return self.task_run

    @property
    def code_key(self) -> str:
        """By what the code of the run is recognised."""
        return self.task.task_key

    @property
    def enclosing_flow(self) -> FlowRunContext | None:
        return self.flow_context

    def take_id(self, run_id: str) -> None:
        super().take_id(run_id)
        self.earlier_count = self.task_run.run_count

    @property
    def start_time(self) -> datetime | None:
        """When the run first entered RUNNING."""
        return self.task_run.start_time


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost flow or task run.

    Raises:
        MissingContextError: no flow or task runs here.
    """
    context = _run.get()
    if context is None:
        raise MissingContextError("No run context available. You are not in a flow or task run context.")
    return context


def current_transaction() -> TransactionNode | None:
    """The innermost transaction: in a task that of its run, unless the body has opened another."""
    entered, context = entered_transaction.get(), TaskRunContext.get()
    if context is None or (entered is not None and entered.owner is context):
        return entered
    return context.own_transaction()


def get_result_store() -> ResultStore:
    """The store of the current flow or task run; outside of runs, the one that settings say.

    Raises:
        ConfigurationError: there is no such storage.
    """
    context = _run.get()
    if context is not None:
        return context.result_store
    from headrace.results import ResultStore

    return ResultStore()


def should_persist_result() -> bool:
    """Whether results of tasks that do not say so themselves are kept in storage, here."""
    context = _run.get()
    if context is None:
        return get_current_settings().results_persist_by_default
    return bool(context.persist_result)


class SettingsContext:
    """The settings that are in force here.

    Attributes:
        settings: their values.
        profile: name of the active profile.
    """

    __slots__ = ("profile", "settings")

    def __init__(self, settings: Settings, profile: str) -> None:
        self.settings = settings
        self.profile = profile

    @classmethod
    def get(cls) -> SettingsContext:
        """The settings in force; there always are some."""
        return cls(get_current_settings(), active_profile())


def get_settings_context() -> SettingsContext:
    """The settings that are in force here."""
    return SettingsContext.get()


@contextmanager
def use_profile(profile: str) -> Generator[SettingsContext]:
    """The settings with another profile active, while inside.

    Raises:
        MissingProfileError: there is no such profile.
    """
    with use_profile_settings(profile):
        yield SettingsContext.get()


class TagsContext:
    """The tags that runs started here get.

    Attributes:
        current_tags: all of them, those of the contexts around it included.
    """

    __slots__ = ("current_tags",)

    def __init__(self, current_tags: frozenset[str] = frozenset()) -> None:
        self.current_tags = current_tags

    @classmethod
    def get(cls) -> TagsContext:
        """The tags in force; an empty set of them outside of every `tags()`."""
        return _tags.get() or _NO_TAGS


_NO_TAGS = TagsContext()


@contextmanager
def tags(*new_tags: str) -> Generator[set[str]]:
    """Add tags to every flow and task run that starts inside.

        with tags("nightly", "eu"):
            load()

    Yields:
        All tags in force, those of outer `tags()` included.
    """
    united = TagsContext(TagsContext.get().current_tags.union(new_tags))
    token = _tags.set(united)
    try:
        yield set(united.current_tags)
    finally:
        _tags.reset(token)


def with_context(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, to be called in the run, and under the tags, in which `with_context` is called.

    For threads that the program starts itself: `executor.submit(with_context(work), item)`. It may be called
    in several threads at once; context variables that it sets do not reach anybody else.
    """
    here = copy_context()

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return here.copy().run(fn, *args, **kwargs)

    return call


def serialize_context() -> dict[str, Any]:
    """What `hydrated_context` needs to put a call in another process where this one stands.

    It holds the runs around, the tags, the settings and the trace, and can be pickled. Arguments of those
    runs that cannot be pickled are left out of it; so are context variables of the program.
    """
    from headrace.context_transfer import serialized

    return serialized()


@contextmanager
def hydrated_context(serialized_context: Mapping[str, Any] | None = None) -> Generator[None]:
    """Stand, while inside, where `serialize_context` was called; nothing changes for None.

        def work(context: dict[str, Any], item: str) -> None:   # in another process
            with hydrated_context(context):
                load(item)

    Runs that are called inside belong to the tree of runs of the other process, and are recorded by this one.
    """
    if serialized_context is None:
        yield
        return
    from headrace.context_transfer import entered

    token = _tags.set(TagsContext(frozenset(serialized_context["tags"])))
    try:
        with entered(serialized_context):
            yield
    finally:
        _tags.reset(token)
