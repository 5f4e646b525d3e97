"""Runs as the process that executes them knows them: `FlowRun` and `TaskRun`.

Both are plain values: changing one changes nothing on the server. Ids are 36-character strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.core.clock import from_micros

if TYPE_CHECKING:
    from headrace.core.states import StateType
    from headrace.states import State

__all__ = ["FlowRun", "Owner", "RunPolicy", "TaskRun"]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose fence guards the writes to a run.

    Attributes:
        run_id: the nearest run, the run itself included, that was started on its own.
        attempt: which ownership of that run, from 1.
        fence: grows whenever the ownership may have moved.
    """

    run_id: str
    attempt: int = 1
    fence: int = 1


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How often and how long a run may try.

    Attributes:
        retries: attempts after the first.
        retry_delays: seconds before each retry, of which the last repeats.
        retry_jitter_factor: how much delays are spread; 0 for not at all.
        timeout_seconds: limit of one attempt; None for none.
        deadline_seconds: budget over all attempts; None for none.
        is_durable: whether it is run again elsewhere when its process is lost.
    """

    retries: int = 0
    retry_delays: tuple[float, ...] = ()
    retry_jitter_factor: float = 0.0
    timeout_seconds: float | None = None
    deadline_seconds: float | None = None
    is_durable: bool = False


@dataclass(slots=True, eq=False)
class _Run:
    """What flow runs and task runs have in common.

    Attributes:
        id: UUIDv7.
        name: what people see.
        state: the newest state; None before the first one.
        run_count: entries into RUNNING.
        tags: sorted, without repetition.
        parameters: the arguments as they were given, by parameter name.
        inputs: for each parameter, the ids of the runs from which its value came.
        parent_run_id: the run in whose body this one was called; None at the top.
        root_run_id: the run at the top of the tree; the run itself when it has no parent.
        owner: whose fence guards the run.
        persist_result: whether results are kept in storage; None: in the record alone, where they fit.
        start_micros: first entry into RUNNING; microseconds since 1970-01-01 UTC, 0 before it.
        end_micros: entry into the final state; 0 before it.
        traceparent: W3C trace context; empty when nothing is traced.
        step_key: how the run is recognised when the body that has called it is run again; empty: it is not.
        step_committed: whether the transaction that the run waited in was committed.
        policy: how often and how long it may try; None when neither retries nor a limit were asked for.
    """

    id: str
    name: str
    root_run_id: str
    owner: Owner
    parent_run_id: str | None = None
    state: State[Any] | None = None
    run_count: int = 0
    tags: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    persist_result: bool | None = None
    start_micros: int = 0
    end_micros: int = 0
    traceparent: str = ""
    step_key: str = ""
    step_committed: bool = False
    policy: RunPolicy | None = None

    @property
    def state_type(self) -> StateType | None:
        """Type of the newest state."""
        return self.state.type if self.state else None

    @property
    def state_name(self) -> str | None:
        """Name of the newest state."""
        return self.state.name if self.state else None

    @property
    def start_time(self) -> datetime | None:
        """When the run first entered RUNNING."""
        return from_micros(self.start_micros) if self.start_micros else None

    @property
    def end_time(self) -> datetime | None:
        """When the run ended."""
        return from_micros(self.end_micros) if self.end_micros else None


@dataclass(slots=True, eq=False)
class FlowRun(_Run):
    """One execution of a flow.

    Attributes:
        flow_name: name of the flow.
        flow_version: its version, or None.
        parent_flow_run_id: the flow run that called it, directly or through a task.
        parent_task_run_id: the task run in whose body it was called, if there is one.
        root_flow_run_id: the flow run at the top of the tree.
        expected_start_micros: when it was meant to start.
    """

    flow_name: str = ""
    flow_version: str | None = None
    parent_flow_run_id: str | None = None
    parent_task_run_id: str | None = None
    root_flow_run_id: str | None = None
    deployment_id: str | None = None
    expected_start_micros: int = 0

    @property
    def expected_start_time(self) -> datetime | None:
        """When the run was meant to start."""
        return from_micros(self.expected_start_micros) if self.expected_start_micros else None

    def __repr__(self) -> str:
        return (
            f"FlowRun(id={self.id!r}, name={self.name!r}, flow_name={self.flow_name!r}, state={self.state})"
        )


@dataclass(slots=True, eq=False)
class TaskRun(_Run):
    """One execution of a task.

    Attributes:
        task_name: name of the task.
        task_key: identity of the task's code.
        dynamic_key: tells the calls of one task in one flow run apart.
        flow_run_id: the flow run that it belongs to; None for a task run on its own.
        flow_name: name of that flow.
        flow_run_run_count: the flow run's `run_count` when this run was made.
    """

    task_name: str = ""
    task_key: str = ""
    dynamic_key: str = ""
    flow_run_id: str | None = None
    flow_name: str = ""
    flow_run_run_count: int = 0

    @property
    def task_inputs(self) -> Mapping[str, Sequence[str]]:
        """For each parameter, the ids of the runs from which its value came."""
        return self.inputs

    def __repr__(self) -> str:
        return f"TaskRun(id={self.id!r}, name={self.name!r}, task_key={self.task_key!r}, state={self.state})"
