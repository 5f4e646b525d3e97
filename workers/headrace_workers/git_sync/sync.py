"""Following a branch: when to look, what to apply, what to do when that fails.

A notice, or the time, only says when to look. What is applied is what the repository itself says the branch
is at, so a notice that comes late, twice, or out of order cannot bring back what is older, and several pushes
that come while one is being applied are one: the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from headrace.deployments.git import GitError
from headrace_workers.git_sync.notices import Notice
from headrace_workers.git_sync.store import Attempt, StateStore

__all__ = ["GitSync", "Repository", "SyncOptions"]

_MAX_LOOKS: Final = 5
T = TypeVar("T")


class Repository(Protocol):
    """What is followed, and how it is applied."""

    async def newest_commit(self) -> str:
        """The commit that the branch is at; GitError: it cannot be told."""
        ...

    async def apply(self, commit: str) -> Attempt:
        """Apply a commit."""
        ...


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """When a sync looks.

    Attributes:
        is_once: nobody looks again.
        poll_seconds: between two looks without a notice; None: only when there is one.
        first_retry_seconds: after the first failure; twice as long after each that follows.
        max_retry_seconds: after many.
        lag_seconds: after a notice of a commit that the repository does not show yet; then twice as long,
            four times.
    """

    is_once: bool = False
    poll_seconds: float | None = None
    first_retry_seconds: float = 10.0
    max_retry_seconds: float = 600.0
    lag_seconds: float = 1.0


class GitSync:
    """One branch of one repository.

    Args:
        repository: what is followed.
        store: held by the caller.
        options: when to look.
        tell: takes lines for whoever looks.
    """

    def __init__(
        self, repository: Repository, store: StateStore, options: SyncOptions, tell: Callable[[str], None]
    ) -> None:
        self._repository = repository
        self._store = store
        self._options = options
        self._tell = tell
        self._state = store.load()
        self._wake = asyncio.Event()
        self._is_leaving = False
        # The first look says so too when there is nothing to do.
        self._noticed = True
        self._deliveries: list[str] = []
        # The newest notice of the branch: what it was at before, and what it is at.
        self._expected = ("", "")
        self._looks = 0
        self._failures = 0
        self._failed_commit = ""
        self._next_try_at: float | None = None
        self._applying = ""
        self._trouble = ""
        self._task: asyncio.Future[Any] | None = None

    async def run(self) -> None:
        """Look, apply, and look again, until told to leave."""
        while not self._is_leaving:
            await self.look()
            if not self._is_leaving:
                await self._until_next()

    async def look(self) -> bool:
        """Apply what the branch is at, unless that was applied before.

        Returns:
            Whether it is applied now.
        """
        was_noticed, self._noticed = self._noticed, False
        deliveries, self._deliveries = self._deliveries, []
        self._wake.clear()
        try:
            commit = await self._interruptible(self._repository.newest_commit())
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            return False
        except (GitError, OSError) as error:
            self._deliveries = deliveries + self._deliveries
            self._failed("", str(error))
            return False
        if commit == self._state.applied_commit:
            self._nothing_new(commit, deliveries, was_noticed)
            return True
        if commit == self._failed_commit and not (was_noticed or self._is_due()):
            self._deliveries = deliveries + self._deliveries
            return False
        return await self._apply(commit, deliveries)

    def accept(self, notice: Notice) -> tuple[int, str]:
        """Take a genuine notice in.

        Returns:
            The HTTP status and the sentence that it is answered with.
        """
        branch = self._state.target.branch
        if notice.is_ping:
            return 200, f"This follows branch {branch} of {self._state.target.repository}."
        if not notice.pushes:
            return 200, f"Ignored: the event {notice.event} is no push."
        if notice.delivery_id and notice.delivery_id in self._state.deliveries:
            return 200, "Ignored: what this delivery told of was applied."
        own = [push for push in notice.pushes if push.branch == branch]
        if not own:
            refs = ", ".join(push.ref for push in notice.pushes)
            return 200, f"Ignored: {refs} was pushed, and this follows branch {branch}."
        if not own[-1].commit:
            return 200, f"Ignored: branch {branch} was deleted; what is deployed stays."
        if self._is_leaving:
            return 503, "This process is leaving: the next one looks for itself."
        self._expected = (own[-1].before, own[-1].commit)
        self._looks = 0
        self._noticed = True
        if notice.delivery_id and notice.delivery_id not in self._deliveries:
            self._deliveries.append(notice.delivery_id)
        self._tell(f"Told of {own[-1].commit[:12]} on {branch}.")
        self._wake.set()
        return 202, f"Accepted: {own[-1].commit} is applied, or what is newer by then."

    def leave(self) -> None:
        """Finish what is being applied, and end; the second time, end that too."""
        if self._applying and not self._is_leaving:
            self._tell(f"Leaving when {self._applying[:12]} has been applied.")
        elif self._task is not None:
            self._task.cancel()
        self._is_leaving = True
        self._wake.set()

    def status(self) -> dict[str, Any]:
        """How it is, for JSON."""
        target, last = self._state.target, self._state.last
        return {
            "id": target.id,
            "repository": target.repository,
            "branch": target.branch,
            "directory": target.directory,
            "environment": target.environment,
            "applied_commit": self._state.applied_commit,
            "applying_commit": self._applying,
            "last_attempt": last.as_json() if last else None,
            "failures": self._failures,
            "trouble": self._trouble,
            "next_try_at": self._next_try(),
        }

    def _nothing_new(self, commit: str, deliveries: list[str], was_noticed: bool) -> None:
        before, expected = self._expected
        is_behind = before == commit and expected != commit
        if is_behind and self._looks < _MAX_LOOKS:
            # The host told of the push before all of it knows.
            self._deliveries = deliveries + self._deliveries
            self._next_try_at = self._now() + self._options.lag_seconds * 2**self._looks
            self._looks += 1
            return
        if was_noticed:
            self._tell(f"Nothing to do: {self._state.target.branch} is at {commit[:12]}, which is applied.")
        self._expected = ("", "")
        self._succeeded([] if is_behind else deliveries)

    async def _apply(self, commit: str, deliveries: list[str]) -> bool:
        branch = self._state.target.branch
        self._tell(f"Applying {commit[:12]} of {branch}.")
        self._applying = commit
        try:
            self._state.last = attempt = await self._interruptible(self._repository.apply(commit))
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            self._tell(f"Warning: {commit[:12]} was ended while it was being applied.")
            return False
        finally:
            self._applying = ""
        if attempt.is_applied:
            self._state.applied_commit = commit
            if self._expected[1] == commit:
                self._expected = ("", "")
            self._tell(f"Applied {commit[:12]} of {branch}: {attempt.message}.")
            self._succeeded(deliveries)
        else:
            self._deliveries = deliveries + self._deliveries
            self._failed(commit, attempt.message)
        return attempt.is_applied

    def _succeeded(self, deliveries: list[str]) -> None:
        self._failures, self._failed_commit, self._trouble, self._next_try_at = 0, "", "", None
        self._state.deliveries += deliveries
        self._save()

    def _failed(self, commit: str, why: str) -> None:
        self._failures = self._failures + 1 if commit == self._failed_commit else 1
        self._failed_commit, self._trouble = commit, why
        options = self._options
        seconds = min(
            options.first_retry_seconds * 2 ** min(self._failures - 1, 30), options.max_retry_seconds
        )
        seconds *= random.uniform(0.9, 1.1)
        self._next_try_at = self._now() + seconds
        what = f"{commit[:12]} was not applied" if commit else "Cannot tell what was pushed"
        is_last = self._is_leaving or options.is_once
        again = "" if is_last else f" Again in {seconds:.0f} s, or with the next push."
        self._tell(f"Warning: {what}: {why.rstrip('.')}.{again}")
        self._save()

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it, unless the process is told to leave in a way that does not wait for it."""
        self._task = task = asyncio.ensure_future(work)
        try:
            return await task
        finally:
            self._task = None

    def _save(self) -> None:
        try:
            self._store.save(self._state)
        except OSError as error:
            self._tell(f"Warning: what was done cannot be kept: {error}. It is done again after a restart.")

    async def _until_next(self) -> None:
        """Until there is a notice, or it is time to look again."""
        waits = [] if self._options.poll_seconds is None else [self._options.poll_seconds]
        if self._next_try_at is not None:
            waits.append(max(0.0, self._next_try_at - self._now()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(waits, default=None)):
                await self._wake.wait()

    def _is_due(self) -> bool:
        return self._next_try_at is None or self._now() >= self._next_try_at

    def _next_try(self) -> str | None:
        if self._next_try_at is None:
            return None
        return datetime.fromtimestamp(
            datetime.now(UTC).timestamp() + self._next_try_at - self._now(), UTC
        ).isoformat(timespec="milliseconds")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
