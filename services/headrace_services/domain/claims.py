"""Which waiting run goes to which worker, and why one that waits does so.

Dispatch and the explanation of a run that does not start use the same function, `obstacle`: what it finds
is what keeps a run waiting, and a run for which it finds nothing is handed out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, NamedTuple

__all__ = [
    "Candidate",
    "Choice",
    "Facts",
    "Limit",
    "Line",
    "Obstacle",
    "Offer",
    "RouteKind",
    "choose",
    "obstacle",
    "satisfies",
    "turn",
]


class RouteKind(IntEnum):
    """What a route's subject is."""

    WORK_POOL = 1
    """Flow runs for the workers of a pool."""
    DEPLOYMENT = 2
    """Flow runs of a deployment that a process serves itself."""
    TASK = 3
    """Background task runs, by the key of their task."""


class Obstacle(Enum):
    """What keeps a run waiting, in the order in which it is looked for."""

    NOT_DUE = "not due"
    NO_WORK_POOL = "no work pool"
    WORK_POOL_PAUSED = "work pool paused"
    WORK_QUEUE_PAUSED = "work queue paused"
    NO_WORKER = "no worker"
    NO_MATCHING_WORKER = "no matching worker"
    NO_CREDIT = "no credit"
    WORK_QUEUE_LIMIT = "work queue limit"
    WORK_POOL_LIMIT = "work pool limit"
    DEPLOYMENT_LIMIT = "deployment limit"
    FAIRNESS_KEY_LIMIT = "fairness key limit"


@dataclass(slots=True)
class Limit:
    """How many runs may be held at once.

    Attributes:
        slots: None: as many as there are.
        held: taken now.
    """

    slots: int | None = None
    held: int = 0

    @property
    def is_full(self) -> bool:
        """No slot is left."""
        return self.slots is not None and self.held >= self.slots


@dataclass(slots=True)
class Line:
    """A work pool or a work queue.

    Attributes:
        limit: of runs held at once.
        is_paused: nothing is handed out.
        priority: of a queue; 1 comes first.
    """

    limit: Limit = field(default_factory=Limit)
    is_paused: bool = False
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that waits.

    Attributes:
        run_id: the run.
        kind: what `subject` is.
        subject: name of the pool, id of the deployment, or key of the task.
        queue: of the pool; empty elsewhere.
        labels: what a worker must have.
        due_time: not before, microseconds.
        priority: 9 comes first.
        passed: its turn among runs of equal priority: the smaller the sooner.
        deployment_id: whose limit it needs a slot of; empty: none.
        excluded: workers that do not get it until the instant, microseconds.
        fairness_key: whose limit in the pool it needs a slot of; empty: none.
    """

    run_id: str
    kind: RouteKind
    subject: str
    queue: str
    labels: Mapping[str, str]
    due_time: int
    priority: int = 0
    passed: int = 0
    deployment_id: str = ""
    excluded: Mapping[str, int] = field(default_factory=dict[str, int])
    fairness_key: str = ""


@dataclass(slots=True)
class Offer:
    """A worker that can take runs.

    Attributes:
        session_id: of its process.
        worker_id: its own.
        kind: what `subjects` are.
        subjects: pools (one), deployments or task keys that it serves.
        queues: of the pool; none: all of them.
        labels: what it has.
        credit: how many more it takes.
        prefetch: how long before its time it takes a run, microseconds.
    """

    session_id: str
    worker_id: str
    kind: RouteKind
    subjects: frozenset[str]
    queues: frozenset[str]
    labels: Mapping[str, str]
    credit: int
    prefetch: int = 0


@dataclass(slots=True)
class Facts:
    """What bears on who gets what.

    Attributes:
        now: microseconds.
        pools: by name; one that is missing does not exist.
        queues: by pool and name; one that is missing has no rules of its own.
        deployments: limits by id; one that is missing has none.
        keys: limits by pool and fairness key; one that is missing has none.
        offers: the workers.
    """

    now: int
    pools: dict[str, Line] = field(default_factory=dict[str, Line])
    queues: dict[tuple[str, str], Line] = field(default_factory=dict[tuple[str, str], Line])
    deployments: dict[str, Limit] = field(default_factory=dict[str, Limit])
    keys: dict[tuple[str, str], Limit] = field(default_factory=dict[tuple[str, str], Limit])
    offers: Sequence[Offer] = ()
    _takers: dict[tuple[object, ...], list[Offer]] = field(
        default_factory=dict[tuple[object, ...], list[Offer]]
    )

    def takers(self, candidate: Candidate) -> list[Offer]:
        """The workers that are there for candidates like this one, with credit or without."""
        key = (candidate.kind, candidate.subject, candidate.queue, *sorted(candidate.labels.items()))
        found = self._takers.get(key)
        if found is None:
            found = self._takers[key] = [offer for offer in self.offers if _serves(offer, candidate)]
        return found

    def queue(self, candidate: Candidate) -> Line | None:
        """The candidate's queue, if it has rules."""
        return self.queues.get((candidate.subject, candidate.queue))

    def key(self, candidate: Candidate) -> Limit | None:
        """The limit of the candidate's fairness key in its pool, if it has one."""
        if not self.keys or candidate.kind is not RouteKind.WORK_POOL:
            return None
        return self.keys.get((candidate.subject, candidate.fairness_key))


