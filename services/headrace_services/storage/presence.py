"""Which workers are online, by what they serve: what pools, queues and deployments are ready by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from headrace.v1.worker_pb2 import Worker
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect

__all__ = ["Presence", "read_presence"]

_SQL: Final = (
    "SELECT w.work_pool, w.body, s.heartbeat_time FROM worker_sessions AS s "
    "JOIN workers AS w ON w.id = s.worker_id WHERE s.expires_at IS NOT NULL AND s.expires_at > ?"
)


@dataclass(slots=True)
class Presence:
    """Who is online.

    Attributes:
        pools: per work pool the number of its workers.
        heard: when somebody was last heard, microseconds, per (pool, queue); a queue of None stands for
            those who serve every queue of the pool.
        deployments: when somebody who serves the deployment, by its id, was last heard.
    """

    pools: dict[str, int] = field(default_factory=dict[str, int])
    heard: dict[tuple[str, str | None], int] = field(default_factory=dict[tuple[str, str | None], int])
    deployments: dict[str, int] = field(default_factory=dict[str, int])

    def of_queue(self, pool: str, queue: str) -> int | None:
        """When somebody who takes runs of the queue was last heard; None: nobody is there."""
        heard = [self.heard[key] for key in ((pool, queue), (pool, None)) if key in self.heard]
        return max(heard, default=None)


async def read_presence(backend: Backend, dialect: Dialect) -> Presence:
    """Who is online, by the clock of leases."""
    now = await backend.lease_now()
    found = Presence()
    rows: Any = await backend.fetch(_SQL, [now])
    for pool, body, heard_at in rows:
        worker = Worker.FromString(body)
        if pool:
            found.pools[pool] = found.pools.get(pool, 0) + 1
            for queue in worker.work_queues or (None,):
                key = (pool, queue)
                found.heard[key] = max(heard_at, found.heard.get(key, 0))
        for deployment_id in worker.deployment_ids:
            found.deployments[deployment_id] = max(heard_at, found.deployments.get(deployment_id, 0))
    return found
