"""Two servers on a PostgreSQL of their own, workers of both kinds, schedules, and work that never ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import asyncpg

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, RUN_KIND_FLOW, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from tests.faults.ground import Ground, lease_settings
from tests.support import invariants
from tests.support.invariants import Execution
from tests.support.journals import FLOWS, executions, read_journal
from tests.support.postgres_process import PostgresProcess
from tests.support.proxy import Proxy
from tests.support.robots import Robot
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess

__all__ = ["LEASE_SECONDS", "World"]

LEASE_SECONDS: Final = 3.0
ROBOTS: Final = 8
BODY_SECONDS: Final = 2.0
PROCESS_POOL: Final = "processes"
_MOST_CONNECTIONS: Final = 20


class World:
    """Everything that can be harmed.

    Args:
        folder: for its files.
        chance: decides what is left to chance.

    Attributes:
        postgres: the database of both servers.
        servers: the two.
        database_ways: from each server to its database.
        worker_ways: from each robot to a server; the last one is the worker process's.
        robots: workers in this process.
        worker: the worker process; it is started anew when it has ended.
        ground: what is asked for, and checked in the end.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.postgres = PostgresProcess()
        self.servers: list[ServerProcess] = []
        self.database_ways: list[Proxy] = []
        self.worker_ways: list[Proxy] = []
        self.robots: list[Robot] = []
        self.worker: WorkerProcess | None = None
        self.ground = Ground(lambda: [server.address for server in self.servers])
        self.is_quiet = False
        self._process_runs: list[str] = []

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncGenerator[World]:
        """While inside, everything is there, and work is asked for."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self.postgres)
            url = stack.enter_context(self.postgres.cluster.database())
            for name in "ab":
                way = stack.enter_context(Proxy(self.postgres.address))
                self.database_ways.append(way)
                through = url.replace(self.postgres.address, way.address)
                server = ServerProcess(self.folder / name, through, lease_settings(LEASE_SECONDS))
                self.servers.append(stack.enter_context(server))
            await self.ground.make_pool()
            self._schedules = await self.ground.schedules(3)
            for number in range(ROBOTS + 1):
                way = stack.enter_context(Proxy(self.servers[number % 2].address))
                self.worker_ways.append(way)
            for way in self.worker_ways[:ROBOTS]:
                robot = Robot(lambda way=way: [way.address], limit=4)  # type: ignore[misc]
                robot.seconds = BODY_SECONDS
                self.robots.append(await stack.enter_async_context(robot))
            (self.folder / "flows.py").write_text(FLOWS)
            tasks = [
                asyncio.create_task(one()) for one in (self._ask, self._ask_processes, self._keep_worker)
            ]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if self.worker is not None:
                    self.worker.__exit__(None, None, None)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def _ask(self) -> None:
        while True:
            if not self.is_quiet:
                await self.ground.ask(1)
            await asyncio.sleep(self.chance.expovariate(4.0))

    async def _ask_processes(self) -> None:
        """Runs for the worker process: bodies that take a moment, and note what they do."""
        while True:
            if not self.is_quiet:
                await self._ask_process()
            await asyncio.sleep(2.0)

    async def _ask_process(self) -> None:
        run = Run(id=new_id(), kind=RUN_KIND_FLOW, name="nap", flow_name="nap", work_pool=PROCESS_POOL)
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder), "seconds": 0.5}).encode()
        run.retry_policy.on_lost = LOST_ATTEMPT_POLICY_RESCHEDULE
        run.retry_policy.max_lost_attempts = 1000
        run.job_variables.update({"env": {"HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:nap"}})
        await self.ground.call(lambda client: client.create_run(CreateRunRequest(run=run)))
        self._process_runs.append(run.id)

    async def _keep_worker(self) -> None:
        """There is a worker process, whatever has become of the one before."""
        way = self.worker_ways[-1]
        while True:
            if self.worker is None or self.worker.process.poll() is not None:
                environment = {**self.servers[0].environment, "HEADRACE_API_URL": way.address}
                words = ("worker", "start", "--pool", PROCESS_POOL, "--name", "chaos")
                self.worker = await asyncio.to_thread(WorkerProcess, environment, self.folder, words)
            await asyncio.sleep(0.2)

    def run_processes(self) -> list[int]:
        """Run processes whose body has begun and not ended."""
        lines = read_journal(self.folder / "journal")
        ended = {(line.run_id, line.pid) for line in lines if line.event == "end"}
        return [line.pid for line in lines if line.event == "begin" and (line.run_id, line.pid) not in ended][
            -3:
        ]

    def direct(self) -> None:
        """Have workers go to servers that live, each time to others."""
        living = [server for server in self.servers if server.process is not None]
        for way in self.worker_ways:
            target = self.chance.choice(living or self.servers).address
            if way.target not in [server.address for server in living]:
                way.send_to(target)

    async def recovered(self) -> None:
        """Wait until a run that is asked for now has completed.

        Raises:
            TimeoutError: it has not.
        """
        await self.ground.until_done(await self.ground.ask(1))

    async def violations(self, *, may_repeat: bool) -> list[str]:
        """What does not hold, once all is quiet.

        Args:
            may_repeat: something was done to workers, so that runs may have been executed again.
        """
        self.is_quiet = True
        await self.ground.until_done()
        await self.ground.until_done(self._process_runs)
        bodies = executions(read_journal(self.folder / "journal"))
        done: list[Execution] = [one for robot in self.robots for one in robot.executions]
        log = "".join(server.log for server in self.servers) + self.postgres.log
        return [
            *(f"a worker has ended: {robot.error}" for robot in self.robots if robot.error),
            *await self.ground.violations(done),
            *([] if may_repeat else invariants.executed_once([*done, *bodies])),
            *invariants.begun_once_per_fence(bodies),
            *invariants.only_the_last_overlaps(bodies, _lost_at(bodies)),
            *invariants.fires_are_exact(*await self.ground.fires(self._schedules)),
            *invariants.log_is_clean(log),
            *invariants.within("connections", await self._connections(), _MOST_CONNECTIONS),
            *invariants.within("slots left", await self._held(), 0),
        ]

    @property
    def runs(self) -> int:
        """How many were asked for."""
        return len(self.ground.asked) + len(self._process_runs)

    async def _connections(self) -> float:
        name = "application_name LIKE 'headrace %'"
        return await self._count(f"SELECT count(*) FROM pg_stat_activity WHERE {name}")

    async def _held(self) -> float:
        held = "SELECT count(*) FROM attempt_holders AS a JOIN runs AS r ON r.id = a.run_id"
        return await self._count(f"{held} WHERE r.state_type >= 6")

    async def _count(self, sql: str) -> float:
        url = self.servers[0].database_url
        assert url is not None
        connection: Any = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
        try:
            return float(await connection.fetchval(sql))
        finally:
            await connection.close()


def _lost_at(bodies: list[Execution]) -> dict[tuple[str, int], int]:
    """A body that was taken away may go on until its worker hears of it: a lease, and a moment."""
    patience = int((3 * LEASE_SECONDS + 5) * 1e9)
    newest = {one.run_id: max(b.begin for b in bodies if b.run_id == one.run_id) for one in bodies}
    return {(one.run_id, one.fence): newest[one.run_id] + patience for one in bodies}
