"""The workers that are connected to this server, and everything that concerns them while they are."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from headrace.core.clock import Clock
from headrace.core.errors import ServerBusy, ServiceError
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_service_pb2 import CancelAttempt
from headrace_services.loops.dispatcher import Dispatcher, Taker
from headrace_services.loops.loop import Loop
from headrace_services.loops.queue_keeper import QueueKeeper
from headrace_services.loops.teardowns import Remover, Teardowns
from headrace_services.loops.worker_deaths import LocalWorker, WorkerDeaths
from headrace_services.loops.worker_news import WorkerNews
from headrace_services.loops.worker_sessions import Session, SessionLeases, SessionReaper
from headrace_services.storage.adopting import Found
from headrace_services.storage.attempt_news import News, NewsOutcome
from headrace_services.storage.claiming import Claimed
from headrace_services.storage.database import Database
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.worker_commands import OpenedSession, WorkerIdentity

__all__ = ["Link", "WorkerHub", "WorkerTerms"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_OPENING_AT_ONCE: Final = 64
_OPENING_WAITING: Final = 512
_LEASE_INTERVALS: Final = 6
_RECONNECT_SPREAD_SECONDS: Final = 2.0
_OVERLAP_SECONDS: Final = 1.0
# From so many workers on, heartbeats are this far apart, in multiples of the setting.
_CROWDS: Final = ((5000, 4), (1000, 2))


class Link(Taker, Session, LocalWorker, Remover, Protocol):
    """A worker's stream."""

    name: str
    work_pool: str
    pool_updated: int
    has_left: bool

    def settled(self, outcome: NewsOutcome) -> None:
        """What was told of an attempt is durable."""
        ...

    def recall(self, offer: AttemptRef) -> None:
        """It was offered a run, as the database has it."""
        ...

    def cancel(self, cancels: Sequence[CancelAttempt]) -> None:
        """All of its runs that are being cancelled now."""
        ...

    def take_over(self, claimed: Claimed) -> None:
        """Hand a run over that goes on in infrastructure which the worker has found."""
        ...

    def pool_changed(self, pool: WorkPoolRow) -> None:
        """Its pool says something else."""
        ...

    def ask_to_drain(self, deadline_seconds: float | None) -> None:
        """An administrator wants it to drain."""
        ...

    def server_drains(self, reason: str, reconnect_after_seconds: float, end_after_seconds: float) -> None:
        """Ask it to connect elsewhere, or anew."""
        ...

    def go_away(self, reason: str, reconnect_after_seconds: float = 0.0) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerTerms:
    """How the server deals with workers.

    Attributes:
        replica_id: this server process.
        heartbeat_seconds: how often one is to be heard, while there are few.
        reply_seconds: how long an assignment may be unanswered by a worker that is heard of.
        ageing_seconds: how long a run waits until its priority is raised by one.
        stream_seconds: how long a stream lasts at most until its worker is asked for another one, and half of
            that at least. So workers spread over servers that come, behind whatever balances connections.
    """

    replica_id: str
    heartbeat_seconds: float
    reply_seconds: float
    ageing_seconds: float = 300.0
    stream_seconds: float = 3600.0

    def heartbeat_for(self, workers: int) -> float:
        """How often one of so many is to be heard, seconds."""
        factor = next((factor for least, factor in _CROWDS if workers >= least), 1)
        return self.heartbeat_seconds * factor

    @property
    def lease_seconds(self) -> float:
        """How long one may be silent, while there are few."""
        return self.heartbeat_seconds * _LEASE_INTERVALS


