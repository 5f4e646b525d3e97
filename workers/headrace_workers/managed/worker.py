"""Runs of managed pools: each in a process on the server's machine, with the packages that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import field_validator

from headrace.core.job_templates import MANAGED
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseWorkerResult
from headrace_workers.managed.environments import EnvironmentFailed, Environments
from headrace_workers.output import OutputLog
from headrace_workers.process.worker import (
    ProcessJobConfiguration,
    ProcessWorker,
    inherited_environment,
)

__all__ = ["ManagedJobConfiguration", "ManagedWorker"]

_MEMORY_SHARE: Final = 0.75
_LOGGER: Final = "pip"


class ManagedJobConfiguration(ProcessJobConfiguration):
    """What a run of a managed pool is started with.

    Attributes:
        pip_packages: requirements as pip knows them, one each; none: what the server's machine has.
    """

    stream_output: bool = False
    pip_packages: tuple[str, ...] = ()

    @field_validator("pip_packages")
    @classmethod
    def _one_line_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not line.strip() or len(line.splitlines()) != 1:
                raise ValueError(
                    f"{line!r} is no requirement: give one of them per item, such as 'requests>=2'"
                )
        return tuple(line.strip() for line in value)


class ManagedWorker(ProcessWorker):
    """Runs each flow run in a process on the server's machine.

    Args:
        environments: with the packages of runs.
    """

    type: ClassVar[str] = MANAGED
    job_configuration = ManagedJobConfiguration

    def __init__(self, environments: Environments) -> None:
        super().__init__()
        self._environments = environments
        # Runs whose packages are being seen to; None: told to end meanwhile.
        self._preparing: dict[str, asyncio.Task[Any] | None] = {}
        self._memory_bytes = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._environments.sweep)
        await super().__aenter__()
        return self

    async def run(
        self,
        configuration: ProcessJobConfiguration,
        assignment: Assignment,
        started: Callable[[str], None],
    ) -> BaseWorkerResult:
        assert isinstance(configuration, ManagedJobConfiguration)
        if configuration.memory_limit is None:
            configuration = configuration.model_copy(update={"memory_limit": str(self._memory_bytes)})
        if not configuration.pip_packages:
            return await self.execute(configuration, assignment, started)
        attempt = assignment.attempt
        identifier = f"{socket.gethostname()}:{attempt.run_id}:{attempt.fence}"
        started(identifier)

        def is_started(identifier: str) -> None:
            # Told to end it after the packages were there, and before the process was.
            if self._preparing.pop(identifier) is None:
                self.end_at_once(identifier)

        try:
            async with self._environment(identifier, configuration, assignment) as python:
                return await self.execute(
                    configuration, assignment, is_started, python=python, identifier=identifier
                )
        except EnvironmentFailed as error:
            message = f"The packages of the run could not be installed: {error}"
            return BaseWorkerResult(None, message, never_started=True)
        except _EndedEarly:
            message = "It was ended before its packages were installed."
            return BaseWorkerResult(None, message, never_started=True)
        finally:
            self._preparing.pop(identifier, None)

    @contextlib.asynccontextmanager
    async def _environment(
        self, identifier: str, configuration: ManagedJobConfiguration, assignment: Assignment
    ) -> AsyncGenerator[Path]:
        """While inside, the packages are there; their interpreter.

        Raises:
            EnvironmentFailed: they cannot be installed.
            _EndedEarly: the run was ended meanwhile.
        """
        run = assignment.run
        log = OutputLog(run.id, run.root_run_id, run.run_count + 1, self._writer)

        async def tell(lines: list[str]) -> None:
            await log.keep(lines, _LOGGER, logging.INFO)

        variables = {**inherited_environment(None), **configuration.env}
        async with contextlib.AsyncExitStack() as stack:
            used = self._environments.use(configuration.pip_packages, variables, tell)
            preparing = asyncio.ensure_future(stack.enter_async_context(used))
            self._preparing[identifier] = preparing
            try:
                python = await preparing
            except asyncio.CancelledError:
                preparing.cancel()
                if self._preparing[identifier] is None:
                    raise _EndedEarly from None
                raise
            yield python

    async def kill_infrastructure(
        self, infrastructure_id: str, configuration: ProcessJobConfiguration, grace_seconds: float
    ) -> None:
        if infrastructure_id in self._preparing:
            preparing = self._preparing[infrastructure_id]
            self._preparing[infrastructure_id] = None
            if preparing is not None:
                preparing.cancel()
        else:
            await super().kill_infrastructure(infrastructure_id, configuration, grace_seconds)

    async def cancel_gently(
        self, infrastructure_id: str, configuration: ProcessJobConfiguration, reason: str
    ) -> None:
        if infrastructure_id in self._preparing:
            # No code of the user runs that could want to tidy up.
            await self.kill_infrastructure(infrastructure_id, configuration, 0.0)
        else:
            await super().cancel_gently(infrastructure_id, configuration, reason)


class _EndedEarly(Exception):
    """The run was ended before it had its packages."""
