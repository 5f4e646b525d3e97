"""What all types of workers have in common whose runs live outside of the worker's process."""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Final, Self, TypeVar

from headrace.core.errors import HeadraceException
from headrace.logging.handlers import MARKED_LINES
from headrace.v1.worker_pb2 import (
    WORKER_CAPABILITY_GRACEFUL_CANCEL,
    WORKER_CAPABILITY_SURVIVES_RESTART,
    WORKER_CAPABILITY_TEARDOWN,
)
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.actions import FoundInfrastructure
from headrace_workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult
from headrace_workers.infrastructure.output import FollowedOutput, LogLine, ReadSoFar, read_so_far
from headrace_workers.process.endings import explain_exit

__all__ = [
    "EngineUnavailable",
    "InfrastructureEnd",
    "InfrastructureGone",
    "InfrastructureJobConfiguration",
    "InfrastructureWorker",
]

OUTPUT_SECONDS: Final = 5.0
"""How long the rest of the output is waited for when the infrastructure has ended."""
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0
_log = logging.getLogger("headrace.worker")


class EngineUnavailable(HeadraceException):
    """The engine that keeps the infrastructure does not answer now. Nothing is known of the run."""


class InfrastructureGone(HeadraceException):
    """The engine answers, and has no infrastructure of that id."""


@dataclass(frozen=True, slots=True)
class InfrastructureEnd:
    """How infrastructure has ended, as far as its engine knows.

    Attributes:
        exit_code: of its main process; None: there is none.
        reason: a sentence for what the exit code does not say, such as memory that was used up.
        never_started: no code of the user has run, e.g. the image could not be pulled.
    """

    exit_code: int | None
    reason: str = ""
    never_started: bool = False


class InfrastructureJobConfiguration(BaseJobConfiguration):
    """What every such type is configured with.

    Attributes:
        stream_output: show what the run prints in the worker's own output.
    """

    stream_output: bool = True


C = TypeVar("C", bound=InfrastructureJobConfiguration)


