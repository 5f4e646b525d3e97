"""What the tests of faults ask of servers that may go away at any time, and what they check in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from headrace.client.api import HeadraceClient
from headrace.core.errors import ServiceError
from headrace.core.ids import new_id
from headrace.settings import get_current_settings
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import LOST_ATTEMPT_POLICY_RESCHEDULE, RUN_KIND_FLOW, RetryPolicy, Run
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.schedule_pb2 import CATCH_UP_MODE_ALL, Schedule
from headrace.v1.state_pb2 import State, StateType
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support import invariants
from tests.support.invariants import Execution, StateNote

__all__ = ["LEASES", "Ground", "lease_settings"]

T = TypeVar("T")
_SECOND: Final = 1_000_000
_PATIENCE_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 5.0


def lease_settings(seconds: float) -> dict[str, str]:
    """Settings of a server whose leases are so long: short ones make for short tests."""
    return {
        "HEADRACE_SERVER_WORKER_HEARTBEAT_SECONDS": str(seconds / 6),
        "HEADRACE_SERVER_WORKER_REPLY_SECONDS": str(seconds / 2),
        "HEADRACE_SERVER_RECORDER_LEASE_SECONDS": str(seconds),
        "HEADRACE_SERVER_RECORDER_RENEW_SECONDS": str(seconds / 4),
    }


LEASES: Final = lease_settings(2.0)


class Ground:
    """Some servers on one database, seen from outside.

    Args:
        addresses: of the servers; every try asks the next one.
        pool: whose runs there are.

    Attributes:
        asked: every run that was asked for, and acknowledged, with what it was asked with.
        answers: (key, run id), one for each answer to a request to make a run.
    """

    def __init__(self, addresses: Callable[[], Sequence[str]], pool: str = "default") -> None:
        self._addresses = addresses
        self._turn = 0
        self.pool = pool
        self.asked: dict[str, str] = {}
        self.answers: list[tuple[str, str]] = []

    async def call(self, ask: Callable[[HeadraceClient], Awaitable[T]]) -> T:
        """Ask until a server answers.

        Raises:
            ServiceError: none has in time, or the question was wrong.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                addresses = self._addresses()
                self._turn += 1
                address = addresses[self._turn % len(addresses)]
                settings = replace(get_current_settings(), api_url=address)
                try:
                    async with asyncio.timeout(_CALL_SECONDS), HeadraceClient(settings) as client:
                        return await ask(client)
                except (ServiceError, TimeoutError) as error:
                    code = getattr(error, "code", "UNAVAILABLE")
                    if code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"):
                        raise
                    await asyncio.sleep(0.05)

    async def make_pool(self, limit: int | None = None) -> None:
        pool = WorkPool(name=self.pool, type="process", concurrency_limit=limit)
        await self.call(lambda client: client.create_work_pool(pool, return_existing=True))

    async def ask(self, count: int) -> list[str]:
        """Ask for runs that may be run again, each by a key of its own, until they are acknowledged."""
        policy = RetryPolicy(on_lost=LOST_ATTEMPT_POLICY_RESCHEDULE, max_lost_attempts=1000)
        ids: list[str] = []
        for _ in range(count):
            id = new_id()
            run = Run(
                id=id, kind=RUN_KIND_FLOW, name=f"r-{id}", flow_name="etl", work_pool=self.pool,
                retry_policy=policy,
            )  # fmt: skip
            request = CreateRunRequest(run=run, idempotency_key=f"key-{id}")
            answer = await self.call(lambda client, request=request: client.create_run(request))
            self.answers.append((request.idempotency_key, answer.run.id))
            self.asked[id] = run.name
            ids.append(id)
        return ids

    async def runs(self) -> list[Run]:
        """All flow runs."""

        async def ask(client: HeadraceClient) -> list[Run]:
            return [run async for run in client.iter_runs(page_size=1000)]

        return await self.call(ask)

    async def until_done(
        self, ids: Collection[str] | None = None, seconds: float = _PATIENCE_SECONDS
    ) -> None:
        """Wait until the runs have completed; None: all that were asked for.

        Raises:
            TimeoutError: they have not in time; the message says what they are.
        """
        wanted = set(self.asked if ids is None else ids)
        states: Counter[str] = Counter()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    runs = [run for run in await self.runs() if run.id in wanted]
                    states = Counter(run.state.name for run in runs)
                    if states["Completed"] == len(wanted):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TimeoutError(f"the runs are {dict(states)}") from None

    async def histories(self, ids: Collection[str]) -> dict[str, list[StateNote]]:
        """The states of runs, oldest first."""

        async def ask(client: HeadraceClient) -> dict[str, list[StateNote]]:
            return {id: [_note(state) async for state in client.iter_states(id)] for id in ids}

        return await self.call(ask)

    async def schedules(self, count: int) -> list[Schedule]:
        """Make schedules that fire each second, and make up for all that was missed."""
        deployment = Deployment(
            name="every-second", flow_name="tick", work_pool=self.pool, entrypoint="x.py:tick"
        )
        applied = await self.call(lambda client: client.apply_deployment(deployment))
        made: list[Schedule] = []
        for number in range(count):
            schedule = Schedule(deployment_id=applied.deployment.id, slug=f"s{number}")
            schedule.interval.interval.FromSeconds(1)
            schedule.catch_up.mode = CATCH_UP_MODE_ALL
            schedule.catch_up.max_runs = 1000
            made.append(await self.call(lambda client, asked=schedule: client.create_schedule(asked)))
        return made

    async def fires(
        self, schedules: Sequence[Schedule]
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """The fires that runs were made for, and those that there were, both by schedule and second."""
        made = [
            (run.schedule_id, run.expected_start_time.ToMicroseconds())
            for run in await self.runs()
            if run.schedule_id
        ]
        wanted: list[tuple[str, int]] = []
        for schedule in schedules:
            own = [at for id, at in made if id == schedule.id]
            first = schedule.next_fire_time.ToMicroseconds()
            last = max(own, default=first - _SECOND)
            wanted += [(schedule.id, at) for at in range(first, last + _SECOND, _SECOND)]
        return made, wanted

    async def violations(self, executions: Sequence[Execution]) -> list[str]:
        """What does not hold of the runs that were asked for: I1, I2, I6, I7, I8."""
        runs = {run.id: run for run in await self.runs()}
        histories = await self.histories(self.asked)
        kept = {id: run.name for id, run in runs.items()}
        states = {id: _type(runs[id].state) for id in self.asked if id in runs}
        rows = Counter(f"key-{id}" for id in kept)
        return [
            *invariants.acknowledged_is_kept(self.asked, kept),
            *invariants.begun_once_per_fence(executions),
            *invariants.one_accepted_end(histories),
            *invariants.terminal_is_final(histories),
            *invariants.all_settled(states, lambda _: False),
            *invariants.one_run_per_key(self.answers, rows),
        ]


def _type(state: State) -> str:
    return StateType.Name(state.type).removeprefix("STATE_TYPE_")


def _note(state: State) -> StateNote:
    is_guess = state.HasField("crashed") and bool(state.crashed.cause)
    return StateNote(_type(state), state.name, is_guess)
