"""Places at which a test has a server die, or has it believe that a commit failed which was made.

For tests alone. `HEADRACE_TEST_FAILPOINTS` is read once, when a database is opened; without it, nothing of
this is on the way of a commit but the look whether it is there. It names points, each with what happens there
and from which time on:

    claim.before=kill            the server is killed when it is about to commit its first claim
    finish.after=kill@3          and right after the third commit that ends an attempt
    claim.after=fail             every claim is committed, and answered as if it had not been

| Point | the commit |
| --- | --- |
| `claim` | hands runs to workers |
| `finish` | ends an attempt: its run ends, or is queued again |
| `schedule` | makes runs of schedules |
| `backfill` | makes runs of backfills, or notes their ends |
| `expire` | ends the lease of a worker or of a recorder |
| `any` | whatever it writes |
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from headrace.core.errors import ConfigurationError, DatabaseUnavailable

__all__ = ["VARIABLE", "Failpoints", "armed"]

VARIABLE: Final = "HEADRACE_TEST_FAILPOINTS"
_POINT: Final = re.compile(
    r"(?P<name>claim|finish|schedule|backfill|expire|any)\.(?P<side>before|after)=(?P<act>kill|fail)(@(?P<time>[1-9]\d*))?"
)
_COMMANDS: Final = {
    "Claim": "claim",
    "FireSchedules": "schedule",
    "AdvanceBackfill": "backfill",
    "ExpireSession": "expire",
    "CrashRecorder": "expire",
}
Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class _Point:
    act: str
    time: int
    """How often the point must be reached; 0: it acts each time."""


class Failpoints:
    """The points that are armed, and how often each was reached.

    Args:
        points: by name and side.
    """

    def __init__(self, points: dict[tuple[str, str], _Point]) -> None:
        self._points = points
        self._reached: Counter[tuple[str, str]] = Counter()

    @classmethod
    def parse(cls, text: str) -> Failpoints:
        """The points that a text names, separated by commas.

        Raises:
            ConfigurationError: one of them is none.
        """
        points: dict[tuple[str, str], _Point] = {}
        for word in text.split(","):
            match = _POINT.fullmatch(word.strip())
            if match is None:
                raise ConfigurationError(f"{VARIABLE}: '{word}' is none: give one like claim.before=kill@3.")
            time = 0 if match["time"] is None else int(match["time"])
            points[match["name"], match["side"]] = _Point(match["act"], time)
        return cls(points)

    def reach(self, side: Side, commands: Iterable[object], *, ends_attempts: bool) -> None:
        """A commit is about to be made, or was made.

        Args:
            side: which of the two.
            commands: what it is of.
            ends_attempts: it ends attempts.

        Raises:
            DatabaseUnavailable: a point says so.
        """
        for name in sorted(_names(commands, ends_attempts)):
            point = self._points.get((name, side))
            if point is None:
                continue
            self._reached[name, side] += 1
            if point.time and self._reached[name, side] != point.time:
                continue
            if point.act == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise DatabaseUnavailable("A failpoint of a test has cut the answer off.")


def _names(commands: Iterable[object], ends_attempts: bool) -> set[str]:
    names = {_COMMANDS.get(type(command).__name__, "any") for command in commands} | {"any"}
    return names | {"finish"} if ends_attempts else names


def armed() -> Failpoints | None:
    """The points of this process; None, as always but in a test: there are none.

    Raises:
        ConfigurationError: the variable names something else.
    """
    text = os.environ.get(VARIABLE, "")
    return Failpoints.parse(text) if text else None
