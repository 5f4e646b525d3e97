"""Machines with one worker each: the real session, and processes that only tell what they do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.errors import DatabaseUnavailable, ServerUnavailable, ServiceError, StaleAttempt
from headrace.core.ids import new_id
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, STATE_TYPE_RUNNING, State, StateType
from headrace.v1.worker_service_pb2 import Assignment, ConnectResponse, WorkerHello
from headrace_workers.actions import Attempt, Begin, Cancel, Close, Finish, Kill, Open, Send
from headrace_workers.session import SessionOptions, WorkerSession
from tests.simulation.servers import Pipe, Replica

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Host"]

LIMIT = 6
_PATIENCE = (DatabaseUnavailable, ServerUnavailable)


class Host:
    """One machine.

    Attributes:
        is_up: it is.
        frozen_until: nothing on it moves before.
        cut_until: no network before.
    """

    def __init__(self, world: World, number: int, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._worker_id = f"0199aaaa-0000-7000-8000-{number:012d}"
        self._name = f"worker-{number}"
        self.is_up = False
        self.frozen_until = self.cut_until = 0.0
        self._pipes: dict[int, tuple[Replica, Pipe]] = {}
        self._processes: dict[Attempt, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._life = 0

    def start(self) -> None:
        """Boot: a new worker process of the same worker."""
        self.is_up = True
        self._life += 1
        hello = WorkerHello(worker_id=self._worker_id, name=self._name, work_pool="pool", type="process")
        self.session = WorkerSession(SessionOptions(hello, limit=LIMIT), self._chance.random)
        self._do(lambda: self.session.tick(self._now))

    def crash(self) -> None:
        """The machine is gone, with everything on it."""
        self.is_up = False
        if self._timer is not None:
            self._timer.cancel()
        for replica, pipe in self._pipes.values():
            replica.cut(pipe)
        self._pipes.clear()
        for task in self._processes.values():
            task.cancel()
        self._processes.clear()

    def break_streams(self, *, silently: bool) -> None:
        """Its streams end, or swallow whatever is sent from now on."""
        for stream, (replica, pipe) in list(self._pipes.items()):
            if silently:
                pipe.is_hole = True
            else:
                replica.cut(pipe)
                self._pipes.pop(stream)
                self._later(lambda stream=stream: self._ended(stream, ServerUnavailable("The stream broke.")))

    @property
    def _now(self) -> float:
        return self._world.loop.now

    @property
    def is_cut(self) -> bool:
        """There is no network."""
        return self._now < self.cut_until

    # The session and the world

    def _do(self, event: Callable[[], None]) -> None:
        """Something has happened, as soon as the machine moves."""
        life = self._life

        def happen() -> None:
            if self._life != life or not self.is_up:
                return
            if self._now < self.frozen_until:
                self._world.loop.call_at(self.frozen_until, happen)
                return
            event()
            self._act()

        happen()

    def _later(self, event: Callable[[], None]) -> None:
        self._world.loop.call_later(0.01, lambda: self._do(event))

    def _act(self) -> None:
        for action in self.session.take():
            match action:
                case Open(stream, hello):
                    self._open(stream, lambda pipe, hello=hello: pipe.say(hello))
                case Send(stream, request) if stream in self._pipes:
                    self._pipes[stream][1].say(request)
                case Close(stream, _) if stream in self._pipes:
                    self._pipes.pop(stream)[1].hang_up()
                case Begin(attempt, assignment):
                    self._processes[attempt] = asyncio.create_task(self._process(attempt, assignment))
                case Kill(attempt, _) | Cancel(attempt, _, _):
                    self._kill(attempt)
                case Finish(error):
                    self._world.violations["a worker gave up"] += 1
                    self._world.notes.append(f"{self._name} finished: {error}")
                case _:
                    pass
        if self._timer is not None:
            self._timer.cancel()
        due = self.session.due()
        if due is not None:
            at = max(due, self._now)
            self._timer = self._world.loop.call_at(at, lambda: self._do(lambda: self.session.tick(self._now)))

    def _open(self, stream: int, greet: Callable[[Pipe], None]) -> None:
        up = [replica for replica in self._world.replicas if replica.is_up]
        if self.is_cut or not up:
            self._later(lambda: self._ended(stream, ServerUnavailable("Nobody answers.")))
            return
        replica = self._chance.choice(up)
        pipe = replica.connect(
            lambda response: self._do(lambda: self._hear(stream, response)),
            lambda error: self._do(lambda: self._ended(stream, error)),
        )
        self._pipes[stream] = (replica, pipe)
        greet(pipe)

    def _hear(self, stream: int, response: ConnectResponse) -> None:
        if stream in self._pipes:
            self.session.received(stream, response, self._now)

    def _ended(self, stream: int, error: ServiceError | None) -> None:
        self._pipes.pop(stream, None)
        self.session.ended(stream, error, self._now)

    # Processes

    def _kill(self, attempt: Attempt) -> None:
        task = self._processes.pop(attempt, None)
        if task is not None:
            task.cancel()
            self._later(lambda: self.session.exited(attempt, -9, "killed", False, self._now))

    async def _process(self, attempt: Attempt, assignment: Assignment) -> None:
        """One run's own process: it asks to run, works, and says that it has completed."""
        await self._sleep(self._chance.uniform(0.1, 3.0))
        self._do(lambda: self.session.started(attempt, f"{self._name}:{attempt.fence}", self._now))
        if await self._propose(attempt, STATE_TYPE_RUNNING):
            self._world.executed(attempt)
            await self._sleep(self._chance.uniform(20.0, 320.0))
            await self._propose(attempt, STATE_TYPE_COMPLETED)
        self._processes.pop(attempt, None)
        self._do(lambda: self.session.exited(attempt, 0, "", False, self._now))

    async def _sleep(self, seconds: float) -> None:
        """Work for so long; a machine that is frozen does not."""
        end = self._now + seconds
        while self._now < end or self._now < self.frozen_until:  # noqa: ASYNC110 - time is all there is
            await asyncio.sleep(max(0.001, max(end, self.frozen_until) - self._now))

    async def _propose(self, attempt: Attempt, type: StateType.ValueType) -> bool:
        """Ask until somebody decides. Whether the state was entered."""
        state = State(id=new_id(), type=type)
        while True:
            state.event_time.FromMicroseconds(self._world.shared.clock.now())
            replica = self._chance.choice(self._world.replicas)
            try:
                if self.is_cut:
                    raise ServerUnavailable("There is no network.")
                verdict = await replica.call(lambda database: self._world.propose(database, attempt, state))
                if self._chance.random() < self._world.loses_answers:
                    raise ServerUnavailable("The answer was lost.")
            except StaleAttempt:
                return False
            except _PATIENCE:
                await self._sleep(self._chance.uniform(0.5, 3.0))
                continue
            if verdict.WhichOneof("verdict") == "wait":
                state.id = new_id()
                await self._sleep(_wait_seconds(verdict))
                continue
            return verdict.WhichOneof("verdict") == "accepted"


def _wait_seconds(verdict: ProposeStateResponse) -> float:
    return max(0.1, verdict.wait.retry_after.ToMicroseconds() / 1e6)
