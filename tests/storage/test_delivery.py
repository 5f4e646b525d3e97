"""However entries are delivered, they are applied once and in order."""

from __future__ import annotations

import asyncio
import random

from headrace.core.errors import SequenceGap
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import Run
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, log, record, run_of, state, task_run


class Story:
    """What one process has to tell, and what should be known once it was told."""

    def __init__(self, rng: random.Random) -> None:
        flow = flow_run()
        self.runs = [flow, *(task_run(flow, f"step-{place}") for place in range(4))]
        self.entries: list[RecordEntry] = [run_of(run) for run in self.runs]
        self.names: dict[str, list[str]] = {run.id: [] for run in self.runs}
        self.lines: list[str] = []
        open_runs = list(self.runs)
        for place in range(rng.randrange(20, 60)):
            run = rng.choice(self.runs)
            if rng.random() < 0.4 or run not in open_runs:
                self.lines.append(f"line {place}")
                self.entries.append(log(run, self.lines[-1], at=START + place))
            else:
                self._enter(rng, run, place, open_runs)

    def _enter(self, rng: random.Random, run: Run, place: int, open_runs: list[Run]) -> None:
        type = rng.choice(["PENDING", "RUNNING", "RUNNING", "COMPLETED"])
        self.names[run.id].append(type.capitalize())
        self.entries.append(record(run, state(type, START + place * SECOND)))
        if type == "COMPLETED":
            open_runs.remove(run)


async def deliver(database: Database, recorder_id: str, story: Story, rng: random.Random) -> None:
    """Send pieces from anywhere around what is durable, until everything is."""
    durable, last = 0, len(story.entries)
    while durable < last:
        first = max(1, durable + rng.choice([-12, -3, 1, 1, 1, 2, 5]))
        piece = story.entries[first - 1 : first - 1 + rng.choice([1, 3, 12])]
        if not piece:
            continue
        try:
            outcome = await database.writer.record(recorder_id, first, piece)
        except SequenceGap as gap:
            assert gap.durable_seq < first - 1
            durable = gap.durable_seq
        else:
            assert list(outcome.results) == []
            assert outcome.durable_seq >= first + len(piece) - 1
            durable = outcome.durable_seq


async def check(database: Database, story: Story) -> None:
    """Everything is there, once, in order."""
    for run in story.runs:
        states, _ = await database.reader.list_states(run.id)
        assert [s.name for s in states] == story.names[run.id]
    logs, _ = await database.reader.list_logs(LogFilter(root_run_ids=[story.runs[0].id]))
    assert [line.message for line in logs] == story.lines


async def test_pieces_that_overlap_repeat_and_run_ahead(database: Database) -> None:
    for seed in range(25):
        rng = random.Random(seed)
        story, recording = Story(rng), Recording(database)
        await recording.open()
        await deliver(database, recording.id, story, rng)
        await check(database, story)


async def test_two_deliverers_of_one_story(database: Database) -> None:
    """An old stream and its successor, both still sending."""
    for seed in range(10):
        rng = random.Random(seed)
        story, recording = Story(rng), Recording(database)
        await recording.open()
        sources = (random.Random(seed + 100), random.Random(seed + 200))
        await asyncio.gather(*(deliver(database, recording.id, story, each) for each in sources))
        await check(database, story)


async def test_two_deliverers_to_two_replicas(replicas: list[Database]) -> None:
    for seed in range(10):
        rng = random.Random(seed)
        story, recording = Story(rng), Recording(replicas[0])
        await recording.open()
        sources = zip(replicas, (random.Random(seed + 100), random.Random(seed + 200)), strict=True)
        await asyncio.gather(*(deliver(db, recording.id, story, source) for db, source in sources))
        await check(replicas[0], story)
