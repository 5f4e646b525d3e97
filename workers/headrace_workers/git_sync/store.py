"""What a sync knows across restarts: a folder of its own below the headrace home.

git-sync/<id>/state.json    what was applied last, and what came of it
git-sync/<id>/lock          held (flock) by the process that syncs
git-sync/<id>/checkout      the commit that is, or was, applied
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from headrace.core.errors import HeadraceException
from headrace.deployments.git import without_user

__all__ = ["Attempt", "State", "StateStore", "SyncBusy", "Target", "stored_states"]

FOLDER: Final = "git-sync"
_MAX_DELIVERIES: Final = 500


class SyncBusy(HeadraceException):
    """Another process syncs the same."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is followed. Two of the same are one sync.

    Attributes:
        repository: its address, without any login.
        branch: of the repository.
        directory: in it, of the project file; empty: the top.
        environment: of the project file; empty: none.
    """

    repository: str
    branch: str
    directory: str = ""
    environment: str = ""

    @property
    def id(self) -> str:
        """The same for the same target, on any machine."""
        name = self.repository.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".git")
        plain = re.sub(r"[^a-z0-9]+", "-", f"{name}-{self.branch}".lower()).strip("-")[:48]
        parts = (without_user(self.repository)[0], self.branch, self.directory, self.environment)
        return f"{plain}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One application of a commit.

    Attributes:
        commit: which.
        at: when it ended, ISO 8601.
        is_applied: all of it was.
        message: what it came to, or why it failed.
        deployments: the deployments with what became of them: `name`, `outcome` and more.
    """

    commit: str
    at: str
    is_applied: bool
    message: str
    deployments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def as_json(self) -> dict[str, Any]:
        """What is shown and kept of it."""
        return asdict(self)


@dataclass(slots=True)
class State:
    """What is kept.

    Attributes:
        target: what is followed.
        way: what else decides what a commit comes to: the server, the options.
        applied_commit: the last one that was applied as a whole, that way; empty: none yet.
        last: the last attempt.
        deliveries: ids of notices whose commits were applied, the newest last.
    """

    target: Target
    way: str
    applied_commit: str = ""
    last: Attempt | None = None
    deliveries: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, Any]:
        """What is shown of it."""
        shown = asdict(self)
        del shown["deliveries"], shown["way"]
        return {"id": self.target.id, **shown}


class StateStore:
    """The folder of one sync.

    Args:
        home: the headrace home.
        target: what is followed.
        way: as in State: what was applied in another way counts as not applied.
    """

    def __init__(self, home: Path, target: Target, way: str = "") -> None:
        self.target = target
        self._way = way
        self.folder = home / FOLDER / target.id

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """While inside, no other process syncs the same in this home.

        Raises:
            SyncBusy: one does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SyncBusy(
                    f"Another process of this home follows {self.target.branch} of {self.target.repository}."
                ) from None
            yield

    def load(self) -> State:
        """What was kept; a new state if there is nothing that can be read."""
        state = _read(self.folder)
        return state if state is not None and state.way == self._way else State(self.target, self._way)

    def save(self, state: State) -> None:
        """Keep it, as a whole or not at all."""
        state.deliveries = state.deliveries[-_MAX_DELIVERIES:]
        fresh = self.folder / "state.json.new"
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / "state.json")


def stored_states(home: Path) -> list[State]:
    """The states of all syncs of a home, by their ids."""
    folders = sorted((home / FOLDER).glob("*/state.json"))
    return [state for path in folders if (state := _read(path.parent)) is not None]


def _read(folder: Path) -> State | None:
    try:
        read = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        last = read["last"]
        return State(
            Target(**read["target"]),
            read["way"],
            read["applied_commit"],
            Attempt(**last) if last else None,
            read["deliveries"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
