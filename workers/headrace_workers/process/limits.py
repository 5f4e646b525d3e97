"""What one run process may use, as the kernel counts it for each process."""

from __future__ import annotations

import re
import resource
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["Limits", "size_in_bytes"]

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_LAST_SECONDS: Final = 5
"""Processor time between being told that it is used up and being killed."""


def size_in_bytes(text: str) -> int:
    """What "512m" or "2g" says.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is no size: give one like 512m or 2g")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process puts on itself before the flow is loaded; what it starts inherits it.

    Attributes:
        memory_bytes: private memory it may allocate; None: as much as there is.
        cpu_seconds: processor time it may use; None: as much as it likes.
        processes: processes and threads its user may have, all together; the kernel does not hold root to
            it. None: as many as the system allows.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    processes: int | None = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Limits:
        """What `to_message` has made."""
        return cls(**message)

    def to_message(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def apply(self) -> None:
        """Hold this process to them, for good."""
        if self.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (self.memory_bytes, self.memory_bytes))
        if self.cpu_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_seconds, self.cpu_seconds + _LAST_SECONDS))
        if self.processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (self.processes, self.processes))
