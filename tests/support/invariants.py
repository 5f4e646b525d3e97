"""What must hold whatever goes wrong, as pure functions over what was noted outside the system.

Each gives its violations as sentences; none: it holds. Instants are nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "Execution",
    "StateNote",
    "acknowledged_is_kept",
    "all_settled",
    "begun_once_per_fence",
    "executed_once",
    "fires_are_exact",
    "limit_is_kept",
    "log_is_clean",
    "one_accepted_end",
    "one_run_per_key",
    "only_the_last_overlaps",
    "terminal_is_final",
    "within",
]

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
_BAD_LINES: Final = re.compile(
    r"deadlock|Traceback|unhandled|never retrieved|was never awaited", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Execution:
    """A body of a run, as it has noted itself.

    Attributes:
        run_id: the run.
        fence: under which it ran.
        begin: when it began.
        end: when it ended; None: it was killed, or still runs.
    """

    run_id: str
    fence: int
    begin: int
    end: int | None


@dataclass(frozen=True, slots=True)
class StateNote:
    """One state of a run's history, as the server shows it.

    Attributes:
        type: without its prefix, e.g. "RUNNING".
        name: for people.
        is_guess: the server itself has declared the run crashed, having lost sight of its process.
    """

    type: str
    name: str = ""
    is_guess: bool = False


def acknowledged_is_kept(acknowledged: Mapping[str, str], kept: Mapping[str, str]) -> list[str]:
    """I1: everything that was acknowledged can be read, as it was written; both by id."""
    found: list[str] = []
    for id, content in acknowledged.items():
        if id not in kept:
            found.append(f"{id} was acknowledged and is not there")
        elif kept[id] != content:
            found.append(f"{id} was acknowledged as {content!r} and is {kept[id]!r}")
    return found


def one_accepted_end(histories: Mapping[str, Sequence[StateNote]]) -> list[str]:
    """I2: a run completes once; by run, its states in their order."""
    ends = {id: sum(state.type == "COMPLETED" for state in states) for id, states in histories.items()}
    return [f"{id} has completed {count} times" for id, count in ends.items() if count > 1]


def begun_once_per_fence(executions: Iterable[Execution]) -> list[str]:
    """I2: a body begins at most once under one fence."""
    times = Counter((one.run_id, one.fence) for one in executions)
    return [f"{id} began {n} times under fence {fence}" for (id, fence), n in times.items() if n > 1]


def executed_once(executions: Iterable[Execution]) -> list[str]:
    """I2, where nothing was done to workers: no run is executed again, under whatever fence."""
    times = Counter(one.run_id for one in executions)
    return [f"{id} was executed {count} times" for id, count in times.items() if count > 1]


def only_the_last_overlaps(
    executions: Iterable[Execution], lost_at: Mapping[tuple[str, int], int]
) -> list[str]:
    """I2: no body runs on beside a later one of its run, beyond the time it may take to be ended.

    Args:
        executions: all bodies.
        lost_at: by run and fence, until when a body that was taken away may have gone on.
    """
    found: list[str] = []
    by_run: dict[str, list[Execution]] = defaultdict(list)
    for one in executions:
        by_run[one.run_id].append(one)
    for run_id, bodies in by_run.items():
        ordered = sorted(bodies, key=lambda one: one.fence)
        for earlier, later in itertools.pairwise(ordered):
            limit = max(later.begin, lost_at.get((run_id, earlier.fence), 0))
            if earlier.end is not None and earlier.end > limit:
                found.append(f"{run_id} ran on under fence {earlier.fence} beside fence {later.fence}")
    return found


def fires_are_exact(made: Iterable[tuple[str, int]], wanted: Iterable[tuple[str, int]]) -> list[str]:
    """I3: the runs of schedules are those of the oracle, each once; both by schedule and instant."""
    times, oracle = Counter(made), set(wanted)
    found = [f"{schedule} has {count} runs for {at}" for (schedule, at), count in times.items() if count > 1]
    found += [f"{schedule} has no run for {at}" for schedule, at in sorted(oracle - times.keys())]
    found += [f"{schedule} has a run for {at}, no fire" for schedule, at in sorted(times.keys() - oracle)]
    return found


def limit_is_kept(holds: Iterable[tuple[int, int | None]], limit: int) -> list[str]:
    """I5: at no instant more than `limit` of the intervals (begin, end) overlap; no end: for ever."""
    changes: list[tuple[int, int]] = []
    for begin, end in holds:
        changes.append((begin, 1))
        if end is not None:
            changes.append((end, -1))
    most = now = 0
    for _, change in sorted(changes):  # at one instant, ends come before begins
        now += change
        most = max(most, now)
    return [f"{most} held at once what {limit} may hold"] if most > limit else []


def terminal_is_final(histories: Mapping[str, Sequence[StateNote]]) -> list[str]:
    """I6: nothing comes after a final state but the word of a process that was thought dead, about itself,
    and what somebody asked for: that it runs again, which begins with SCHEDULED."""
    found: list[str] = []
    for run_id, states in histories.items():
        for before, after in itertools.pairwise(states):
            if before.type not in FINAL or after.type == "SCHEDULED" or after.name == "RolledBack":
                continue
            if not before.is_guess:
                found.append(f"{run_id} was {before.type} and became {after.type}")
    return found


def all_settled(states: Mapping[str, str], explained: Callable[[str], bool]) -> list[str]:
    """I7: once everything is well again, each run has ended, or is explained; states by run."""
    unsettled = ((id, type) for id, type in states.items() if type not in FINAL and not explained(id))
    return [f"{id} is still {type}" for id, type in unsettled]


def one_run_per_key(answers: Iterable[tuple[str, str]], rows: Mapping[str, int]) -> list[str]:
    """I8: who asks again with the same key is answered with the same run, and there is one.

    Args:
        answers: (key, run id) of each answer.
        rows: how many runs there are by key.
    """
    ids: dict[str, set[str]] = defaultdict(set)
    for key, run_id in answers:
        ids[key].add(run_id)
    found = [f"{key} was answered with {len(runs)} runs" for key, runs in ids.items() if len(runs) > 1]
    found += [f"there are {rows.get(key, 0)} runs of {key}" for key in ids if rows.get(key, 0) != 1]
    return found


def log_is_clean(log: str) -> list[str]:
    """I10: no deadlock of the database, and no error that nobody has handled."""
    return [line for line in log.splitlines() if _BAD_LINES.search(line)]


def within(what: str, value: float, most: float) -> list[str]:
    """I10: a figure is not above its bound."""
    return [f"{what}: {value:g}, and no more than {most:g} was to be"] if value > most else []
