"""The runs that this process executes, and who wants to know what a server says of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.recorder.api import DirectiveCallback, LostCallback, SuspendedCallback
from headrace.recorder.notices import logger
from headrace.v1.record_service_pb2 import AttemptVerdict, RunDirective
from headrace.v1.run_pb2 import AttemptRef

__all__ = ["Owners"]


@dataclass(frozen=True, slots=True)
class _Owner:
    attempt: int
    fence: int
    since_seq: int
    on_lost: LostCallback | None
    on_suspended: SuspendedCallback | None


class Owners:
    """By run id; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_run: dict[str, _Owner] = {}
        self._attending: dict[str, DirectiveCallback] = {}

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        """Have `on_directive` called with what others want of the run."""
        with self._lock:
            self._attending[run_id] = on_directive

    def leave(self, run_id: str) -> None:
        """The run has ended."""
        with self._lock:
            self._attending.pop(run_id, None)

    def directed(self, directives: Iterable[RunDirective]) -> None:
        """What others want of some of the runs."""
        for directive in directives:
            on_directive = self._attending.get(directive.run_id)
            if on_directive is None:
                continue
            try:
                on_directive(directive)
            except Exception:
                logger.exception("Telling run %s what is wanted of it has failed.", directive.run_id)

    def begin(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        since_seq: int,
        on_lost: LostCallback | None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        """From entry `since_seq` on a server can know of the attempt."""
        with self._lock:
            self._by_run[run_id] = _Owner(attempt, fence, since_seq, on_lost, on_suspended)

    def end(self, run_id: str) -> None:
        """The attempt has ended."""
        with self._lock:
            self._by_run.pop(run_id, None)

    def executing(self, durable: int) -> list[AttemptRef]:
        """Those that a server knows of when it has everything up to `durable`."""
        with self._lock:
            return [
                AttemptRef(run_id=run_id, attempt=owner.attempt, fence=owner.fence)
                for run_id, owner in self._by_run.items()
                if owner.since_seq <= durable
            ]

    def judged(self, verdicts: Iterable[AttemptVerdict]) -> None:
        """What the server says of some of them."""
        for verdict in verdicts:
            owner = self._by_run.get(verdict.attempt.run_id)
            if owner is None or owner.fence != verdict.attempt.fence:
                continue
            if verdict.lost:
                self.lose(verdict.attempt.run_id, verdict.reason)
            elif verdict.suspended and owner.on_suspended is not None:
                owner.on_suspended(verdict.reason)

    def lose(self, run_id: str, reason: str) -> None:
        """The attempt is not this process's any longer: tell whoever executes it, once."""
        with self._lock:
            owner = self._by_run.pop(run_id, None)
        if owner is None or owner.on_lost is None:
            return
        try:
            owner.on_lost(reason)
        except Exception:
            logger.exception("Telling that run %s is lost has failed.", run_id)
