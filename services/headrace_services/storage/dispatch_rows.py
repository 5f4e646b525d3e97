"""What dispatch keeps, as rows: waiting runs, attempts that are alive, workers and their sessions."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_services.domain.fairness import WEIGHT
from headrace_services.storage.entities import Entity, column

SESSION_SUPERSEDED = "SESSION_SUPERSEDED"
"""Another stream of the session has opened since."""
SESSION_EXPIRED = "SESSION_EXPIRED"
"""The session was silent for longer than its lease: it may begin anew."""

__all__ = [
    "SESSION_EXPIRED",
    "SESSION_SUPERSEDED",
    "AttemptRow",
    "PassRow",
    "QueuedRunRow",
    "RouteRow",
    "SessionRow",
    "TeardownRow",
    "WorkerRow",
    "why_over",
]


@dataclass(slots=True)
class RouteRow(Entity):
    """One kind of line that runs have waited in: a subject, a queue and what a worker must have."""

    TABLE = "queue_routes"
    KEY = ("id",)

    id: int = column("bigint")
    """A hash of the rest."""
    kind: int = column("smallint")
    subject: str = column("text")
    queue: str = column("text")
    labels: str = column("text")
    """A JSON object, its keys in order; empty: nothing is required."""


@dataclass(slots=True)
class QueuedRunRow(Entity):
    """One run that waits for a worker; there is one exactly while the run is SCHEDULED for dispatch."""

    TABLE = "run_queue"
    KEY = ("run_id",)
    REPLACES = True

    run_id: str = column("uuid")
    route: int = column("bigint")
    deployment_id: str | None = column("text")
    priority: int = column("smallint")
    """Of the run, raised by ageing."""
    pass_number: int | None = column("bigint")
    """Its turn among runs of equal priority; None: it is not due yet and has none."""
    due_time: int = column("bigint")
    """When it may be handed out."""
    scheduled_time: int = column("bigint")
    """When it was to start."""
    aged_time: int = column("bigint")
    """When its priority was last raised, or it became due."""
    fairness_key: str = column("text")
    blocked_by: str | None = column("text")
    """The deployment, or the fairness key (`fairness_rows.blocker_of`), whose limit was full when it was its
    turn; it is passed over until a slot is free."""
    late_time: int | None = column("bigint")
    """When it is to be marked late; None: never, or it is."""
    lost_count: int = column("smallint", default=0)
    refusals: int = column("smallint", default=0)
    excluded: str | None = column("text", default=None)
    """A JSON object: by worker id the instant until which the worker does not get the run."""


@dataclass(slots=True)
class PassRow(Entity):
    """How far a key has come in a line in which runs take turns by key."""

    TABLE = "queue_passes"
    KEY = ("name",)

    name: str = column("text")
    """The line's scope, and behind a separator the key; the scope alone for the line's own pass."""
    scope: str = column("text")
    pass_number: int = column("bigint")
    weight: int = column("int", default=WEIGHT)
    """Of the key, thousandths, as its rule in the pool says."""


@dataclass(slots=True)
class AttemptRow(Entity):
    """One worker's hold on one run, and the slots of every limit that it takes.

    There is one from the claim until the run ends, is queued again or is suspended, whatever the way: a
    slot that nobody holds cannot be left over.
    """

    TABLE = "attempt_holders"
    KEY = ("run_id",)
    GUARDS = ("fence", "session_id", "phase", "infrastructure_id")

    run_id: str = column("uuid")
    attempt: int = column("int")
    fence: int = column("bigint")
    assignment_id: str = column("uuid")
    session_id: str | None = column("uuid")
    """Who answers for it; None: only the run's own process, whose worker has gone."""
    worker_id: str = column("uuid")
    kind: int = column("smallint")
    subject: str = column("text")
    queue: str = column("text")
    deployment_id: str | None = column("text")
    phase: int = column("smallint")
    offer_time: int = column("bigint")
    slot_expire_time: int | None = column("bigint")
    """Until when it may be PENDING and hold the slot of its deployment; None: for ever."""
    infrastructure_id: str = column("text")
    on_lost: int = column("smallint")
    max_lost: int = column("int")
    lost_count: int = column("smallint")
    refusals: int = column("smallint")
    excluded: str | None = column("text")
    fairness_key: str = column("text", default="")


@dataclass(slots=True)
class TeardownRow(Entity):
    """What may be left of an attempt that was given up, until a worker has removed it."""

    TABLE = "teardowns"
    KEY = ("run_id", "fence")

    run_id: str = column("uuid")
    fence: int = column("bigint")
    attempt: int = column("int")
    work_pool: str = column("text")
    infrastructure_id: str = column("text")
    due_time: int = column("bigint")
    """When it is sent to a worker next."""
    deliveries: int = column("smallint")
    """How often it was."""
    tried: str = column("text")
    """A JSON list: the ids of the workers that it was sent to."""


@dataclass(slots=True)
class WorkerRow(Entity):
    """One worker, as it last introduced itself."""

    TABLE = "workers"
    KEY = ("id",)

    id: str = column("uuid")
    name: str = column("text")
    kind: int = column("smallint")
    work_pool: str = column("text")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    body: bytes = column("bytea")
    """headrace.v1.Worker: what does not change while it is connected."""


@dataclass(slots=True)
class SessionRow(Entity):
    """One process of a worker: what holds attempts."""

    TABLE = "worker_sessions"
    KEY = ("id",)

    id: str = column("uuid")
    worker_id: str = column("uuid")
    epoch: int = column("bigint")
    """Grows with every stream of the process."""
    replica_id: str = column("text")
    expires_at: int | None = column("bigint")
    """When its lease ends, on the clock of `Database.now`; None: it is over."""
    heartbeat_time: int = column("bigint")
    """When it was last heard, on the same clock."""
    is_draining: bool = column("bool")
    drain_deadline: int | None = column("bigint")
    """An administrator wants it to drain until then; 0: without an end. None: nobody does."""
    create_time: int = column("bigint")
    version: int = column("bigint", default=1)
    """Of everything but the lease, which is renewed in bulk."""


def why_over(epoch: int | None, own_epoch: int) -> str:
    """Why a stream may not go on, by its session's epoch now; None: the session is not there."""
    return SESSION_EXPIRED if epoch is None or epoch == own_epoch else SESSION_SUPERSEDED
