"""Journals that bodies of flows keep outside the system: what of them has really run, and when.

`FLOWS` is the code of flows that keep one; each line is written at once, by one write, so that a kill loses
nothing and lines of several processes do not mix. Instants are of the machine's monotonic clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.invariants import Execution

__all__ = ["FLOWS", "Line", "executions", "read_journal"]

FLOWS: Final = '''
import asyncio, json, os, pathlib, signal, time
from headrace import flow, task
from headrace.runtime import flow_run


def note(folder, event, **more):
    line = {"event": event, "run": flow_run.id, "fence": int(os.environ.get("HEADRACE__FENCE", "0")),
            "pid": os.getpid(), "at": time.monotonic_ns(), **more}
    journal = os.open(pathlib.Path(folder) / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(journal, (json.dumps(line) + "\\n").encode())
    os.close(journal)


def may_go(folder):
    return (pathlib.Path(folder) / "go").exists()


@flow
def noop(folder):
    note(folder, "begin")
    note(folder, "end")


@flow
def nap(folder, seconds):
    note(folder, "begin")
    time.sleep(seconds)
    note(folder, "end")


@flow
def wait(folder):
    note(folder, "begin")
    while not may_go(folder):
        time.sleep(0.02)
    note(folder, "end")


@flow
async def block(folder, seconds):
    """Blocks its event loop."""
    note(folder, "begin")
    time.sleep(seconds)
    await asyncio.sleep(0)
    note(folder, "end")


@task
def step(folder, number):
    note(folder, "step", number=number)
    return number


@flow
def steps(folder, count):
    note(folder, "begin")
    for number in range(count):
        step(folder, number)
    while not may_go(folder):
        time.sleep(0.02)
    note(folder, "end")
'''


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal.

    Attributes:
        event: "begin", "end", or another word of the flow's.
        run_id: the run.
        fence: of the attempt.
        pid: of the process.
        at: when, nanoseconds.
    """

    event: str
    run_id: str
    fence: int
    pid: int
    at: int


def read_journal(path: Path) -> list[Line]:
    """The lines so far; one that is being written is left out."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    found: list[Line] = []
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            said = json.loads(line)
            found.append(Line(said["event"], said["run"], said["fence"], said["pid"], said["at"]))
    return found


def executions(lines: list[Line]) -> list[Execution]:
    """The bodies that the lines tell of, by process."""
    ends = {(line.run_id, line.fence, line.pid): line.at for line in lines if line.event == "end"}
    return [
        Execution(line.run_id, line.fence, line.at, ends.get((line.run_id, line.fence, line.pid)))
        for line in lines
        if line.event == "begin"
    ]
