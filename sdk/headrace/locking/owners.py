"""Whether the process that has a lock still lives."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so named that no other one is taken for it.

    Attributes:
        machine: the machine, its present boot and the process namespace.
        pid: number of the process there.
        started: when it started, in the machine's own count; empty where that cannot be told.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Self:
        """The process that runs this."""
        pid = os.getpid()
        return cls(_machine(), pid, _started(pid))

    @classmethod
    def from_json(cls, parts: dict[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            KeyError: something is missing.
        """
        return cls(str(parts["machine"]), int(parts["pid"]), str(parts["started"]))

    def to_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)

    def is_gone(self) -> bool:
        """Whether the process has ended; False where this cannot be seen from here."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _started(self.pid) != self.started


@functools.cache
def _machine() -> str:
    parts = [platform.node(), _text("/proc/sys/kernel/random/boot_id")]
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass
    return "/".join(parts)


def _started(pid: int) -> str:
    # The name of the program, in parentheses, may hold anything; the 20th field after that is the start time.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return ""
    return fields[19]


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
