"""Messages for the storage tests, short to write and easy to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.ids import new_id
from headrace.core.states import StateType, default_name
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, AttemptRef, Run
from headrace.v1.state_pb2 import State
from headrace_services.storage.database import Database

__all__ = ["SECOND", "ManualClock", "Recording", "flow_run", "log", "record", "run_of", "state", "task_run"]

SECOND = 1_000_000
START = 1_800_000_000 * SECOND


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: int = START) -> None:
        self.time = now

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / SECOND

    def advance(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)


def state(type: str, at: int = START, *, id: str = "", name: str = "", **details: Any) -> State:
    """A state of `type`, entered at `at` microseconds."""
    built = State(id=id or new_id(), type=StateType(type).number, name=name, **details)  # type: ignore[arg-type]
    built.event_time.FromMicroseconds(at)
    if type == "SCHEDULED" and not built.scheduled.HasField("scheduled_time"):
        built.scheduled.scheduled_time.FromMicroseconds(at)
    return built


def flow_run(name: str = "etl", **fields: Any) -> Run:
    """A new flow run of the flow `name`."""
    fields.setdefault("id", new_id())
    return Run(kind=RUN_KIND_FLOW, name=f"{name}-run", flow_name=name, **fields)


def task_run(flow: Run, name: str = "step", **fields: Any) -> Run:
    """A new task run within `flow`."""
    fields.setdefault("id", new_id())
    return Run(
        kind=RUN_KIND_TASK,
        name=f"{name}-0",
        task_name=name,
        task_key=f"module.{name}",
        flow_name=flow.flow_name,
        root_run_id=flow.root_run_id or flow.id,
        parent_run_id=flow.id,
        **fields,
    )


def run_of(run: Run) -> RecordEntry:
    """The entry that records `run`."""
    return RecordEntry(run=run)


def record(run: Run, state: State, *, fence: int = 1, want_verdict: bool = False) -> RecordEntry:
    """The entry that records, or proposes, a state of `run`."""
    entry = RecordEntry()
    entry.state.attempt.CopyFrom(AttemptRef(run_id=run.id, attempt=1, fence=fence))
    entry.state.state.CopyFrom(state)
    entry.state.want_verdict = want_verdict
    return entry


def log(run: Run, message: str, *, at: int = START, level: int = 20, **fields: Any) -> RecordEntry:
    """The entry of a log line."""
    line = LogEntry(
        run_id=run.id,
        root_run_id=run.root_run_id or run.id,
        level=level,
        logger="headrace.flow_runs",
        message=message,
        **fields,
    )
    line.time.FromMicroseconds(at)
    return RecordEntry(log=line)


class Recording:
    """A recorder that counts its own entries."""

    def __init__(self, database: Database, id: str = "") -> None:
        self.database = database
        self.id = id or new_id()
        self.next_seq = 1

    async def open(self, *executing: AttemptRef, lease_seconds: float = 30) -> Any:
        """Open the recorder."""
        message = RecorderOpen(recorder_id=self.id, protocol_min=1, protocol_max=1, executing=executing)
        message.sdk.name, message.sdk.host, message.sdk.pid = "test", "here", 7
        return await self.database.writer.open_recorder(message, "replica", lease_seconds)

    async def post(self, *entries: RecordEntry) -> Any:
        """Record the entries after those before."""
        first, self.next_seq = self.next_seq, self.next_seq + len(entries)
        return await self.database.writer.record(self.id, first, entries)

    async def run_through(self, run: Run, types: Sequence[str], at: int = START) -> None:
        """Record the run and states of the types, a second apart."""
        states = [record(run, state(type, at + i * SECOND)) for i, type in enumerate(types)]
        outcome = await self.post(run_of(run), *states)
        assert not outcome.results


def named(type: str) -> str:
    """The name a state of the type has by itself."""
    return default_name(StateType(type))
