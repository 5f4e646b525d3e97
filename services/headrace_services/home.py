"""The home folder: who serves it, and how others find that server."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.core.errors import HeadraceException

__all__ = ["HomeTaken", "HomeUnusable", "ServerNote", "hold_home", "is_alive"]


class HomeUnusable(HeadraceException):
    """The home folder cannot be written to."""


class HomeTaken(HeadraceException):
    """Another server already serves this home."""


@dataclass(frozen=True, slots=True)
class ServerNote:
    """What `server.json` says about the running server.

    Attributes:
        pid: its process id.
        address: where it listens, e.g. `127.0.0.1:4200`.
        version: of headrace.
        replica_id: one per server process.
        database: "sqlite" or "postgresql".
        started_at: microseconds since 1970-01-01 UTC.
        idle_timeout_seconds: when it leaves by itself; None: it stays.
    """

    pid: int
    address: str
    version: str
    replica_id: str
    database: str
    started_at: int
    idle_timeout_seconds: float | None

    @classmethod
    def read(cls, home: Path) -> ServerNote | None:
        """The note of the home's server; None when there is none or it cannot be understood."""
        try:
            return cls(**json.loads((home / "server.json").read_text()))
        except (OSError, TypeError, ValueError):
            return None

    def write(self, home: Path) -> None:
        """Puts the note in place in one step."""
        temporary = home / f"server.json.{self.pid}"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(home / "server.json")

    def remove(self, home: Path) -> None:
        """Takes the note away, unless it is another server's by now."""
        if ServerNote.read(home) == self:
            (home / "server.json").unlink(missing_ok=True)


@contextlib.contextmanager
def hold_home(home: Path) -> Generator[None]:
    """Holds the home for this process: at most one server has it.

    Raises:
        HomeUnusable: the folder cannot be made or written to.
        HomeTaken: another server has it; the message names that server.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeUnusable(
            f"The home folder {home} cannot be written to: {error.strerror}. "
            "Set HEADRACE_HOME (or --home) to a folder of yours."
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise HomeTaken(_taken(home)) from None
    try:
        yield
    finally:
        os.close(descriptor)


def _taken(home: Path) -> str:
    note = ServerNote.read(home)
    who = f"A server (pid {note.pid}, at {note.address})" if note else "A server that is just starting"
    return (
        f"{who} already serves {home}. Use it, stop it with `headrace server stop`, or choose another --home."
    )


def is_alive(home: Path) -> bool:
    """Whether a server holds the home now."""
    try:
        descriptor = os.open(home / "server.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
