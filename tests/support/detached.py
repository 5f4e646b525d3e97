"""A type of worker whose runs are processes that outlive it: infrastructure without an engine.

Each run has a folder with what an engine would know of it. `install` makes the type known to
`headrace worker start --type detached` in processes that have the folder on their PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from headrace.core.ids import new_id
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.actions import FoundInfrastructure
from headrace_workers.infrastructure.labels import WORK_POOL, attempt_of
from headrace_workers.infrastructure.output import LogLine
from headrace_workers.infrastructure.worker import (
    EngineUnavailable,
    InfrastructureEnd,
    InfrastructureGone,
    InfrastructureJobConfiguration,
    InfrastructureWorker,
)

__all__ = ["DetachedWorker", "install", "remove_all"]

HOME = "DETACHED_HOME"
_SCRIPT = "{command} >out 2>&1 & echo $! >pid; wait $!; echo $? >exit.new; mv exit.new exit"


def install(folder: pathlib.Path) -> dict[str, str]:
    """Make the type known; the variables of processes that are to know it."""
    point = folder / "path" / "detached-1.dist-info"
    point.mkdir(parents=True)
    (point / "METADATA").write_text("Metadata-Version: 2.1\nName: detached\nVersion: 1\n")
    (point / "entry_points.txt").write_text(
        "[headrace.workers]\ndetached = tests.support.detached:DetachedWorker\n"
    )
    root = pathlib.Path(__file__).parents[2]
    return {HOME: str(folder / "engine"), "PYTHONPATH": f"{folder / 'path'}{os.pathsep}{root}"}


def remove_all(folder: pathlib.Path) -> None:
    """End what still runs: nobody else does when a test has failed."""
    for noted in (folder / "engine").glob("*/pid"):
        if not noted.with_name("exit").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(noted.read_text()), signal.SIGKILL)


class DetachedWorker(InfrastructureWorker[InfrastructureJobConfiguration]):
    """Its engine is a folder; while a file `away` is in it, the engine does not answer."""

    type: ClassVar[str] = "detached"
    search_seconds: ClassVar[float] = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.engine = pathlib.Path(os.environ[HOME])
        self.engine.mkdir(exist_ok=True)

    def _folder(self, infrastructure_id: str) -> pathlib.Path:
        if (self.engine / "away").exists():
            raise EngineUnavailable("The engine does not answer.")
        folder = self.engine / infrastructure_id
        if not folder.is_dir():
            raise InfrastructureGone(f"There is no {infrastructure_id}.")
        return folder

    async def create(self, configuration: InfrastructureJobConfiguration, assignment: Assignment) -> str:
        infrastructure_id = new_id()
        folder = self.engine / infrastructure_id
        folder.mkdir()
        (folder / "labels").write_text(json.dumps(configuration.labels))
        command = configuration.command
        if configuration.is_default_command:
            command = shlex.join([sys.executable, "-m", "headrace", "flow-run", "execute"])
        subprocess.Popen(  # noqa: ASYNC220 - it is not waited for
            ["sh", "-c", _SCRIPT.format(command=command)],
            cwd=folder,
            env={**os.environ, **configuration.env},
            start_new_session=True,
        )
        return infrastructure_id

    async def watch(
        self, infrastructure_id: str, configuration: InfrastructureJobConfiguration
    ) -> InfrastructureEnd:
        while not (self._folder(infrastructure_id) / "exit").exists():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        return InfrastructureEnd(int((self._folder(infrastructure_id) / "exit").read_text()))

    async def read_logs(
        self, infrastructure_id: str, configuration: InfrastructureJobConfiguration, since_ns: int | None
    ) -> AsyncIterator[Sequence[LogLine]]:
        folder, at = self._folder(infrastructure_id), 0
        while True:
            is_over = (folder / "exit").exists()
            lines = (folder / "out").read_text().splitlines() if (folder / "out").exists() else []
            if lines[at:]:
                yield [LogLine(line) for line in lines[at:]]
            at = len(lines)
            if is_over:
                return
            await asyncio.sleep(0.02)

    async def stop(
        self,
        infrastructure_id: str,
        configuration: InfrastructureJobConfiguration | None,
        grace_seconds: float,
    ) -> None:
        folder = self._folder(infrastructure_id)
        if (folder / "exit").exists():
            return
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)

    async def clean_up(
        self, infrastructure_id: str, configuration: InfrastructureJobConfiguration | None
    ) -> None:
        (self._folder(infrastructure_id) / "cleaned").touch()

    async def find(self) -> Sequence[FoundInfrastructure]:
        found: list[FoundInfrastructure] = []
        for folder in self.engine.iterdir():
            if not (folder / "labels").exists() or (folder / "cleaned").exists():
                continue
            labels = json.loads((folder / "labels").read_text())
            attempt = attempt_of(labels)
            if attempt is not None and labels.get(WORK_POOL) == self.facts.work_pool:
                found.append(FoundInfrastructure(attempt, folder.name))
        return found
