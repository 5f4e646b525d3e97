"""Two servers on one PostgreSQL cannot do what one may not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.core.errors import ObjectNotFound, RecorderSealed, SequenceGap, ServiceError
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, log, record, run_of, state, task_run


async def _both(replicas: list[Database], call: Any) -> list[Any]:
    """What both replicas answer to the same call at once."""
    return await asyncio.gather(*(call(database) for database in replicas), return_exceptions=True)


async def test_proposals_that_race_are_decided_one_after_the_other(replicas: list[Database]) -> None:
    for _ in range(10):
        run, _ = await replicas[0].writer.create_run(flow_run())

        async def submit(database: Database, run_id: str = run.id) -> str:
            verdict = await database.writer.propose_state(run_id, None, state("PENDING", START + SECOND))
            return str(verdict.WhichOneof("verdict"))

        assert sorted(await _both(replicas, submit)) == ["abort", "accepted"]
        states, _ = await replicas[1].reader.list_states(run.id)
        assert [s.name for s in states] == ["Scheduled", "Pending"]


async def test_the_end_of_a_run_is_decided_once(replicas: list[Database]) -> None:
    """Cancelled here, completed there: one of them is final, and the other is told so."""
    for _ in range(10):
        recording = Recording(replicas[0])
        await recording.open()
        flow = flow_run()
        await recording.run_through(flow, ["RUNNING"])
        outcome, _ = await asyncio.gather(
            recording.post(record(flow, state("COMPLETED", START + SECOND))),
            replicas[1].writer.propose_state(flow.id, None, state("CANCELLED", START + SECOND)),
        )
        states, _ = await replicas[0].reader.list_states(flow.id)
        ends = [s.name for s in states[1:]]
        # A proposal may go from one final state to another; a record may not.
        assert ends in (["Completed", "Cancelled"], ["Cancelled"])
        assert bool(outcome.results) is (ends == ["Cancelled"])


async def test_entries_sent_to_both_are_applied_once(replicas: list[Database]) -> None:
    recording = Recording(replicas[0])
    await recording.open()
    flow = flow_run()
    await recording.post(run_of(flow))
    seq = 2
    for place in range(10):
        task = task_run(flow, f"step-{place}")
        entries = [run_of(task), record(task, state("RUNNING")), log(task, "line")]

        async def send(database: Database, first: int = seq, sent: Any = entries) -> int:
            outcome = await database.writer.record(recording.id, first, sent)
            assert not outcome.results
            return outcome.durable_seq

        assert await _both(replicas, send) == [seq + 2, seq + 2]
        seq += 3
    rows = await replicas[0]._backend.fetch(
        "SELECT (SELECT count(*) FROM run_states), (SELECT count(*) FROM logs)"
    )
    assert tuple(rows[0]) == (10, 10)


async def test_a_recorder_that_changes_replicas_goes_on(replicas: list[Database]) -> None:
    one, other = replicas
    recording = Recording(one)
    await recording.open()
    flow = flow_run()
    await recording.post(run_of(flow))
    assert (await other.writer.record(recording.id, 2, [record(flow, state("RUNNING"))])).durable_seq == 2
    with pytest.raises(SequenceGap) as caught:
        await one.writer.record(recording.id, 4, [log(flow, "x")])
    assert caught.value.durable_seq == 2
    assert (await one.writer.record(recording.id, 3, [log(flow, "x")])).durable_seq == 3
    await other.writer.seal_recorder(recording.id)
    with pytest.raises(RecorderSealed):
        await one.writer.record(recording.id, 4, [log(flow, "y")])


async def test_one_key_is_one_run(replicas: list[Database]) -> None:
    for place in range(10):
        created = await _both(replicas, lambda db, key=f"key-{place}": db.writer.create_run(flow_run(), key))
        assert sorted(existed for _, existed in created) == [False, True]
        assert created[0][0].id == created[1][0].id


async def test_one_id_is_one_run(replicas: list[Database]) -> None:
    for _ in range(10):
        asked = flow_run()
        created = await _both(replicas, lambda db, run=asked: db.writer.create_run(run))
        assert sorted(existed for _, existed in created) == [False, True]


async def test_a_lapsed_lease_is_acted_on_once(replicas: list[Database]) -> None:
    recording = Recording(replicas[0])
    await recording.open()
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING"])
    cause = CrashedDetails.CAUSE_LEASE_EXPIRED
    crashed = await _both(replicas, lambda db: db.writer.crash_recorder(recording.id, "gone", cause))
    assert sorted(crashed) == [[], [flow.id]]
    states, _ = await replicas[0].reader.list_states(flow.id)
    assert [s.name for s in states] == ["Running", "Crashed"]


async def test_a_run_is_deleted_while_it_grows(replicas: list[Database]) -> None:
    """No task run is left behind by a delete that races with its recording."""
    for _ in range(5):
        recording = Recording(replicas[0])
        await recording.open()
        flow = flow_run()
        await recording.run_through(flow, ["RUNNING"])

        async def grow(recording: Recording = recording, flow: Any = flow) -> list[Any]:
            outcomes = [await recording.post(run_of(task_run(flow, f"t{i}"))) for i in range(20)]
            return [error for outcome in outcomes for _, error in outcome.results]

        errors, deleted = await asyncio.gather(grow(), replicas[1].writer.delete_run(flow.id, force=True))
        assert all(isinstance(error, ObjectNotFound) for error in errors)
        assert deleted == 21 - len(errors)
        assert await replicas[0].reader.count_runs(RunFilter(root_run_ids=[flow.id])) == []


async def test_the_first_runs_of_a_flow_at_both(replicas: list[Database]) -> None:
    for place in range(5):
        name = f"flow-{place}"
        created = await _both(replicas, lambda db, name=name: db.writer.create_run(flow_run(name)))
        assert not [error for error in created if isinstance(error, ServiceError)]
        _, counts = await replicas[0].reader.get_flow(name=name)
        assert sum(c.count for c in counts) == 2
