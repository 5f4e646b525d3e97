"""How gRPC hands over what arrives, which has to be settled before it is imported.

From version 1.80 on grpcio passes every message through two more threads of its core before the one that
waits for it hears of it. The way from before is still in there, and takes two thirds of the time for a
message there and its answer back, and of the CPU. Which of the two is read once, from the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["direct_polling"]

_VARIABLE: Final = "GRPC_EXPERIMENTS"
_SETTING: Final = "-event_engine_client,-event_engine_listener"
_FIRST, _LAST = (1, 80), (1, 85)
"""Versions that have the choice; one that does not know it would complain on stderr."""


@contextmanager
def direct_polling() -> Generator[None]:
    """Import gRPC within the block, and what arrives goes straight to whoever waits for it, where it can.

    Nothing happens when the program has imported gRPC before, or has set GRPC_EXPERIMENTS, to whatever. The
    variable is as before after the block: processes that are started are not concerned.
    """
    if "grpc" in sys.modules or _VARIABLE in os.environ or not _has_choice():
        yield
        return
    os.environ[_VARIABLE] = _SETTING
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def _has_choice() -> bool:
    try:
        major, minor, *_ = version("grpcio").split(".")
        return _FIRST <= (int(major), int(minor)) <= _LAST
    except (PackageNotFoundError, ValueError):
        return False
