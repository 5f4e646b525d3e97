"""The worker of one managed pool: a child process of the server, with an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ManagedWorker", "ManagedWorkerSettings"]

_log = logging.getLogger(__name__)
_LINE_BYTES: Final = 64 * 1024
_KEPT: Final = (
    "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CERT_PATH",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "PYTHONPATH", "LD_LIBRARY_PATH",
)  # fmt: skip
"""What a worker and its runs have of the server's environment, beside variables that begin with LC_."""
_SPARE_SECONDS: Final = 10.0
"""What a worker may take to leave beyond the grace of its runs."""


@dataclass(frozen=True, slots=True)
class ManagedWorkerSettings:
    """What is the same for all managed pools.

    Attributes:
        folder: below which each pool has its own, and where the environments with packages are.
        address: where the server listens, for a client on this machine.
        credentials: `user:password` that only the workers of this server process have; None: nobody is asked.
        more_variables: names of further variables of the server's environment.
        cgroup: control group for the runs; None: they have none of their own.
        grace_seconds: how long runs may go on when the worker is told to leave.
        keep_seconds: how long an environment stays that nobody uses.
        keep_bytes: how much the environments may take together.
    """

    folder: Path
    address: str
    credentials: str | None
    more_variables: tuple[str, ...]
    cgroup: str | None
    grace_seconds: float
    keep_seconds: float
    keep_bytes: int

    def environment(self, own: Mapping[str, str], home: Path) -> dict[str, str]:
        """All variables of a worker: nothing is inherited that is not named here.

        Args:
            own: the server's.
            home: the pool's own folder.
        """
        kept = {*_KEPT, *self.more_variables}
        found = {name: text for name, text in own.items() if name in kept or name.startswith("LC_")}
        found |= {
            "HOME": str(home),
            "HEADRACE_HOME": str(home / ".headrace"),
            "HEADRACE_API_URL": self.address,
        }
        if self.credentials is not None:
            found["HEADRACE_API_AUTH_STRING"] = self.credentials
        if self.cgroup is not None:
            found["HEADRACE_WORKER_CGROUP"] = self.cgroup
        return found


class ManagedWorker:
    """One child process, from its start to its end.

    Args:
        pool: name of the pool.
        name: what people see of the worker.
        home: the pool's own folder; made if it is not there.
        settings: of all.
        ended: called when it has ended.

    Attributes:
        last_line: the last that it has said.
        exit_code: None while it runs.
    """

    def __init__(
        self, pool: str, name: str, home: Path, settings: ManagedWorkerSettings, ended: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._name = name
        self._home = home
        self._settings = settings
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=1)
        self._watching: asyncio.Task[None] | None = None
        self.exit_code: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def last_line(self) -> str:
        """The last that it has said."""
        return self._lines[0] if self._lines else ""

    async def start(self) -> None:
        """Start it.

        Raises:
            OSError: it cannot be.
        """
        settings = self._settings
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace_workers.managed", self._pool),
            *("--name", self._name),
            *("--parent", str(os.getpid())),
            *("--grace-seconds", str(settings.grace_seconds)),
            *("--environments", str(settings.folder / "environments")),
            *("--keep-seconds", str(settings.keep_seconds)),
            *("--keep-bytes", str(settings.keep_bytes)),
            cwd=self._home,
            env=settings.environment(os.environ, self._home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            # Ctrl-C is for the server, which lets it drain.
            start_new_session=True,
        )
        _log.info("managed pool %s: worker %s (pid %d)", self._pool, self._name, self.pid)
        self._watching = asyncio.create_task(self._watch(self._process), name=f"worker of {self._pool}")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                data = await process.stdout.readline()
            except ValueError:
                continue  # a line without an end; what has come of it is gone
            if not data:
                break
            line = data.decode(errors="backslashreplace").rstrip()
            self._lines.append(line)
            _log.info("managed pool %s: %s", self._pool, line)
        self.exit_code = await process.wait()
        self._ended()

    def tell_to_leave(self) -> None:
        """Have it take nothing new, and leave when its runs have ended or their grace is over."""
        self._signal(signal.SIGTERM)

    async def left(self) -> None:
        """Wait until it has ended, and kill it if that takes longer than it may."""
        if self._watching is None:
            return
        await asyncio.wait([self._watching], timeout=self._settings.grace_seconds + _SPARE_SECONDS)
        self._signal(signal.SIGKILL)
        await self._watching

    def _signal(self, signum: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)
