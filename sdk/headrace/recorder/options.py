"""What a recorder must know, and where its server is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from headrace.settings import Settings

__all__ = ["RecorderOptions", "ServerFile", "read_server_file"]


@dataclass(frozen=True, slots=True)
class RecorderOptions:
    """Equal options share a recorder.

    Attributes:
        home: the folder with `server.json` and `spool/`.
        address: `host:port`; None: the server of the home, whenever there is one.
        auth_string: `user:password`, or None.
        offline_allowed: begin runs although an explicit address does not answer.
        connect_timeout_seconds: how long somebody who waits for an answer waits for the connection.
        budget_bytes: how much the spool may hold.
        raise_when_full: raise `StorageFull` instead of waiting for room.
        exit_timeout_seconds: how long the interpreter's exit waits for acknowledgements.
        may_connect: False in a process that was forked from one that uses gRPC, which does not work there:
            the spool is delivered by another process.
    """

    home: Path
    address: str | None
    auth_string: str | None
    offline_allowed: bool
    connect_timeout_seconds: float
    budget_bytes: int
    raise_when_full: bool
    exit_timeout_seconds: float
    may_connect: bool = True

    @classmethod
    def of(cls, settings: Settings, *, may_connect: bool = True) -> RecorderOptions:
        """The options that `settings` say; their address must not be `off`."""
        return cls(
            home=settings.home,
            address=None if settings.api_url == "auto" else settings.api_url,
            auth_string=settings.api_auth_string,
            offline_allowed=settings.api_url == "auto" or settings.api_offline == "allow" or not may_connect,
            connect_timeout_seconds=settings.api_connect_timeout_seconds,
            budget_bytes=settings.recorder_spool_budget_bytes,
            raise_when_full=settings.recorder_on_full == "raise",
            exit_timeout_seconds=settings.recorder_exit_timeout_seconds,
            may_connect=may_connect,
        )

    @property
    def spool_root(self) -> Path:
        """The folder of all spools."""
        return self.home / "spool"

    def find_server(self) -> str | None:
        """The address to connect to now; None: there is no server."""
        if not self.may_connect:
            return None
        if self.address is not None:
            return self.address
        found = read_server_file(self.home)
        return found.address if found is not None and found.is_alive() else None


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What a home's `server.json` says that others need.

    Attributes:
        pid: of the server.
        address: `host:port`.
        version: of headrace.
    """

    pid: int
    address: str
    version: str

    def is_alive(self) -> bool:
        """Whether a process with that id exists; only a call tells whether it is the server."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def read_server_file(home: Path) -> ServerFile | None:
    """The home's `server.json`; None when there is none or it cannot be understood."""
    try:
        data = json.loads((home / "server.json").read_bytes())
        return ServerFile(int(data["pid"]), str(data["address"]), str(data.get("version", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
