"""Recording switched off: `HEADRACE_API_URL=off`."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import count

from headrace.core.errors import ServerUnavailable
from headrace.core.ids import new_id
from headrace.core.verdicts import Accept, Verdict
from headrace.recorder import observers
from headrace.recorder.api import DirectiveCallback, LostCallback, SuspendedCallback
from headrace.recorder.entries import encode
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.state_pb2 import State

__all__ = ["NullRecorder"]


class NullRecorder:
    """Checks what it is given, numbers it and forgets it; every proposal is accepted."""

    def __init__(self) -> None:
        self.recorder_id = new_id()
        self._numbers = count(1)
        self.last_seq = 0

    def post(self, *entries: RecordEntry) -> int:
        for entry in entries:
            encode(entry)
            self.last_seq = next(self._numbers)
        observers.tell(entries)
        return self.last_seq

    def propose(self, entry: RecordEntry) -> Future[Verdict[State]]:
        self.post(entry)
        state = State()
        state.CopyFrom(entry.state.state)
        answer: Future[Verdict[State]] = Future()
        answer.set_result(Accept(state))
        return answer

    def durable(self, seq: int) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def connected(self) -> Future[None]:
        never: Future[None] = Future()
        never.set_exception(ServerUnavailable("The server is switched off: HEADRACE_API_URL is off."))
        return never

    def begin_owner(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        on_lost: LostCallback | None = None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        pass

    def end_owner(self, run_id: str) -> None:
        pass

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        pass

    def leave(self, run_id: str) -> None:
        pass

    def flush(self, timeout_seconds: float) -> bool:
        return True
