"""The part of the writer that hands runs to workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.run_service_pb2 import ExplainRunResponse, ProposeStateResponse
from headrace_services.storage.adopting import AdoptFound, Found, FoundAnswer
from headrace_services.storage.attempt_news import ApplyNews, News, NewsOutcome
from headrace_services.storage.claiming import Claim, Claims, StreamOffer
from headrace_services.storage.command import Command
from headrace_services.storage.dispatch_rows import TeardownRow
from headrace_services.storage.explaining import ExplainRun
from headrace_services.storage.queue_commands import AgeQueue, MarkLate, Promoted, PromoteDue
from headrace_services.storage.queueing import Queueing
from headrace_services.storage.rerunning import RescheduleRun, RetryRun
from headrace_services.storage.teardowns import DeliverTeardown, SettleTeardown
from headrace_services.storage.worker_commands import (
    CloseSession,
    DeleteWorker,
    DrainWorker,
    ExpireSession,
    OpenedSession,
    OpenSession,
    RenewSessions,
    WorkerIdentity,
)

__all__ = ["DispatchWriter"]

T = TypeVar("T")
_CLAIMS_WITH_LOCKS: Final = 64
"""So many claims lock what they read after one that did not, and should have."""


class DispatchWriter:
    """Mixed into the writer.

    Attributes:
        known_routes: ids of lines that are in the database, for ever.
        keyed_scopes: see `Queueing`.
    """

    def __init__(self) -> None:
        self.known_routes: set[int] = set()
        self.keyed_scopes: set[str] = set()
        self._claims_with_locks = 0
        self._next_due: int | None = None
        self._frees_slots = False

    async def _ask(self, command: Command[T]) -> T:
        raise NotImplementedError

    def _note_queue(self, queueing: Queueing) -> None:
        """What a transaction that is committed has done to the queue."""
        self.known_routes |= queueing.new_routes
        self._frees_slots |= queueing.frees_slots
        due = queueing.next_due
        if due is not None and (self._next_due is None or due < self._next_due):
            self._next_due = due

    def take_next_due(self) -> int | None:
        """When the first of the runs that were queued here since the last call is due, microseconds."""
        due, self._next_due = self._next_due, None
        return due

    def take_freed(self) -> bool:
        """Whether slots of deployments became free here since the last call."""
        freed, self._frees_slots = self._frees_slots, False
        return freed

    async def retry_run(
        self, run_id: str, state_id: str, scheduled_time: int | None = None
    ) -> ProposeStateResponse:
        """Run a run again that has ended; `scheduled_time` in microseconds, None: now.

        Raises:
            ObjectNotFound: there is no such run.
        """
        return await self._ask(RetryRun(run_id, state_id, scheduled_time))

    async def reschedule_run(self, run_id: str, state_id: str, scheduled_time: int) -> ProposeStateResponse:
        """Give a run that nobody executes another time, microseconds.

        Raises:
            ObjectNotFound: there is no such run.
        """
        return await self._ask(RescheduleRun(run_id, state_id, scheduled_time))

    async def explain_run(self, run_id: str, credits: Mapping[str, int]) -> ExplainRunResponse:
        """Why the run does not run; see `ExplainRun`.

        Raises:
            ObjectNotFound: there is no such run.
        """
        return await self._ask(ExplainRun(run_id, credits))

    async def claim(self, offers: Sequence[StreamOffer]) -> Claims:
        """Hand waiting runs to workers. When it returns they are theirs, durably."""
        command = Claim(offers, is_optimistic=self._claims_with_locks == 0)
        self._claims_with_locks = max(0, self._claims_with_locks - 1)
        claims = await self._ask(command)
        if command.has_lost:
            self._claims_with_locks = _CLAIMS_WITH_LOCKS
        return claims

    async def promote_due(self, ahead_seconds: float) -> Promoted:
        """Give runs whose time has come their turn.

        Args:
            ahead_seconds: how long before its time a worker would take a run.
        """
        return await self._ask(PromoteDue(ahead_seconds))

    async def age_queue(self, interval_seconds: float) -> int:
        """Raise the priority of runs that have waited for `interval_seconds` since it was last raised.

        Returns:
            How many there were; a thousand: there may be more.
        """
        return await self._ask(AgeQueue(interval_seconds))

    async def mark_late(self) -> int:
        """Call those late that have waited past their time.

        Returns:
            How many there were; 200: there may be more.
        """
        return await self._ask(MarkLate())

    async def apply_news(self, news: Sequence[News]) -> list[NewsOutcome]:
        """Apply what was heard of attempts; one outcome for each piece, in order."""
        return await self._ask(ApplyNews(news))

    async def adopt_found(
        self, session_id: str, worker_id: str, work_pool: str, found: Sequence[Found]
    ) -> list[FoundAnswer]:
        """Infrastructure of the pool was found by a worker that does not hold it; see `AdoptFound`."""
        return await self._ask(AdoptFound(session_id, worker_id, work_pool, found))

    async def deliver_teardown(self, row: TeardownRow, worker_id: str) -> bool:
        """Note that a teardown is sent to a worker; False: it is not to be, any more."""
        return await self._ask(DeliverTeardown(row, worker_id))

    async def settle_teardown(self, run_id: str, fence: int, removed: bool) -> bool:
        """A worker has answered a teardown; True: it was given up."""
        return await self._ask(SettleTeardown(run_id, fence, removed))

    async def open_session(
        self, identity: WorkerIdentity, replica_id: str, lease_seconds: float
    ) -> OpenedSession:
        """A worker's stream opens: its session begins, or goes on under a new epoch.

        Raises:
            ObjectNotFound: there is no such work pool.
            PreconditionFailed: the pool is for workers of another type.
            FieldsInvalid: the session is another worker's.
        """
        return await self._ask(OpenSession(identity, replica_id, lease_seconds))

    async def renew_sessions(
        self, sessions: Sequence[tuple[str, int, bool, float]]
    ) -> list[tuple[str, int, str]]:
        """Renew sessions: (id, epoch, whether the worker drains, seconds of the lease) each.

        Returns:
            The id and epoch of those that were not renewed, and why: `SESSION_SUPERSEDED` or
            `SESSION_EXPIRED`.
        """
        return await self._ask(RenewSessions(sessions))

    async def close_session(self, session_id: str, epoch: int, released: Sequence[AttemptRef]) -> None:
        """A worker has said goodbye: what it gives back is queued again at once."""
        await self._ask(CloseSession(session_id, epoch, released))

    async def expire_session(
        self, session_id: str, *, expired_before: int | None = None, reason: str = ""
    ) -> list[str]:
        """End a session whose worker is silent, or dead; what only it held is lost.

        Args:
            session_id: the session.
            expired_before: do nothing when its lease ends at or after this instant.
            reason: the message of the runs' next states.

        Returns:
            The ids of the runs that it answered for.
        """
        command = ExpireSession(session_id, expired_before, reason) if reason else None
        return await self._ask(command or ExpireSession(session_id, expired_before))

    async def drain_worker(self, worker_id: str, deadline_seconds: float | None) -> None:
        """Ask a worker to finish what it holds and take nothing new.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is offline.
        """
        await self._ask(DrainWorker(worker_id, deadline_seconds))

    async def delete_worker(self, worker_id: str) -> None:
        """Forget a worker that is offline.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is online.
        """
        await self._ask(DeleteWorker(worker_id))
