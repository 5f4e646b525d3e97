"""What the rules may know: loaded before they run, never asked for by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headrace_services.domain.books import Books
from headrace_services.domain.effects import Effect, ResetRunCount, RetryType
from headrace_services.domain.states import StateValue

__all__ = ["CacheFacts", "Context", "FlowFacts", "LimitFacts", "RunFacts"]


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """One concurrency limit that concerns the run.

    Attributes:
        name: of the limit.
        slots: how many there are; 0 lets nobody in.
        taken: how many other runs hold.
        holds: this run holds one.
        is_enabled: a disabled limit is no limit.
        cancels_new: a run that finds it full is cancelled instead of queued.
        wait_seconds: how long a queued run waits before it asks again.
        mean_occupancy_seconds: how long a slot is held on average.
    """

    name: str
    slots: int
    taken: int = 0
    holds: bool = False
    is_enabled: bool = True
    cancels_new: bool = False
    wait_seconds: float = 30.0
    mean_occupancy_seconds: float = 10.0

    @property
    def is_full(self) -> bool:
        """No slot is left for one more."""
        return self.taken >= self.slots


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What the cache says of a task run that wants to run.

    Attributes:
        hit: the newest unexpired record of the run's cache key.
        refresh: the author wants it computed again.
    """

    hit: StateValue | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """The flow run in which a task run is called.

    Attributes:
        state: its current state; None before the first.
        run_count: its entries into RUNNING.
    """

    state: StateValue | None
    run_count: int = 0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run's row, as far as rules ask.

    Attributes:
        kind: flow run or task run.
        books: times and counts.
        max_retries: tries after the first.
        retry_delay: of the next try, microseconds, jitter included.
        retry_deadline: no try begins at or after it, microseconds; None: no deadline.
        retry_type: who runs the next try.
        pause_keys: keys that have fired.
        has_deployment: it can be run again elsewhere.
        is_dispatched: workers are handed it.
        is_deployment_deleted: the deployment it was made by is gone.
        has_parent: it is a subflow run, or a task run within a run.
        is_held: a live process holds it.
        is_background: a task run that is queued, not run by its parent.
        seen_in_flow_run_count: the try of its flow run in which a task run was entered last.
    """

    kind: Literal["flow", "task"]
    books: Books = field(default_factory=Books)
    max_retries: int = 0
    retry_delay: int = 0
    retry_deadline: int | None = None
    retry_type: RetryType = RetryType.NONE
    pause_keys: frozenset[str] = frozenset()
    has_deployment: bool = False
    is_dispatched: bool = False
    is_deployment_deleted: bool = False
    has_parent: bool = False
    is_held: bool = False
    is_background: bool = False
    seen_in_flow_run_count: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """One proposal with everything that bears on it.

    Attributes:
        run: the run.
        current: its state; None before the first.
        proposed: the state asked for, or what an earlier rule made of it.
        now: the server's clock, microseconds.
        fresh_id: id for a state that the rules make.
        by_executor: asked by the process that owns the run, which applies the retry rule itself.
        earlier: the state of the run's history that has the proposed id.
        limits: the deployment's limit, or those of the task's tags, by name.
        cache: for task runs.
        flow: for task runs within a flow run.
        spread: in [0, 1), so that those who wait do not come back all at once.
        planned: effects planned so far; only the universal rules look.
    """

    run: RunFacts
    current: StateValue | None
    proposed: StateValue
    now: int
    fresh_id: str
    by_executor: bool = False
    earlier: StateValue | None = None
    limits: tuple[LimitFacts, ...] = ()
    cache: CacheFacts = field(default_factory=CacheFacts)
    flow: FlowFacts | None = None
    spread: float = 0.5
    planned: tuple[Effect, ...] = ()

    @property
    def run_count(self) -> int:
        """Entries into RUNNING, as they will be counted."""
        return 0 if ResetRunCount() in self.planned else self.run.books.run_count