class Choice(NamedTuple):
    """What becomes of one candidate: the worker that gets it, or what keeps it waiting."""

    candidate: Candidate
    offer: Offer | None
    obstacle: Obstacle | None


def satisfies(labels: Mapping[str, str], required: Mapping[str, str]) -> bool:
    """Whether a worker with `labels` has all that are required."""
    return all(labels.get(name) == value for name, value in required.items())


def turn(candidate: Candidate, facts: Facts) -> tuple[int, int, int, int, str]:
    """What candidates are sorted by: queues strictly by priority, then runs by theirs, then by turn."""
    line = facts.queue(candidate)
    rank = _LAST_RANK if line is None else line.priority
    return rank, -candidate.priority, candidate.passed, candidate.due_time, candidate.run_id


_LAST_RANK: Final = 1 << 31


def obstacle(candidate: Candidate, facts: Facts) -> Obstacle | None:
    """What keeps the candidate waiting; None: nothing, it is handed out in its turn."""
    takers = facts.takers(candidate)
    prefetch = max((offer.prefetch for offer in takers), default=0)
    if candidate.due_time > facts.now + prefetch:
        return Obstacle.NOT_DUE
    if candidate.kind is RouteKind.WORK_POOL:
        pool = facts.pools.get(candidate.subject)
        if pool is None:
            return Obstacle.NO_WORK_POOL
        if pool.is_paused:
            return Obstacle.WORK_POOL_PAUSED
        queue = facts.queue(candidate)
        if queue is not None and queue.is_paused:
            return Obstacle.WORK_QUEUE_PAUSED
    if not takers:
        is_alone = not any(_is_there_for(offer, candidate) for offer in facts.offers)
        return Obstacle.NO_WORKER if is_alone else Obstacle.NO_MATCHING_WORKER
    if not any(_can_take(offer, candidate, facts.now) for offer in takers):
        return Obstacle.NO_CREDIT
    return _full_limit(candidate, facts)


def _full_limit(candidate: Candidate, facts: Facts) -> Obstacle | None:
    """The limit that has no slot for the candidate."""
    queue, pool = facts.queue(candidate), None
    if candidate.kind is RouteKind.WORK_POOL:
        pool = facts.pools.get(candidate.subject)
    if queue is not None and queue.limit.is_full:
        return Obstacle.WORK_QUEUE_LIMIT
    if pool is not None and pool.limit.is_full:
        return Obstacle.WORK_POOL_LIMIT
    deployment = facts.deployments.get(candidate.deployment_id)
    if deployment is not None and deployment.is_full:
        return Obstacle.DEPLOYMENT_LIMIT
    key = facts.key(candidate)
    return Obstacle.FAIRNESS_KEY_LIMIT if key is not None and key.is_full else None


def _is_there_for(offer: Offer, candidate: Candidate) -> bool:
    return offer.kind is candidate.kind and candidate.subject in offer.subjects


def _serves(offer: Offer, candidate: Candidate) -> bool:
    return (
        _is_there_for(offer, candidate)
        and (not offer.queues or candidate.queue in offer.queues)
        and satisfies(offer.labels, candidate.labels)
    )


def _can_take(offer: Offer, candidate: Candidate, now: int) -> bool:
    return (
        offer.credit > 0
        and candidate.due_time <= now + offer.prefetch
        and candidate.excluded.get(offer.worker_id, 0) <= now
    )


def choose(candidates: Iterable[Candidate], facts: Facts, random: random.Random) -> list[Choice]:
    """Hand out the candidates, each in its turn; `facts` is brought up to date with every one handed out.

    Who waits for its worker or its limit holds up nobody behind it: strict priority means that a lower
    queue gets what the higher ones leave unused.
    """
    ordered = sorted(candidates, key=lambda candidate: turn(candidate, facts))
    return [_decide(candidate, facts, random) for candidate in ordered]


def _decide(candidate: Candidate, facts: Facts, random: random.Random) -> Choice:
    why = obstacle(candidate, facts)
    if why is not None:
        return Choice(candidate, None, why)
    takers = [offer for offer in facts.takers(candidate) if _can_take(offer, candidate, facts.now)]
    offer = _freest(takers, random)
    offer.credit -= 1
    for limit in _limits(candidate, facts):
        limit.held += 1
    return Choice(candidate, offer, None)


def _freest(offers: Sequence[Offer], random: random.Random) -> Offer:
    """The one with the most credit, any of those that have as much."""
    most = max(offer.credit for offer in offers)
    return random.choice([offer for offer in offers if offer.credit == most])


def _limits(candidate: Candidate, facts: Facts) -> Iterable[Limit]:
    if candidate.kind is RouteKind.WORK_POOL:
        yield facts.pools[candidate.subject].limit
        queue = facts.queue(candidate)
        if queue is not None:
            yield queue.limit
    deployment = facts.deployments.get(candidate.deployment_id)
    if deployment is not None:
        yield deployment
    key = facts.key(candidate)
    if key is not None:
        yield key
