"""What is measured, and what it has to reach."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["FIGURES", "Figure", "Summary", "figure", "ratio", "summarise"]


@dataclass(frozen=True)
class Figure:
    """One row of the table. `gate` and `goal` are in `unit`; None: shown, not judged."""

    name: str
    title: str
    unit: str
    gate: float | None = None
    goal: float | None = None
    higher_is_better: bool = False

    def passes(self, value: float) -> bool | None:
        """Whether a median reaches the gate; None when there is no gate."""
        if self.gate is None:
            return None
        return value >= self.gate if self.higher_is_better else value <= self.gate


@dataclass(frozen=True)
class Summary:
    """The median of several repeats, and how far they lay apart."""

    median: float
    least: float
    most: float
    repeats: int


def summarise(values: Sequence[float]) -> Summary:
    """Reduce the repeats of one figure.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("nothing was measured")
    return Summary(statistics.median(values), min(values), max(values), len(values))


def ratio(figure: Figure, own: float, peer: float) -> float:
    """How many times better `own` is than `peer`: above 1 is better, whatever the figure's direction."""
    better, worse = (own, peer) if figure.higher_is_better else (peer, own)
    return better / worse if worse else float("inf")


def figure(name: str) -> Figure:
    """The figure of that name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def _rate(name: str, title: str, gate: float | None = None, goal: float | None = None) -> Figure:
    return Figure(name, title, "per s", gate, goal, higher_is_better=True)


def _cpu(name: str, title: str) -> Figure:
    return Figure(name, title, "us", 250, 100)


FIGURES: Final[tuple[Figure, ...]] = (
    _rate("tasks.sequential", "sequential no-op tasks in a flow, durable and visible", 2500, 5000),
    _cpu("tasks.sequential.server_cpu", "  server CPU per task run"),
    _cpu("tasks.sequential.client_cpu", "  client CPU per task run"),
    _rate("tasks.gathered", "concurrent async tasks (gather), durable and visible", 3000, 8000),
    _cpu("tasks.gathered.server_cpu", "  server CPU per task run"),
    _cpu("tasks.gathered.client_cpu", "  client CPU per task run"),
    _rate("tasks.mapped", "mapped sync tasks, durable and visible", 3000, 8000),
    _cpu("tasks.mapped.server_cpu", "  server CPU per task run"),
    _cpu("tasks.mapped.client_cpu", "  client CPU per task run"),
    _rate("tasks.mapped_processes", "mapped sync tasks on two processes, durable and visible"),
    Figure("tasks.mapped_processes.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.mapped_processes.client_cpu", "  CPU per task run in the flow's process", "us"),
    _rate("tasks.mapped_dask", "mapped sync tasks on two Dask workers, durable and visible"),
    Figure("tasks.mapped_dask.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.mapped_dask.client_cpu", "  CPU per task run in the flow's process", "us"),
    _rate("tasks.mapped_ray", "mapped sync tasks on two processors of Ray, durable and visible"),
    Figure("tasks.mapped_ray.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.mapped_ray.client_cpu", "  CPU per task run in the flow's process", "us"),
    _rate("tasks.cache_hits", "sequential tasks found in the cache, durable and visible"),
    Figure("tasks.cache_hits.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.cache_hits.client_cpu", "  client CPU per task run", "us"),
    _rate("tasks.shared_hits", "sequential tasks found in the server's cache index, durable and visible"),
    Figure("tasks.shared_hits.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.shared_hits.client_cpu", "  client CPU per task run", "us"),
    _rate("tasks.kept_1kb", "sequential tasks with a result of 1 kB in storage, durable and visible"),
    Figure("tasks.kept_1kb.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.kept_1kb.client_cpu", "  client CPU per task run", "us"),
    _rate("tasks.kept_1mb", "sequential tasks with a result of 1 MB in storage, durable and visible"),
    Figure("tasks.kept_1mb.server_cpu", "  server CPU per task run", "us"),
    Figure("tasks.kept_1mb.client_cpu", "  client CPU per task run", "us"),
    _rate("flows.sequential", "empty flow runs, one after the other", 400, 800),
    _rate("flows.concurrent", "empty flow runs, 50 at a time", 800, 2000),
    _rate("logs", "log lines of a flow, until queryable", 20_000, 50_000),
    Figure("acknowledgement", "one state posted until durable, p50 at low load", "ms", 1.0, 0.6),
    _rate("creates", "CreateRun, 32 in flight", 2000, 4000),
    _rate("record", "task runs over one record stream, by hand, until durable", 3000, 8000),
    _cpu("record.server_cpu", "  server CPU per task run"),
    _rate("replay", "completed steps given back to a durable flow that is run again", 2500, 10_000),
    _cpu("replay.client_cpu", "  client CPU per step"),
    Figure("workers.p50", "create to RUNNING on an idle process worker, p50", "ms", 50, 20),
    Figure("workers.p95", "  p95", "ms", 150, 60),
    _rate("workers.queued", "200 queued no-op runs on one process worker, until completed", 20, 50),
    Figure("dispatch.p50", "a run asked for until it is assigned to a worker, p50", "ms", 5, 2),
    Figure("dispatch.p95", "  p95", "ms", 20, 8),
    _rate("dispatch.rate", "waiting runs assigned to a worker that completes at once", 1000),
    Figure("newest", "newest 50 of 1,000,000 runs, slowest filter, p50", "ms", 20, 5),
    Figure("import", "import of flow and task, less the bare interpreter", "ms", 200, 120),
    Figure("import.forbidden", "SQL, HTTP, rich or server modules loaded by that", "modules", 0, 0),
    Figure("hello", "hello-world script without a server, whole process", "s", 0.5, 0.3),
    Figure("hello.task", "one more task in a script without a server", "ms", 0.25, 0.1),
    Figure("futures.memory", "10,000 futures of task runs that have completed, resident memory", "MB"),
    Figure("server.start", "server start to healthy, new database", "s", 1.5, 1.0),
    Figure("server.memory", "idle server, resident memory", "MB", 120, 90),
    Figure("cli.help", "headrace --help", "s", 0.4),
    Figure("cli.query", "headrace flow-run ls", "s", 0.6),
)
_BY_NAME: Final[Mapping[str, Figure]] = {each.name: each for each in FIGURES}
