"""What the engine asks of the world it runs in.

There are two implementations, in `headrace.execution`: one blocks, for `def`, one suspends, for
`async def`. The entry points that choose between them (`begin_task_run`, `run_task_sync`, `run_task_async`,
`cancel_task_run`, `run_flow_sync`, `run_flow_async`) are in `headrace.execution.api`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from headrace.assets import Asset
    from headrace.context import RunContext
    from headrace.core.verdicts import Verdict
    from headrace.results import ResultStore
    from headrace.runs import FlowRun, TaskRun
    from headrace.states import State
    from headrace.task_runners import TaskRunner

__all__ = ["AssetRecord", "Interruptible", "LimitPassed", "Ops", "Upstream"]


class LimitPassed(BaseException):
    """Stands for the error of a time limit where that itself cannot be raised.

    Attributes:
        error: what it stands for.
    """

    error: ClassVar[TimeoutError]


class Interruptible(Protocol):
    """What can be ended from another thread."""

    def interrupt(self) -> None:
        """End it, at once if it can be."""
        ...


class AssetRecord(Protocol):
    """What a task run makes of assets."""

    upstream: Sequence[Asset] | None
    """What it was given results of; None: that is not known yet."""

    def begin(self, run: TaskRun) -> None:
        """An attempt begins: the inputs of the run are known."""
        ...

    def add_metadata(self, key: str, metadata: Mapping[str, Any]) -> bool:
        """Keep metadata for the event of an asset; gives whether the run makes that one."""
        ...

    def ended(self, state: State[Any]) -> None:
        """The run has ended; it never raises."""
        ...


class Upstream(Protocol):
    """A run whose end somebody waits for: what every future offers to the engine."""

    @property
    def task_run_id(self) -> str:
        """The run."""
        ...

    @property
    def state(self) -> State[Any]:
        """Its newest state."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Block until the run has ended, or for `timeout` seconds."""
        ...

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None:
        """Call `fn` with the future when the run has ended, at once if it has; from any thread."""
        ...


class Ops(Protocol):
    """Time, waiting, recording and calling, as one kind of function can do them.

    The `async` methods of the blocking kind never suspend.

    """

    @property
    def streams(self) -> bool:
        """Whether what generators yield is handed on one by one, so that they have no result."""
        ...

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def record_run(self, run: FlowRun | TaskRun, *states: State[Any]) -> None:
        """Record a new run, the first of `states` with it, and the other states after it.

        When it returns, a kill of the process does not lose them.
        """
        ...

    def update_run(self, run: FlowRun | TaskRun) -> None:
        """Record that the name, parameters or inputs of a run have changed."""
        ...

    def record(self, run: FlowRun | TaskRun, *states: State[Any]) -> None:
        """Record that `run` has entered each of `states`, in this order."""
        ...

    async def propose(self, run: FlowRun | TaskRun, state: State[Any]) -> Verdict[State[Any]]:
        """Record `state` and wait for the server's verdict; Accept where no server is in reach."""
        ...

    def is_termination(self, error: BaseException) -> bool:
        """Whether the process was asked to end (SIGTERM)."""
        ...

    async def settle(self, run: FlowRun | TaskRun) -> None:
        """Wait until everything recorded so far is safe."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def wait(self, upstreams: Iterable[Upstream]) -> None:
        """Wait until every one has ended."""
        ...

    async def leave(self, runner: TaskRunner[Any], error: BaseException | None) -> None:
        """End a task runner: what runs is waited for, what is queued is cancelled."""
        ...

    async def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a hook, a condition or a name function of the user, plain or async, to its end."""
        ...

    async def offload(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call what reads or writes files or asks the network, so that nobody else has to wait for it."""
        ...

    async def lock(self, store: ResultStore, key: str, holder: str) -> None:
        """Lock the key of a result, however long it takes.

        Raises:
            ConfigurationError: nothing locks keys there.
        """
        ...

    async def finish(self, awaitable: Any) -> Any:
        """The result of an awaitable that a body returned."""
        ...

    async def drain(self, generator: Any) -> list[Any]:
        """Everything that a generator or async generator still yields."""
        ...

    def limit(
        self, seconds: float, error: TimeoutError, passed: Callable[[], object] | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Interrupt what runs inside once `seconds` have passed, and raise `error`, or a `LimitPassed` of it.

        It is raised also when the inside ran to its end in spite of the interruption.

        Args:
            seconds: how long the inside may run.
            error: what is raised.
            passed: called when the time is up, from another thread, where the inside cannot be interrupted
                at once; not called where it can.
        """
        ...

    def interruptible(self, context: RunContext) -> AbstractAsyncContextManager[None]:
        """While inside, the run of `context` can be cancelled, by the server too: `Cancel` is raised here."""
        ...

    def is_interruption(self, error: BaseException) -> bool:
        """Whether `error` is how code is made to end that waits, when that was wanted."""
        ...

    def crash_message(self, error: BaseException) -> str:
        """The sentence that says by what an execution was ended, e.g. "aborted by an interrupt signal"."""
        ...