class WorkerHub:
    """All of them.

    Attributes:
        dispatcher: hands out runs.
        news: makes durable what they say of attempts.
        leases: renews their sessions.
        reaper: ends sessions that are silent.
        deaths: ends sessions of workers on this machine that have died.
        teardowns: have removed what is left of attempts that were given up.
        keeper: sees to runs that wait for long.
        loop: tells them what others want: that runs are cancelled, that they drain, what their pools say.
    """

    def __init__(self, database: Database, terms: WorkerTerms, clock: Clock) -> None:
        self._database = database
        self._terms = terms
        self._clock = clock
        self._links: dict[str, Link] = {}
        # By session: when its stream has lasted long enough, on the monotonic clock.
        self._rotations: dict[str, float] = {}
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._openings = 0
        self._draining = False
        self._asked_to_drain: set[str] = set()
        self._doubts = 0
        self.dispatcher = Dispatcher(database, self._over, clock)
        self.news = WorkerNews(database.writer, self._settled)
        self.leases = SessionLeases(database, self._over, terms.heartbeat_seconds, clock)
        lease = terms.lease_seconds
        self.reaper = SessionReaper(database, lease, terms.heartbeat_seconds, clock)
        self.deaths = WorkerDeaths(database.writer, self._links, clock)
        self.teardowns = Teardowns(database, clock)
        self.keeper = QueueKeeper(database, terms.ageing_seconds, clock)
        self.loop = Loop("wishes to workers", _LOOK_SECONDS, self.look, clock)

    def __len__(self) -> int:
        return len(self._links)

    @property
    def loops(self) -> list[Loop]:
        """Those with a pace, for the server to run."""
        return [self.leases.loop, self.reaper.loop, self.deaths.loop, self.keeper.loop, self.loop]

    def credits(self) -> dict[str, int]:
        """How many more runs each worker takes, by session."""
        return {link.session_id: link.credit for link in self._links.values()}

    # What streams ask

    def terms(self) -> WorkerTerms:
        """For one more worker."""
        heartbeat = self._terms.heartbeat_for(len(self._links))
        return replace(self._terms, heartbeat_seconds=heartbeat)

    async def open(self, identity: WorkerIdentity, lease_seconds: float) -> OpenedSession:
        """A session begins, or goes on, durably; not too many at once.

        Raises:
            ServerBusy: too many workers connect at once.
            ServiceError: as of `Writer.open_session`.
        """
        if self._openings >= _OPENING_WAITING:
            raise ServerBusy(retry_after_seconds=random.uniform(0.2, _RECONNECT_SPREAD_SECONDS))
        self._openings += 1
        try:
            async with self._opening:
                return await self._database.writer.open_session(
                    identity, self._terms.replica_id, lease_seconds
                )
        finally:
            self._openings -= 1

    def add(self, link: Link) -> None:
        """The stream can be given work; an older one of its session ends."""
        older = self._links.get(link.session_id)
        self._links[link.session_id] = link
        if older is not None:
            older.go_away("SESSION_SUPERSEDED")
        self.deaths.opened(link)
        self.dispatcher.add(link)
        lasts = random.uniform(0.5, 1.0) * self._terms.stream_seconds
        self._rotations[link.session_id] = self._clock.monotonic() + lasts
        if self._draining:
            self._say_drain(link, "SERVER_DRAINING")
        self.loop.wake()

    def remove(self, link: Link) -> None:
        """The stream has ended. What it held is still its session's."""
        self.dispatcher.remove(link)
        if self._links.get(link.session_id) is link:
            del self._links[link.session_id]
            self._rotations.pop(link.session_id, None)
            if link.has_left:
                self.deaths.left(link)
            elif not self._draining:
                self.deaths.ended(link)
                _log.info("the stream of worker %s has ended without a word", link.name)

    def changed(self, link: Link) -> None:
        """Its credit is another."""
        self.dispatcher.changed(link)

    def heard(self, link: Link) -> None:
        """A heartbeat has come."""
        self.leases.heard(link)

    def tell(self, news: Sequence[News]) -> None:
        """Something was heard of attempts."""
        self.news.tell(news)

    async def found(self, link: Link, found: Sequence[Found]) -> None:
        """A worker has found infrastructure that it does not hold. What fails now is found again."""
        try:
            answers = await self._database.writer.adopt_found(
                link.session_id, link.worker_id, link.work_pool, found
            )
        except ServiceError as error:
            _log.warning("what the worker %s has found must wait: %s", link.name, error.message)
            return
        for item, claimed in answers:
            if claimed is not None:
                link.take_over(claimed)
            else:
                attempt = AttemptRef(run_id=item.run_id, attempt=item.attempt, fence=item.fence)
                link.tear_down(attempt, item.infrastructure_id)

    async def torn_down(self, attempt: AttemptRef, removed: bool) -> None:
        """A worker has answered a teardown. If that cannot be noted, it is sent again."""
        try:
            await self.teardowns.settle(attempt.run_id.lower(), attempt.fence, removed=removed)
        except ServiceError as error:
            _log.warning("the answer to a teardown is lost: %s", error.message)

    async def goodbye(self, link: Link, released: Sequence[AttemptRef]) -> None:
        """The worker leaves and gives these back."""
        self.dispatcher.remove(link)
        await self.news.flush()
        await self._database.writer.close_session(link.session_id, link.epoch, released)

    # What comes back

    def _settled(self, outcome: NewsOutcome) -> None:
        link = self._links.get(outcome.news.session_id)
        if link is not None:
            link.settled(outcome)

    def _over(self, streams: Sequence[tuple[str, int, str]]) -> None:
        """Streams, by session and epoch, that may not go on."""
        for session_id, epoch, reason in streams:
            link = self._links.get(session_id)
            if link is not None and link.epoch == epoch:
                self.dispatcher.remove(link)
                link.go_away(reason)

    # What others want

    async def look(self) -> None:
        """Tell the workers what others want of them.

        Raises:
            DatabaseUnavailable: try again later.
        """
        if not self._links:
            return
        self._rotate()
        await self._recall_offers()
        wanted: dict[str, list[CancelAttempt]] = {}
        for session_id, cancel in await self._database.reader.worker_cancels():
            wanted.setdefault(session_id, []).append(cancel)
        for session_id, link in list(self._links.items()):
            link.cancel(wanted.get(session_id, ()))
        await self.teardowns.look(list(self._links.values()))
        await self._tell_of_pools()
        now = await self._database.now()
        for session_id, deadline in await self._database.reader.worker_drains():
            link_of = self._links.get(session_id)
            if link_of is not None and session_id not in self._asked_to_drain:
                self._asked_to_drain.add(session_id)
                link_of.ask_to_drain((deadline - now) / 1e6 if deadline else None)

    async def _tell_of_pools(self) -> None:
        """Tell workers what their pools say now."""
        links = [link for link in self._links.values() if link.work_pool]
        oldest: dict[str, int] = {}
        for link in links:
            oldest[link.work_pool] = min(link.pool_updated, oldest.get(link.work_pool, link.pool_updated))
        if not oldest:
            return
        pools = {pool.name: pool for pool in await self._database.reader.changed_pools(oldest)}
        for link in links:
            pool = pools.get(link.work_pool)
            if pool is not None and pool.update_time != link.pool_updated:
                link.pool_changed(pool)

    async def _recall_offers(self) -> None:
        """Find the runs that were claimed by commits whose answer was lost: nobody has sent them."""
        doubts = self._database.writer.doubts
        if doubts == self._doubts:
            return
        await self._database.writer.settled()
        for session_id, offer in await self._database.reader.open_offers():
            link = self._links.get(session_id)
            if link is not None:
                link.recall(offer)
        self._doubts = doubts

    def _rotate(self) -> None:
        """Ask the workers whose streams have lasted long enough for another stream."""
        now = self._clock.monotonic()
        for session_id in [id for id, at in self._rotations.items() if at <= now]:
            del self._rotations[session_id]
            self._say_drain(self._links[session_id], "STREAM_ROTATED")

    def drain(self) -> None:
        """The server stops: every worker is asked to connect elsewhere, not all at once."""
        self._draining = True
        self._rotations.clear()
        for link in list(self._links.values()):
            self._say_drain(link, "SERVER_DRAINING")

    def _say_drain(self, link: Link, reason: str) -> None:
        after = random.uniform(0.0, _RECONNECT_SPREAD_SECONDS)
        link.server_drains(reason, after, after + _OVERLAP_SECONDS)
