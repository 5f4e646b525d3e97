"""A recorder that keeps what it is given in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from headrace.core.errors import ServerUnavailable
from headrace.core.ids import new_id
from headrace.core.states import StateType
from headrace.core.verdicts import Accept, Verdict
from headrace.recorder.api import DirectiveCallback, LostCallback, SuspendedCallback
from headrace.results import load_payload
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.state_pb2 import State

__all__ = ["MemoryRecorder", "RecordedRun", "runs_of"]


@dataclass(frozen=True)
class RecordedRun:
    """One run as it stands on the record.

    Attributes:
        run: the entry that began it, later entries merged into it.
        states: its states, in order.
    """

    run: Run
    states: list[State]

    @property
    def names(self) -> list[str]:
        """The names of its states."""
        return [state.name for state in self.states]

    @property
    def types(self) -> list[StateType]:
        """The types of its states."""
        return [StateType.from_number(state.type) for state in self.states]

    @property
    def is_flow(self) -> bool:
        """Whether it is a flow run."""
        return self.run.kind == RUN_KIND_FLOW

    @property
    def result(self) -> object:
        """The recorded result of its last state."""
        assert self.states[-1].HasField("data"), "no data is recorded"
        return load_payload(self.states[-1].data)


def runs_of(entries: Iterable[RecordEntry]) -> list[RecordedRun]:
    """Every run that `entries` tell of, in the order in which they began."""
    found: dict[str, RecordedRun] = {}
    for entry in entries:
        kind = entry.WhichOneof("kind")
        if kind == "run" and entry.run.id not in found:
            found[entry.run.id] = RecordedRun(entry.run, [entry.run.state])
        elif kind == "run":
            _update(found[entry.run.id].run, entry.run)
            if entry.run.HasField("state"):  # it begins anew
                found[entry.run.id].states.append(entry.run.state)
        elif kind == "state":
            # A state of a run that has not begun is a KeyError: the order is part of the contract.
            found[entry.state.attempt.run_id].states.append(entry.state.state)
        elif kind == "log" and entry.log.run_id not in found:
            raise AssertionError(f"a line of a run that has not begun: {entry.log.message}")
    return list(found.values())


def _update(known: Run, news: Run) -> None:
    """What is set replaces what was known, as it does on a server."""
    for field, _ in news.ListFields():
        known.ClearField(field.name)  # type: ignore[arg-type]
    known.MergeFrom(news)


class MemoryRecorder:
    """Serialises every entry, as a real recorder does, and answers every proposal with the next of
    `verdicts`, else with Accept."""

    def __init__(self) -> None:
        self.recorder_id = new_id()
        self.entries: list[RecordEntry] = []
        self.verdicts: list[Verdict[State]] = []
        self.owners: dict[str, LostCallback | None] = {}
        self.ended_owners: list[str] = []
        self.attending: dict[str, DirectiveCallback] = {}
        self._lock = threading.Lock()

    @property
    def last_seq(self) -> int:
        return len(self.entries)

    def post(self, *entries: RecordEntry) -> int:
        copies = [RecordEntry.FromString(entry.SerializeToString()) for entry in entries]
        with self._lock:
            self.entries += copies
            return len(self.entries)

    def propose(self, entry: RecordEntry) -> Future[Verdict[State]]:
        entry.state.want_verdict = True
        answer: Future[Verdict[State]] = Future()
        with self._lock:
            scripted = self.verdicts.pop(0) if self.verdicts else None
        if scripted is None or isinstance(scripted, Accept):
            self.post(entry)
        answer.set_result(scripted or Accept(entry.state.state))
        return answer

    def durable(self, seq: int) -> Future[None]:
        assert seq <= len(self.entries)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def connected(self) -> Future[None]:
        never: Future[None] = Future()
        never.set_exception(ServerUnavailable())
        return never

    def begin_owner(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        on_lost: LostCallback | None = None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        self.owners[run_id] = on_lost

    def end_owner(self, run_id: str) -> None:
        self.owners.pop(run_id, None)
        self.ended_owners.append(run_id)

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        self.attending[run_id] = on_directive

    def leave(self, run_id: str) -> None:
        self.attending.pop(run_id, None)

    def flush(self, timeout_seconds: float) -> bool:
        return True

    @property
    def runs(self) -> list[RecordedRun]:
        """Every run, in the order in which they began."""
        return runs_of(self.entries)

    def the(self, name: str) -> RecordedRun:
        """The only run of the flow or task with that name."""
        (run,) = self.all(name)
        return run

    def all(self, name: str) -> list[RecordedRun]:
        """Every run of the flow or task with that name."""
        return [run for run in self.runs if name == (run.run.flow_name if run.is_flow else run.run.task_name)]
