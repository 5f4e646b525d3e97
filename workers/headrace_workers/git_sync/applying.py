"""Fetching a commit, and applying it in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from headrace.core.errors import HeadraceException
from headrace.deployments.git import GitError, GitRepository
from headrace.deployments.versions import CI_VARIABLES
from headrace_workers.git_sync.apply import Order
from headrace_workers.git_sync.store import Attempt, Target
from headrace_workers.process.system import die_with_parent

__all__ = ["Applier", "ApplyOptions"]

T = TypeVar("T")

_GIT_SECONDS: Final = 900.0
_LAST_LINES: Final = 5
_LINE_BYTES: Final = 65536
_END_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How commits are applied.

    Attributes:
        credentials: of the repository, as GitRepository takes them; None: none.
        include_submodules: fetch the repositories it refers to as well.
        names: which deployments; none: all.
        prune: delete what the sync has made and the file has no more.
        timeout_seconds: how long one may take, its build steps included.
        yes_to: the protected environment that is meant; empty: none.
    """

    credentials: Mapping[str, str] | None = None
    include_submodules: bool = False
    names: tuple[str, ...] = ()
    prune: bool = False
    timeout_seconds: float = 3600.0
    yes_to: str = ""

    def way(self) -> list[Any]:
        """That which decides what an applied commit comes to."""
        return [self.include_submodules, list(self.names), self.prune, self.yes_to]


class Applier:
    """Applies commits of one target, one at a time.

    Args:
        target: what is followed.
        folder: of its own, for the checkout.
        options: how.
        environment: variables for the processes, over those of this one: where the server is.
        tell: takes lines for whoever looks.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        options: ApplyOptions,
        environment: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self._target = target
        self._folder = folder
        self._options = options
        # The version is the commit's, and not that of a CI job this may have been started by.
        inherited = {name: value for name, value in os.environ.items() if name not in CI_VARIABLES}
        self._environment = {**inherited, **environment, "HEADRACE_CLI_PROMPT": "false"}
        self._tell = tell

    async def newest_commit(self) -> str:
        """The commit that the branch is at.

        Raises:
            GitError: the repository cannot be asked, or has no such branch.
        """
        source = GitRepository(self._target.repository, self._options.credentials, branch=self._target.branch)
        source.set_base_path(self._folder)
        return await _within(_GIT_SECONDS, source.newest_commit())

    async def apply(self, commit: str) -> Attempt:
        """Fetch a commit, and apply its project file; that which fails is told in what is returned."""
        try:
            folder = await _within(_GIT_SECONDS, self._check_out(commit)) / self._target.directory
            if not folder.is_dir():
                raise GitError(f"There is no folder {self._target.directory} in the repository.")
            failures, deployments = await self._run(folder)
        except (HeadraceException, OSError) as error:
            failures, deployments = [str(error)], []
        message = "; ".join(failures) or _counted(deployments)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Attempt(commit, at, not failures, message, deployments)

    async def _check_out(self, commit: str) -> Path:
        source = GitRepository(
            self._target.repository,
            self._options.credentials,
            name="checkout",
            commit_sha=commit,
            include_submodules=self._options.include_submodules,
        )
        source.set_base_path(self._folder)
        was_there = source.destination.exists()
        try:
            await source.pull_code()
        except GitError:
            if not was_there:
                raise
            # Whoever was killed in the middle of it has left a clone, or a lock, that git cannot go on with.
            await asyncio.to_thread(shutil.rmtree, source.destination, ignore_errors=True)
            await source.pull_code()
        await source.name_branch(self._target.branch)
        return source.destination

    async def _run(self, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
        """Apply the project file of a folder: the failures, and what became of the deployments."""
        outcome_path = self._folder / "outcome.json"
        outcome_path.unlink(missing_ok=True)
        target, options = self._target, self._options
        order = Order(
            target.id, str(outcome_path), target.environment, options.names, options.prune, options.yes_to
        )
        process = await asyncio.create_subprocess_exec(
            # -P: a file of the project must not stand in for a module of ours.
            *(sys.executable, "-P", "-m", "headrace_workers.git_sync.apply", json.dumps(asdict(order))),
            cwd=folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C is for the one who waits for it.
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        last: deque[str] = deque(maxlen=_LAST_LINES)
        assert process.stdout is not None
        following = asyncio.ensure_future(self._follow(process.stdout, last))
        try:
            async with asyncio.timeout(options.timeout_seconds):
                await process.wait()
        except TimeoutError:
            return [f"It was ended: it took longer than {options.timeout_seconds:g} s."], []
        finally:
            # Whatever its steps have left behind goes with it, and holds the pipe open no more.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.wait([following], timeout=_END_SECONDS)
            following.cancel()
        try:
            outcome = json.loads(outcome_path.read_text(encoding="utf-8"))
            return outcome["failures"], outcome["deployments"]
        except (OSError, ValueError):
            return [f"{_ending(process.returncode)} {' '.join(last)[-500:]}".rstrip()], []

    async def _follow(self, stream: asyncio.StreamReader, last: deque[str]) -> None:
        rest = b""
        while piece := await stream.read(_LINE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > _LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                last.append(text.strip())
                self._tell(f"  {text}")
        if rest:
            last.append(rest.decode(errors="replace"))
            self._tell(f"  {last[-1]}")


async def _within(seconds: float, work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise GitError(f"git was ended: it took longer than {seconds:g} s.") from None


def _counted(deployments: list[dict[str, Any]]) -> str:
    counts = {kind: sum(one["outcome"] == kind for one in deployments) for kind in _KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


_KINDS: Final = ("created", "changed", "unchanged", "kept", "deleted")


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"The process that applied it was ended by {signal.Signals(-code).name}."
    return f"The process that applied it ended with code {code} and said nothing but:"
