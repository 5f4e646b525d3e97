"""Processes whose wall clock is wrong: the real programs, with a shifted clock under them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["wrong_clock"]

_CODE = """
import time

_off = {seconds}
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _off
time.time_ns = lambda: _time_ns() + _off * 1_000_000_000
"""


def wrong_clock(folder: Path, seconds: int) -> dict[str, str]:
    """The environment of a Python process whose clock is so many seconds ahead; its leases know another."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CODE.format(seconds=seconds))
    return {"PYTHONPATH": str(folder)}
