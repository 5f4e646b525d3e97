"""Hands waiting runs to the workers whose streams are on this server.

A claim is one transaction for many workers at once. While it is being committed, what else becomes waiting
or free gathers for the next, so there is one claim under way and no timer. Whoever has something for workers
wakes the loop; behind every wake there is a slow look, for the words that were lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Final, Protocol

from headrace.core.clock import Clock
from headrace.core.errors import ServiceError
from headrace_services.domain.claims import Offer
from headrace_services.storage.claiming import Claimed, StreamOffer
from headrace_services.storage.database import Database

__all__ = ["Dispatcher", "Taker"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.5
_SOONEST_SECONDS: Final = 0.001
_OFFERS_PER_GROUP: Final = 64


class Taker(Protocol):
    """A worker's stream, as far as work goes."""

    session_id: str
    epoch: int

    @property
    def credit(self) -> int:
        """How many more runs it takes now."""
        ...

    def offer(self) -> Offer:
        """What it takes now."""
        ...

    def assign(self, claimed: Claimed) -> None:
        """Hand a run over that was claimed for it."""
        ...


class Dispatcher:
    """The claim loop.

    Attributes:
        claims: how many claims were made, for tests and metrics.
    """

    def __init__(
        self, database: Database, over: Callable[[Sequence[tuple[str, int, str]]], None], clock: Clock
    ) -> None:
        self._database = database
        self._writer = database.writer
        self._signals = database.queue_signals
        self._clock = clock
        self._takers: dict[str, Taker] = {}
        # Those with credit, by what they serve: of many alike, a few at a time are offered.
        self._ready: dict[Hashable, dict[str, Taker]] = {}
        self._groups: dict[str, Hashable] = {}
        # For whom nothing waits, as far as this server has heard: their credit alone is no news.
        self._dry: Collection[Hashable] = ()
        self._ahead = 0.0
        self._next_due: int | None = None
        self._looked_at = clock.monotonic() - _LOOK_SECONDS
        self._over = over
        self.claims = 0

    # Who takes

    def add(self, taker: Taker) -> None:
        """The stream may be given work from now on, in place of an older one of its session."""
        offer = taker.offer()
        self._takers[taker.session_id] = taker
        self._groups[taker.session_id] = (
            *(offer.kind, offer.subjects, offer.queues, tuple(sorted(offer.labels.items())), offer.prefetch),
        )
        self._ahead = max(self._ahead, offer.prefetch / 1e6)
        self.changed(taker)

    def remove(self, taker: Taker) -> None:
        """The stream has ended."""
        if self._takers.get(taker.session_id) is not taker:
            return
        del self._takers[taker.session_id]
        self._unready(taker.session_id)
        del self._groups[taker.session_id]

    def changed(self, taker: Taker) -> None:
        """The credit of the stream is another."""
        if self._takers.get(taker.session_id) is not taker:
            return
        if taker.credit > 0:
            self._ready.setdefault(self._groups[taker.session_id], {})[taker.session_id] = taker
            if self._groups[taker.session_id] not in self._dry:
                self.wake()
        else:
            self._unready(taker.session_id)

    def _unready(self, session_id: str) -> None:
        group = self._groups[session_id]
        members = self._ready.get(group)
        if members is not None and members.pop(session_id, None) is not None and not members:
            del self._ready[group]

    def wake(self) -> None:
        """There may be something to hand out."""
        self._signals.bump()

    # The loop

    async def run(self) -> None:
        """Hand out until cancelled."""
        while True:
            seen = self._signals.count
            self._dry = ()
            try:
                again = await self._round(seen)
            except ServiceError as error:
                _log.warning("runs cannot be handed out: %s Trying again.", error.message)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except Exception:
                _log.exception("handing out runs failed; trying again")
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if not again:
                await self._signals.wait(seen, self._pause())

    def _pause(self) -> float:
        """How long until the next look, if nobody wakes the loop."""
        longest = _LOOK_SECONDS * random.uniform(0.8, 1.2)
        if self._next_due is None or not self._takers:
            return longest
        left = (self._next_due - self._clock.now()) / 1e6 - self._ahead
        return min(longest, max(_SOONEST_SECONDS, left))

    async def _round(self, seen: int) -> bool:
        """One claim, for what was heard up to signal `seen`. Whether there may be more to hand out."""
        if not self._takers:
            return False
        await self._promote()
        offers = self._offers()
        if not offers:
            return False
        self.claims += 1
        groups = frozenset(self._groups[item.offer.session_id] for item in offers)
        result = await self._writer.claim(offers)
        touched: dict[str, Taker] = {}
        for claimed in result.claimed:
            taker = self._takers.get(claimed.session_id)
            if taker is not None:  # else the session's next stream, or the end of its lease, settles it
                taker.assign(claimed)
                touched[claimed.session_id] = taker
        for taker in touched.values():
            if taker.credit <= 0:
                self._unready(taker.session_id)
        self._over(result.over)
        if result.is_dry and self._signals.count == seen:
            self._dry = groups
        return not result.is_exhausted and (bool(result.claimed) or result.blocked > 0)

    async def _promote(self) -> None:
        """Give those their turn whose time has come, and find out when the next one's comes."""
        hint = self._writer.take_next_due()
        if hint is not None:
            self._next_due = hint if self._next_due is None else min(hint, self._next_due)
        now = self._clock.now()
        is_due = self._writer.take_freed()
        is_due |= self._next_due is not None and self._next_due <= now + self._ahead * 1e6
        monotonic = self._clock.monotonic()
        if not is_due and monotonic - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = monotonic
        while not (await self._writer.promote_due(self._ahead)).is_exhausted:
            pass
        self._next_due = await self._database.reader.next_due()

    def _offers(self) -> list[StreamOffer]:
        offers: list[StreamOffer] = []
        for members in self._ready.values():
            for taker in _rotated(members, _OFFERS_PER_GROUP):
                offer = taker.offer()
                if offer.credit > 0:
                    offers.append(StreamOffer(offer, taker.epoch))
        return offers


def _rotated(members: dict[str, Taker], most: int) -> Iterable[Taker]:
    """The next few, which go to the end of the line."""
    if len(members) <= most:
        return list(members.values())
    chosen = [id for id, _ in zip(members, range(most), strict=False)]
    taken = [members.pop(id) for id in chosen]
    members.update((taker.session_id, taker) for taker in taken)
    return taken
