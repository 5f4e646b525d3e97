"""A run process that is started from nothing: for commands and environments of the user's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from headrace_workers.process.limits import Limits
from headrace_workers.process.system import die_with_parent
from headrace_workers.process.warm import Ended

__all__ = ["ColdProcess"]


class ColdProcess:
    """Any command, in a process group of its own.

    Attributes:
        pid: its process id.
        output: where its standard output, error and log lines can be read.
        ended: done when it has ended.
    """

    def __init__(self, process: asyncio.subprocess.Process, output: tuple[int, int, int]) -> None:
        self._process = process
        self.pid = process.pid
        self.output = output
        self.ended: asyncio.Future[Ended] = asyncio.ensure_future(self._wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        limits: Limits,
        entrances: Sequence[str] = (),
    ) -> ColdProcess:
        """Start a command.

        Args:
            command: the program and its arguments; a program is looked for on the PATH of the environment.
            folder: where it starts.
            environment: all of its variables.
            limits: what it may use.
            entrances: files of a control group that it is to be in.

        Raises:
            OSError: it cannot be started.
        """
        pipes = [os.pipe() for _ in range(3)]
        parent = os.getpid()

        def prepare() -> None:
            die_with_parent(parent)
            for entrance in entrances:
                Path(entrance).write_text("0")
            limits.apply()

        console = pipes[2][1]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                pass_fds=[console],
                cwd=folder,
                env={**environment, "HEADRACE__CONSOLE": str(console)},
                start_new_session=True,
                preexec_fn=prepare,
            )
        except BaseException:
            for pipe in pipes:
                os.close(pipe[0])
            raise
        finally:
            for pipe in pipes:
                os.close(pipe[1])
        return cls(process, (pipes[0][0], pipes[1][0], pipes[2][0]))

    async def _wait(self) -> Ended:
        code = await self._process.wait()
        self.signal(signal.SIGKILL)
        # The loop has taken the status apart already.
        return Ended(-code if code < 0 else code << 8)

    def signal(self, signum: int) -> None:
        """Send a signal to it and everything it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def close(self) -> None:
        """Nothing is held open."""
