"""Virtual environments with the packages that runs ask for: made once, used again, removed when nobody does.

Each has a folder that is named by what is in it, and beside it a lock: held by one that makes or removes it,
shared by those that use it. So several workers may share the folder of environments.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from headrace.core.errors import HeadraceException
from headrace_workers.managed.interpreters import constraints, find_pip, identity, lend_headrace
from headrace_workers.output import read_lines
from headrace_workers.process.system import die_with_parent

__all__ = ["EnvironmentFailed", "Environments", "Tell"]

Tell = Callable[[list[str]], Awaitable[None]]
"""Takes lines that tell what is being done."""

_DONE: Final = ".headrace-environment.json"
_TAIL_LINES: Final = 12
_POLL_SECONDS: Final = 0.1
_MOST_FILES: Final = 10_000
_log = logging.getLogger("headrace.worker")


class EnvironmentFailed(HeadraceException):
    """The packages could not be installed; the message has the last that pip said."""


class Environments:
    """The environments below one folder.

    Args:
        folder: where they are.
        keep_seconds: how long one stays that nobody uses.
        keep_bytes: how much they may take together; those that were used last stay.
    """

    def __init__(self, folder: Path, keep_seconds: float, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_seconds = keep_seconds
        self._keep_bytes = keep_bytes
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.asynccontextmanager
    async def use(
        self, packages: Sequence[str], variables: Mapping[str, str], tell: Tell
    ) -> AsyncGenerator[Path]:
        """While inside, there is an environment with the packages; its interpreter.

        Args:
            packages: lines of a requirements file.
            variables: environment of pip.
            tell: told of the progress.

        Raises:
            EnvironmentFailed: it cannot be made.
        """
        name = await asyncio.to_thread(_digest, packages)
        environment = self._folder / name
        with _Lock(self._folder / f"{name}.lock") as lock:
            await lock.shared()
            while not (environment / _DONE).exists():
                await lock.alone()
                if not (environment / _DONE).exists():
                    await tell([f"Making an environment with {', '.join(packages)}."])
                    await self._make(environment, packages, variables, tell)
                await lock.shared()
                await asyncio.to_thread(self.sweep)
            (environment / _DONE).touch()
            await tell([f"The packages are in {environment}."])
            yield environment / "bin" / "python"

    async def _make(
        self, environment: Path, packages: Sequence[str], variables: Mapping[str, str], tell: Tell
    ) -> None:
        pip = await asyncio.to_thread(find_pip)
        if pip is None:
            raise EnvironmentFailed(
                f"The server's interpreter, {sys.executable}, has no pip of version 22.3 or later."
            )
        await asyncio.to_thread(shutil.rmtree, environment, ignore_errors=True)
        try:
            plain = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
            await _run("venv", plain, self._folder, variables, tell)
            lend_headrace(environment)
            asked, allowed = environment / "requirements.txt", environment / "constraints.txt"
            asked.write_text("".join(f"{line}\n" for line in packages), encoding="utf-8")
            allowed.write_text(constraints(), encoding="utf-8")
            python = str(environment / "bin" / "python")
            options = ["--no-cache-dir", "--progress-bar", "off", "-r", str(asked), "-c", str(allowed)]
            command = [python, str(pip), "install", *options]
            await _run("pip", command, self._folder, variables, tell)
            size = await asyncio.to_thread(_size, environment)
            note = {"packages": list(packages), "size_bytes": size}
            (environment / _DONE).write_text(json.dumps(note), encoding="utf-8")
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, environment, ignore_errors=True)
            raise

    def sweep(self) -> None:
        """Remove what nobody has used for long, and the oldest of what takes too much; never one in use."""
        now, kept_bytes = time.time(), 0
        for used_at, environment in sorted(self._made(), reverse=True):
            size = _noted_size(environment)
            kept_bytes += size
            is_old = now - used_at > self._keep_seconds
            if (is_old or kept_bytes > self._keep_bytes) and self._is_removed(environment):
                kept_bytes -= size
                _log.info("Removed the environment %s", environment)

    def _made(self) -> list[tuple[float, Path]]:
        found: list[tuple[float, Path]] = []
        for done in self._folder.glob(f"*/{_DONE}"):
            with contextlib.suppress(OSError):
                found.append((done.stat().st_mtime, done.parent))
        return found

    def _is_removed(self, environment: Path) -> bool:
        with _Lock(environment.with_suffix(".lock")) as lock:
            if not lock.is_had_alone():
                return False
            # First what says that it is complete.
            (environment / _DONE).unlink(missing_ok=True)
            shutil.rmtree(environment, ignore_errors=True)
        return True


class _Lock:
    """A lock between processes and tasks: each has its own; `with` it. Its file stays, and is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> _Lock:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    async def shared(self) -> None:
        """Wait until nobody has it alone."""
        await self._wait(fcntl.LOCK_SH)

    async def alone(self) -> None:
        """Wait until nobody else has it."""
        await self._wait(fcntl.LOCK_EX)

    def is_had_alone(self) -> bool:
        """Whether it could be had at once."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def _wait(self, how: int) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return


async def _run(
    name: str, command: Sequence[str], folder: Path, variables: Mapping[str, str], tell: Tell
) -> None:
    """Run a program to its end; it does not outlive this process, nor the task that called.

    Raises:
        EnvironmentFailed: its exit code is not 0.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    async def took(lines: list[str]) -> None:
        tail.extend(line for line in lines if line.strip())
        await tell(lines)

    own = {**variables, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
    output, theirs = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=own,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(theirs)
    reading = asyncio.ensure_future(read_lines(output, took))
    try:
        code = await process.wait()
        await reading
    finally:
        reading.cancel()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if code:
        said = "\n".join(tail)
        raise EnvironmentFailed(f"{name} has ended with exit code {code}:\n{said}")


def _digest(packages: Sequence[str]) -> str:
    """What an environment is called: the same for the same packages, whatever their order."""
    parts = [*identity(), *(f"{line} {_stamp(line)}" for line in sorted(packages))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _stamp(line: str) -> str:
    """Of a requirement that is a file or folder of this machine: something that changes with it."""
    path = Path(line.removeprefix("-e ").strip().removeprefix("file://"))
    try:
        if path.is_dir():
            files = sorted(path.rglob("*"))[:_MOST_FILES]
        else:
            files = [path] if path.is_file() else []
        stats = [(str(file), file.stat()) for file in files]
        return repr([(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats])
    except OSError:
        return ""


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*"))


def _noted_size(environment: Path) -> int:
    try:
        return int(json.loads((environment / _DONE).read_text())["size_bytes"])
    except (OSError, ValueError, KeyError):
        return 0
