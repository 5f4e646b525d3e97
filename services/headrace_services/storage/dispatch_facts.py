"""What the rules of dispatch may know of pools, queues and deployments, loaded in the claim's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeVar

from headrace.v1.deployment_pb2 import COLLISION_STRATEGY_CANCEL_NEW, Deployment
from headrace_services.domain.claims import Facts, Limit, Line, Offer, RouteKind
from headrace_services.storage.declared_rows import DeploymentRow, WorkPoolRow, WorkQueueRow
from headrace_services.storage.entities import Lock, Where
from headrace_services.storage.fairness_rows import FairnessRuleRow
from headrace_services.storage.instants import duration_micros
from headrace_services.storage.steps import Steps, call
from headrace_services.storage.work import Work

__all__ = ["DispatchFacts"]

L = TypeVar("L", WorkPoolRow, WorkQueueRow, DeploymentRow)

_GRACE_MICROS: Final = 300 * 1_000_000


class DispatchFacts:
    """Loads `Facts`, step by step; a limit that is in force is locked until the transaction ends.

    Attributes:
        facts: as far as they were loaded.
        default_queues: by pool, the name of its default queue.
        deployments: by id, those that are there.
        limited_pools: names of those in which some fairness key has a limit.
    """

    def __init__(self, work: Work, offers: Sequence[Offer]) -> None:
        self._work = work
        self.facts = Facts(work.now, offers=offers)
        self.default_queues: dict[str, str] = {}
        self.deployments: dict[str, DeploymentRow] = {}
        self.limited_pools: set[str] = set()
        self._specs: dict[str, Deployment] = {}

    def load_pools(self, names: Collection[str], *, lock: bool = True) -> Steps[None]:
        """Make the facts know about the pools and their queues."""
        if not names:
            return
        rows = self._work.rows
        pools = yield from rows.find(WorkPoolRow, [("name", "in", sorted(names))], lock=Lock.NONE)
        ids = sorted(pool.id for pool in pools)
        if ids:
            queues = yield from rows.find(WorkQueueRow, [("pool_id", "in", ids)], lock=Lock.NONE)
            yield from self.take_pools(pools, queues, lock=lock)

    def take_pools(
        self, pools: Sequence[WorkPoolRow], queues: Sequence[WorkQueueRow], *, lock: bool = True
    ) -> Steps[None]:
        """As `load_pools`, of pools and queues that were found without locks."""
        ids = {pool.id: pool.name for pool in pools}
        if lock:
            pools = yield from self._locked(WorkPoolRow, pools)
            queues = yield from self._locked(WorkQueueRow, queues)
        for pool in pools:
            self.facts.pools[pool.name] = Line(Limit(pool.concurrency_limit), pool.is_paused)
            if pool.has_key_limits:
                self.limited_pools.add(pool.name)
        for queue in queues:
            line = Line(Limit(queue.concurrency_limit), queue.is_paused, queue.priority)
            self.facts.queues[ids[queue.pool_id], queue.name] = line
            if queue.is_default:
                self.default_queues[ids[queue.pool_id]] = queue.name
        yield from self._count_lines()

    def _locked(self, cls: type[L], rows: Sequence[L]) -> Steps[list[L]]:
        """The rows; those with a limit as they are once they are locked."""
        limited = [row.id for row in rows if row.concurrency_limit is not None]
        if not limited:
            return list(rows)
        locked = yield from self._work.rows.find(cls, [("id", "in", sorted(limited))], lock=Lock.CHANGE)
        now = {row.id: row for row in locked}
        return [now.get(row.id, row) for row in rows]

    def _count_lines(self) -> Steps[None]:
        facts = self.facts
        limited = {name for name, line in facts.pools.items() if line.limit.slots is not None}
        limited |= {key[0] for key, line in facts.queues.items() if line.limit.slots is not None}
        if not limited:
            return
        for pool, queue, held in (yield from call("count_lines", sorted(limited))):
            if pool in facts.pools:
                facts.pools[pool].limit.held += held
            line = facts.queues.get((pool, queue))
            if line is not None:
                line.limit.held += held

    def load_deployments(self, ids: Iterable[str], *, lock: bool = True) -> Steps[None]:
        """Make the facts know about the deployments' limits."""
        wanted = sorted(set(ids) - self.deployments.keys())
        if not wanted:
            return
        rows = self._work.rows
        found = yield from rows.find(DeploymentRow, [("id", "in", wanted)], lock=Lock.NONE)
        if lock:
            found = yield from self._locked(DeploymentRow, found)
        self.deployments.update((row.id, row) for row in found)
        limited = {row.id: Limit(row.concurrency_limit) for row in found if row.concurrency_limit is not None}
        if not limited:
            return
        for id, held in (yield from call("count_deployments", sorted(limited), self._work.now)):
            limited[id].held = held
        self.facts.deployments.update(limited)

    def load_keys(self, pairs: Iterable[tuple[str, str]], *, lock: bool = True) -> Steps[None]:
        """Make the facts know about the limits of fairness keys, by pool and key, in pools that are known."""
        wanted = sorted({pair for pair in pairs if pair[0] in self.limited_pools and pair[1]})
        if not wanted:
            return
        pools, keys = (sorted({pair[place] for pair in wanted}) for place in (0, 1))
        where: Where = [
            ("work_pool", "in", pools),
            ("fairness_key", "in", keys),
            ("concurrency_limit", "is", True),
        ]
        rows = yield from self._work.rows.find(
            FairnessRuleRow, where, lock=Lock.CHANGE if lock else Lock.NONE
        )
        limits = {(row.work_pool, row.fairness_key): Limit(row.concurrency_limit) for row in rows}
        if not limits:
            return
        for pool, key, held in (yield from call("count_keys", pools, keys)):
            if (pool, key) in limits:
                limits[pool, key].held = held
        self.facts.keys.update(limits)

    def cancels_new(self, deployment_id: str) -> bool:
        """Whether a run that finds the deployment's limit full is cancelled."""
        return self._spec(deployment_id).concurrency.collision_strategy == COLLISION_STRATEGY_CANCEL_NEW

    def slot_expire_time(self, deployment_id: str) -> int | None:
        """Until when a run may be PENDING and hold a slot of the deployment; None: it has no limit."""
        if deployment_id not in self.facts.deployments:
            return None
        concurrency = self._spec(deployment_id).concurrency
        grace = duration_micros(concurrency.grace) if concurrency.HasField("grace") else _GRACE_MICROS
        return self._work.now + grace

    def queue_name(self, kind: RouteKind, subject: str, queue: str) -> str:
        """The queue's name; the pool's default queue where none is said."""
        return queue or (self.default_queues.get(subject, "") if kind is RouteKind.WORK_POOL else "")

    def _spec(self, deployment_id: str) -> Deployment:
        spec = self._specs.get(deployment_id)
        if spec is None:
            spec = self._specs[deployment_id] = Deployment.FromString(self.deployments[deployment_id].spec)
        return spec