class InfrastructureWorker(BaseWorker[C]):
    """A type of worker whose runs outlive the worker's process.

    A subclass has `type`, `job_configuration` and the methods below that are abstract. They run on the loop
    that carries the heartbeats, so they must not block; any of them may be cancelled at any time.

    Attributes:
        search_seconds: how often it looks for infrastructure that nobody answers for.
    """

    job_configuration = InfrastructureJobConfiguration
    capabilities = (
        WORKER_CAPABILITY_GRACEFUL_CANCEL,
        WORKER_CAPABILITY_SURVIVES_RESTART,
        WORKER_CAPABILITY_TEARDOWN,
    )
    search_seconds: ClassVar[float] = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="headrace-output")
        self._watched: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self._writer.shutdown)

    # What a type of worker says.

    @abstractmethod
    async def create(self, configuration: C, assignment: Assignment) -> str:
        """Make the infrastructure of a run and start it.

        It carries `configuration.labels`, by which `find` finds it, and runs `configuration.command` with
        `configuration.env`.

        Returns:
            The infrastructure id: at most 512 characters by which any worker that reaches the engine finds
            it again.

        Raises:
            Exception: it could not be started, and nothing is left of it; no code of the user has run.
        """

    @abstractmethod
    async def watch(self, infrastructure_id: str, configuration: C) -> InfrastructureEnd:
        """Wait until it has ended.

        Raises:
            EngineUnavailable: nobody knows; it is asked again a little later.
            InfrastructureGone: somebody has removed it.
        """

    @abstractmethod
    def read_logs(
        self, infrastructure_id: str, configuration: C, since_ns: int | None
    ) -> AsyncIterator[Sequence[LogLine]]:
        """What it prints, until it has ended: lines that have come together, in their order.

        Args:
            infrastructure_id: as `create` returned it.
            configuration: of the run.
            since_ns: lines before this instant, by the engine's clock, are not wanted. Those that come all
                the same, and those of the instant that were read before, are passed over. None: all are.

        Raises:
            EngineUnavailable: it is asked again a little later, from where it was.
            InfrastructureGone: there is nothing to read.
        """

    @abstractmethod
    async def stop(self, infrastructure_id: str, configuration: C | None, grace_seconds: float) -> None:
        """End it: ask it to, and when the grace is over, make it. Nothing happens if it has ended.

        Args:
            infrastructure_id: as `create` returned it.
            configuration: of the run; None: not known, the infrastructure is a former worker's.
            grace_seconds: how long it may take to end by itself; 0: it is ended now.

        Raises:
            EngineUnavailable: the engine was not told.
            InfrastructureGone: there is nothing to end.
        """

    @abstractmethod
    async def clean_up(self, infrastructure_id: str, configuration: C | None) -> None:
        """It has ended: remove what is not to stay. `configuration` as in `stop`.

        Raises:
            EngineUnavailable, InfrastructureGone: as in `stop`.
        """

    @abstractmethod
    async def find(self) -> Sequence[FoundInfrastructure]:
        """What there is of this pool's runs, by whichever worker: running, or ended and not cleaned up.

        Raises:
            EngineUnavailable: it is asked again later.
        """

    # What follows from that.

    def base_environment(self) -> dict[str, str]:
        """Of a run on another machine: this one's home is of no use to it, the server's address is."""
        environment = dict(super().base_environment())
        environment.pop("HEADRACE_HOME", None)
        if address := self.facts.server_address():
            environment["HEADRACE_API_URL"] = address
        environment["HEADRACE__CONSOLE"] = MARKED_LINES
        # Its process ids mean nothing on this machine, even if it shares the name.
        environment["HEADRACE__HOST"] = f"{self.type}/{socket.gethostname()}"
        return environment

    async def run(
        self, configuration: C, assignment: Assignment, started: Callable[[str], None]
    ) -> BaseWorkerResult:
        infrastructure_id = await self.create(configuration, assignment)
        started(infrastructure_id)
        return await self._see_through(infrastructure_id, configuration, assignment, None)

    async def adopt(
        self, configuration: C, assignment: Assignment, infrastructure_id: str
    ) -> BaseWorkerResult:
        read = await read_so_far(assignment.run.id)
        return await self._see_through(infrastructure_id, configuration, assignment, read)

    async def _see_through(
        self, infrastructure_id: str, configuration: C, assignment: Assignment, read: ReadSoFar | None
    ) -> BaseWorkerResult:
        shown = self.facts.tell if configuration.stream_output else _nothing
        output = FollowedOutput(assignment.run, self._writer, shown, read)

        async def follow() -> None:
            for pause in _pauses():
                try:
                    async for lines in self.read_logs(infrastructure_id, configuration, output.begin()):
                        await output.take(lines)
                    return
                except InfrastructureGone:
                    return
                except EngineUnavailable:
                    await asyncio.sleep(pause)

        self._watched.add(infrastructure_id)
        following = asyncio.ensure_future(follow())
        try:
            end = await self._end_of(infrastructure_id, configuration)
            await asyncio.wait([following], timeout=OUTPUT_SECONDS)
        finally:
            self._watched.discard(infrastructure_id)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await self._cleaned_up(infrastructure_id, configuration)
        return _result(end, output.tail)

    async def _end_of(self, infrastructure_id: str, configuration: C) -> InfrastructureEnd:
        for pause in _pauses():
            try:
                return await self.watch(infrastructure_id, configuration)
            except InfrastructureGone as gone:
                return InfrastructureEnd(None, str(gone))
            except EngineUnavailable as error:
                if pause == _FIRST_PAUSE_SECONDS:
                    self.facts.tell(f"Warning: {error} Trying again; what runs goes on.")
                await asyncio.sleep(pause)
        raise AssertionError("there is always another try")

    async def _cleaned_up(self, infrastructure_id: str, configuration: C | None) -> None:
        try:
            await self.clean_up(infrastructure_id, configuration)
        except InfrastructureGone:
            pass
        except EngineUnavailable as error:
            # It is found again, and cleaned up then.
            _log.warning("%s could not be cleaned up: %s", infrastructure_id, error)

    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: C, grace_seconds: float
    ) -> None:
        for pause in _pauses():
            try:
                await self.stop(infrastructure_id, configuration, grace_seconds)
                return
            except InfrastructureGone:
                return
            except EngineUnavailable:
                await asyncio.sleep(pause)
            if infrastructure_id not in self._watched:
                return

    async def teardown(self, infrastructure_id: str) -> bool:
        try:
            await self.stop(infrastructure_id, None, 0.0)
            await self.clean_up(infrastructure_id, None)
        except (InfrastructureGone, EngineUnavailable) as error:
            _log.info("%s could not be torn down: %s", infrastructure_id, error)
            return False
        return True


def _result(end: InfrastructureEnd, tail: str) -> BaseWorkerResult:
    if end.exit_code is None:
        return BaseWorkerResult(None, end.reason, never_started=end.never_started)
    words = explain_exit(end.exit_code, reason=end.reason, last_output=tail)
    return BaseWorkerResult(end.exit_code, words, never_started=end.never_started)


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _nothing(line: str) -> None:
    pass
