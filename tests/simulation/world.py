"""Workers, replicas, a database, what goes wrong with them, and what must hold all the same."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.core.errors import DatabaseUnavailable, ServerUnavailable
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, RUN_KIND_FLOW, AttemptRef, Run
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_CANCELLING, STATE_TYPE_COMPLETED, State
from headrace.v1.work_pool_pb2 import WorkPool
from headrace_services.storage.database import Database
from headrace_services.storage.work_pool_commands import CreateWorkPool
from headrace_workers.actions import Attempt
from tests.simulation.hosts import Host
from tests.simulation.servers import HEARTBEAT_SECONDS, Replica, Shared
from tests.simulation.virtual import VirtualLoop

__all__ = ["Outcome", "World"]

LEASE_SECONDS = 6 * HEARTBEAT_SECONDS
Faults = Literal["none", "server", "all"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one world.

    Attributes:
        violations: what must not happen and did, counted by its name.
        notes: more about them, and what was done to the world before.
        executions: how often user code began, over all runs.
        commits: of the database.
    """

    violations: Counter[str]
    notes: list[str]
    executions: int
    commits: int


class World:
    """One seeded history.

    Args:
        loop: whose time passes.
        path: of a migrated SQLite file.
        seed: of everything that is left to chance.
        faults: what may go wrong: nothing, what servers and networks do, or workers' machines as well.
        hours: how long it goes on; the last part of it nothing new goes wrong.
        runs: how many are asked for.
        limit: of the work pool.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        path: Path,
        seed: int,
        faults: Faults,
        hours: float,
        runs: int,
        limit: int = 10,
    ) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.shared = Shared(path, loop, random.Random(seed + 1))
        self.faults = faults
        self.end = hours * 3600
        self.quiet_from = self.end - 12 * LEASE_SECONDS
        self.runs = runs
        self.limit = limit
        self.loses_answers = 0.0
        self.replicas = [Replica(f"replica-{n}", self.shared) for n in range(2)]
        self.hosts = [Host(self, n, random.Random(seed * 100 + n)) for n in range(4)]
        self.violations: Counter[str] = Counter()
        self.notes: list[str] = []
        self._asked: list[str] = []
        self._executions: dict[str, list[Attempt]] = defaultdict(list)
        self._newest_fence: dict[str, int] = defaultdict(int)
        self._cancelled: set[str] = set()
        self._finals: dict[str, set[str]] = defaultdict(set)

    # What is noted

    def executed(self, attempt: Attempt) -> None:
        """User code has begun."""
        self._executions[attempt.run_id].append(attempt)

    async def propose(self, database: Database, attempt: Attempt, state: State) -> ProposeStateResponse:
        """Propose on behalf of a run's process, and note what is accepted."""
        ref: AttemptRef = attempt.to_message()
        verdict = await database.writer.propose_state(attempt.run_id, ref, state)
        if verdict.WhichOneof("verdict") == "accepted" and verdict.accepted.state.id == state.id:
            if attempt.fence < self._newest_fence[attempt.run_id]:
                self._violate("a stale writer was accepted", attempt.run_id)
            self._newest_fence[attempt.run_id] = max(self._newest_fence[attempt.run_id], attempt.fence)
            if state.type == STATE_TYPE_COMPLETED:
                self._finals[attempt.run_id].add(state.id)
                if len(self._finals[attempt.run_id]) > 1:
                    self._violate("a run ended twice", attempt.run_id)
        return verdict

    def _violate(self, what: str, run_id: str) -> None:
        self.violations[what] += 1
        self.notes.append(f"{self.loop.now:.1f} {what}: {run_id}")

    # Its history

    async def live(self) -> Outcome:
        """From the beginning to the end."""
        for replica in self.replicas:
            await replica.start()
        pool = WorkPool(name="pool", type="process", concurrency_limit=self.limit)
        await self.replicas[0].database.writer.do(CreateWorkPool(pool, False))
        for host in self.hosts:
            host.start()
        tasks = [asyncio.create_task(one()) for one in (self._ask, self._cancel, self._watch)]
        if self.faults != "none":
            tasks.append(asyncio.create_task(self._harm()))
        await asyncio.sleep(self.end)
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._judge()
        for host in self.hosts:
            host.crash()
        for replica in self.replicas:
            await replica.kill()
        executions = sum(len(all) for all in self._executions.values())
        return Outcome(self.violations, self.notes, executions, self.shared.commits)

    async def _ask(self) -> None:
        """Runs are asked for, now one and now many, over most of the time."""
        while len(self._asked) < self.runs:
            for _ in range(min(self.chance.choice([1, 1, 2, 15]), self.runs - len(self._asked))):
                run = Run(
                    id=new_id(), kind=RUN_KIND_FLOW, name="otter", flow_name="etl", work_pool="pool",
                    priority=self.chance.randrange(3),
                )  # fmt: skip
                run.retry_policy.on_lost = LOST_ATTEMPT_POLICY_RESCHEDULE
                run.retry_policy.max_lost_attempts = 10_000
                await self._create(run)
                self._asked.append(run.id)
            await asyncio.sleep(self.chance.expovariate(4 * self.runs / self.quiet_from))

    async def _create(self, run: Run) -> None:
        while True:
            try:
                await self.chance.choice(self.replicas).call(lambda database: database.writer.create_run(run))
                return
            except Exception as error:
                if getattr(error, "code", "") != "UNAVAILABLE":
                    raise
                await asyncio.sleep(1.0)

    async def _cancel(self) -> None:
        """Now and then somebody cancels a run, whether it waits, runs or has ended."""
        while True:
            await asyncio.sleep(self.chance.expovariate(12 / self.quiet_from))
            if not self._asked or self.loop.now > self.quiet_from:
                continue
            run_id = self.chance.choice(self._asked)
            self._cancelled.add(run_id)
            with contextlib.suppress(DatabaseUnavailable, ServerUnavailable):
                await self._propose_cancel(self.chance.choice(self.replicas), run_id)

    async def _propose_cancel(self, replica: Replica, run_id: str) -> None:
        state = State(id=new_id(), type=STATE_TYPE_CANCELLING)
        state.event_time.FromMicroseconds(self.shared.clock.now())
        await replica.call(lambda database: database.writer.propose_state(run_id, None, state))

    async def _watch(self) -> None:
        """The limit is never exceeded, whoever looks."""
        while True:
            held = self._count("SELECT COUNT(*) FROM attempt_holders")
            if held > self.limit:
                self._violate(f"{held} slots of {self.limit} were taken", "")
            await asyncio.sleep(20.0)

    def _count(self, sql: str) -> int:
        backend = self.shared.backends[0] if self.shared.backends else None
        if backend is None:
            return 0
        return int(backend._read(sql, ())[0][0])

    async def _harm(self) -> None:
        """Something goes wrong every few minutes, until it is to be quiet."""
        self.shared.loses_answers, self.loses_answers = 0.01, 0.1
        kinds = [self._database_down, self._replica_dies, self._stream_breaks, self._stream_swallows]
        if self.faults == "all":
            kinds += [self._host_crashes, self._host_freezes, self._host_is_cut]
        while self.loop.now < self.quiet_from:
            await asyncio.sleep(self.chance.expovariate(1 / 180))
            await self.chance.choice(kinds)()
        self.shared.loses_answers = self.loses_answers = 0.0

    def _span(self) -> float:
        """How long something is wrong: a moment, about a lease, or much longer."""
        return self.chance.choice([5.0, 60.0, LEASE_SECONDS, 3 * LEASE_SECONDS]) * self.chance.uniform(
            0.5, 1.5
        )

    def _note(self, what: str) -> None:
        self.notes.append(f"{self.loop.now:.1f} {what}")

    async def _database_down(self) -> None:
        self.shared.down_until = self.loop.now + self._span()
        self._note(f"database down until {self.shared.down_until:.1f}")

    async def _replica_dies(self) -> None:
        replica = self.chance.choice(self.replicas)
        if not replica.is_up:
            return
        back = self._span()
        self._note(f"{replica.name} dies for {back:.1f}")
        await replica.kill()
        self.loop.call_later(back, lambda: asyncio.ensure_future(replica.start()))

    async def _stream_breaks(self) -> None:
        self.chance.choice(self.hosts).break_streams(silently=False)

    async def _stream_swallows(self) -> None:
        self.chance.choice(self.hosts).break_streams(silently=True)

    async def _host_crashes(self) -> None:
        host = self.chance.choice(self.hosts)
        if host.is_up:
            back = self._span()
            self._note(f"host {self.hosts.index(host)} crashes for {back:.1f}")
            host.crash()
            self.loop.call_later(back, host.start)

    async def _host_freezes(self) -> None:
        host = self.chance.choice(self.hosts)
        host.frozen_until = self.loop.now + self._span()
        self._note(f"host {self.hosts.index(host)} frozen until {host.frozen_until:.1f}")

    async def _host_is_cut(self) -> None:
        host = self.chance.choice(self.hosts)
        host.cut_until = self.loop.now + self._span()
        host.break_streams(silently=True)
        self._note(f"host {self.hosts.index(host)} cut until {host.cut_until:.1f}")

    # What is asked in the end

    async def _judge(self) -> None:
        database = self.replicas[0].database
        if len(self._asked) < self.runs:
            self._violate("not all runs could be asked for", "")
        for run_id in self._asked:
            run = await database.reader.get_run(run_id)
            may_be = {STATE_TYPE_COMPLETED} | ({STATE_TYPE_CANCELLED} if run_id in self._cancelled else set())
            if run.state.type not in may_be:
                self._violate(f"a run is not done but {run.state.name}", run_id)
            states, _ = await database.reader.list_states(run_id, page_size=1000)
            if any(state.type in may_be for state in states[:-1]):
                self._violate("a run that had ended went on", run_id)
            times = len(self._executions[run_id])
            if times > 1 and self.faults != "all":
                self._violate("a run was executed twice though no machine failed", run_id)
        if self._count("SELECT COUNT(*) FROM attempt_holders"):
            self._violate("slots are still taken", "")
        if self._count("SELECT COUNT(*) FROM run_queue"):
            self._violate("runs are still queued", "")
