"""`headrace dev`: a server with its scheduler, and a process worker, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.failures import CliError, ExitCode

__all__ = ["dev"]

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


def dev(
    *,
    pool: Annotated[
        str, Parameter(name=["--pool", "-p"], help="Pool of the worker; made if it is not there.")
    ] = "default",
    limit: Annotated[
        int | None,
        Parameter(
            name=["--limit", "-l"], validator=Number(gte=1), help="Runs of the worker at once; else no limit."
        ),
    ] = None,
    port: Annotated[int | None, Parameter(help="Port of the server; 4200. 0 takes any free one.")] = None,
) -> int:
    """Run a server and a process worker together, for daily work.

    Both belong to this home and stop with this command: Ctrl-C lets the runs of the worker end, then stops
    the server. The second Ctrl-C gives them back.
    """
    return asyncio.run(_Both(pool, limit, port).run())


class _Both:
    """The two programs."""

    def __init__(self, pool: str, limit: int | None, port: int | None) -> None:
        self._server_words = ["server", "start", *(["--port", str(port)] if port is not None else [])]
        self._worker_words = ["worker", "start", "--pool", pool, "--type", "process"]
        if limit is not None:
            self._worker_words += ["--limit", str(limit)]
        self._leaving = asyncio.Event()
        self._worker: asyncio.subprocess.Process | None = None

    async def run(self) -> int:
        """Until told to stop, or one of them ends.

        Raises:
            CliError: a server is there already, or did not start, or one of the two has ended.
        """
        _refuse_a_second_server()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._told)
        server = await self._start(self._server_words)
        server_end = asyncio.ensure_future(server.wait())
        try:
            if await self._until_healthy(server_end):
                await self._run_worker(server_end)
            elif not self._leaving.is_set():
                raise CliError("The server has ended at its start.")
        finally:
            await _stop(server)
        return ExitCode.OK

    async def _run_worker(self, server_end: asyncio.Future[int]) -> None:
        worker = self._worker = await self._start(self._worker_words)
        worker_end = asyncio.ensure_future(worker.wait())
        told = asyncio.ensure_future(self._leaving.wait())
        try:
            ends: list[asyncio.Future[Any]] = [server_end, worker_end, told]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._leaving.is_set():
                # A second signal goes to it too: it then gives back what runs.
                await worker_end
                return
            if worker_end.done() and worker_end.result() == 0:
                raise CliError("The worker has left, as it was told to.", "So the server stops too.")
            ended = "worker" if worker_end.done() else "server"
            raise CliError(f"The {ended} has ended by itself.")
        finally:
            told.cancel()
            await _stop(worker)

    def _told(self) -> None:
        self._leaving.set()
        if self._worker is not None and self._worker.returncode is None:
            self._worker.send_signal(signal.SIGTERM)

    async def _start(self, words: list[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace", *words),
            stdin=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for this command, which stops them in their order.
            start_new_session=True,
            preexec_fn=_ends_with(os.getpid()),
        )

    async def _until_healthy(self, server_end: asyncio.Future[int]) -> bool:
        """Whether the server answers."""
        from headrace.client.discovery import connect
        from headrace.core.errors import ServerUnavailable
        from headrace.settings import get_current_settings

        settings = get_current_settings()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while not (server_end.done() or self._leaving.is_set()):
                    with contextlib.suppress(ServerUnavailable):
                        _, channel = await connect(settings, start_server=False)
                        await channel.close(None)
                        return True
                    await asyncio.sleep(0.05)
        return False


def _refuse_a_second_server() -> None:
    from headrace.recorder.options import read_server_file
    from headrace.settings import get_current_settings

    home = get_current_settings().home
    noted = read_server_file(home)
    if noted is not None and noted.is_alive():
        raise CliError(
            f"A server serves {home} already, at {noted.address}.",
            "`headrace server stop` stops it, `headrace worker start --pool default` gives it a worker.",
        )


def _ends_with(pid: int) -> Callable[[], None]:
    from headrace_workers.process.system import die_with_parent

    return partial(die_with_parent, pid)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
