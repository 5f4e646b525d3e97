"""Processes for tests that ask whether one lives."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["dead_process"]


def dead_process() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid
