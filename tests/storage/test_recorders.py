"""Recorders: leases, sealing, crashes, and processes that come back."""

from __future__ import annotations

import pytest

from headrace.core.errors import ObjectNotFound, RecorderSealed
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.state_pb2 import CrashedDetails
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, record, run_of, state, task_run

LEASE_OVER = CrashedDetails.CAUSE_LEASE_EXPIRED


async def test_a_recorder_goes_on_where_it_was(database: Database, recording: Recording) -> None:
    await recording.post(run_of(flow_run()), run_of(flow_run()))
    status = await recording.open()
    assert (status.durable_seq, status.sealed, list(status.verdicts)) == (2, False, [])


async def test_leases_are_live_until_they_end(database: Database, recording: Recording) -> None:
    now = await database.now()
    (live,) = await database.reader.live_recorders(now)
    assert (live.recorder_id, live.host, live.pid, live.replica_id) == (recording.id, "here", 7, "replica")
    assert abs(live.expires_at - now - 30 * SECOND) < 5 * SECOND
    assert await database.reader.expired_recorders(now) == []
    later = live.expires_at + 1
    assert [r.recorder_id for r in await database.reader.expired_recorders(later)] == [recording.id]
    assert await database.reader.live_recorders(later) == []
    await database.writer.renew_recorders({recording.id: later + SECOND})
    assert [r.recorder_id for r in await database.reader.live_recorders(later)] == [recording.id]


async def test_recording_leaves_the_lease_to_whoever_renews_it(
    database: Database, recording: Recording
) -> None:
    await recording.post(run_of(flow_run()))
    renewed = await database.now() + 900 * SECOND
    await database.writer.renew_recorders({recording.id: renewed})
    await recording.post(run_of(flow_run()))
    (live,) = await database.reader.live_recorders(0)
    assert live.expires_at == renewed


async def test_a_lapsed_recorder_crashes_what_it_ran(database: Database, recording: Recording) -> None:
    flow, done = flow_run(), flow_run()
    sub = flow_run("sub", root_run_id=flow.id, parent_run_id=flow.id)
    task = task_run(sub)
    task.root_run_id = flow.id
    await recording.run_through(done, ["RUNNING", "COMPLETED"])
    for run in (flow, sub, task):
        await recording.post(run_of(run), record(run, state("RUNNING")))
    crashed = await database.writer.crash_recorder(recording.id, "The process is gone.", LEASE_OVER)
    assert crashed == [task.id, sub.id, flow.id]
    stored = await database.reader.get_run(flow.id)
    assert (stored.state.name, stored.state.message) == ("Crashed", "The process is gone.")
    assert stored.state.crashed.cause == LEASE_OVER
    assert stored.HasField("end_time")
    assert (await database.reader.get_run(done.id)).state.name == "Completed"
    assert await database.reader.expired_recorders(START * 2) == []
    assert await database.writer.crash_recorder(recording.id, "again", LEASE_OVER) == []


async def test_a_lease_renewed_in_time_is_not_lost(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    found = await database.now() + 60 * SECOND
    await database.writer.renew_recorders({recording.id: found + SECOND})
    crashed = await database.writer.crash_recorder(recording.id, "gone", LEASE_OVER, expired_before=found)
    assert crashed == []
    assert (await database.reader.get_run(flow.id)).state.name == "Running"


async def test_a_process_that_comes_back_knows_better(database: Database, recording: Recording) -> None:
    """The server's guess gives way to the report of the process under the same fence."""
    flow = flow_run()
    task = task_run(flow)
    await recording.post(run_of(flow), record(flow, state("RUNNING", START)), run_of(task))
    await recording.post(record(task, state("RUNNING", START + SECOND)))
    await database.writer.crash_recorder(recording.id, "gone", LEASE_OVER)
    assert (await recording.open()).durable_seq == 4
    outcome = await recording.post(
        record(task, state("COMPLETED", START + 2 * SECOND)),
        record(flow, state("COMPLETED", START + 3 * SECOND), want_verdict=True),
    )
    ((_, verdict),) = outcome.results
    assert verdict.accepted.state.name == "Completed"
    for run in (flow, task):
        stored = await database.reader.get_run(run.id)
        assert stored.state.name == "Completed"
        assert stored.run_count == 1


async def test_its_own_crash_is_final(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING", "CRASHED"])
    outcome = await recording.post(record(flow, state("COMPLETED", START + 9 * SECOND)))
    assert len(outcome.results) == 1
    assert (await database.reader.get_run(flow.id)).state.name == "Crashed"


async def test_what_was_being_cancelled_is_cancelled(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING", "CANCELLING"])
    await database.writer.crash_recorder(recording.id, "gone", LEASE_OVER)
    assert (await database.reader.get_run(flow.id)).state.name == "Cancelled"


async def test_a_suspended_run_has_no_process_to_lose(database: Database, recording: Recording) -> None:
    flow = flow_run(deployment_id=new_id())
    pause = state("PAUSED", START + SECOND)
    pause.paused.reschedule = True
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    await recording.post(record(flow, pause, want_verdict=True))
    assert await database.writer.crash_recorder(recording.id, "gone", LEASE_OVER) == []
    assert (await database.reader.get_run(flow.id)).state.type == state("PAUSED").type


async def test_a_sealed_recorder_is_done(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    await database.writer.seal_recorder(recording.id)
    await database.writer.seal_recorder(recording.id)
    stored = await database.reader.get_run(flow.id)
    assert (stored.state.name, stored.state.crashed.cause) == ("Crashed", CrashedDetails.CAUSE_PROCESS_EXIT)
    with pytest.raises(RecorderSealed):
        await recording.post(record(flow, state("COMPLETED", START + SECOND)))
    assert (await recording.open()).sealed
    assert await database.reader.live_recorders(0) == []
    await database.writer.renew_recorders({recording.id: START})
    assert await database.reader.live_recorders(0) == []


async def test_unknown_recorders_are_not_found(database: Database) -> None:
    with pytest.raises(ObjectNotFound):
        await database.writer.seal_recorder(new_id())
    with pytest.raises(ObjectNotFound):
        await database.writer.crash_recorder(new_id(), "gone", LEASE_OVER)


async def test_attempts_that_own_nothing_any_more_are_lost(database: Database, recording: Recording) -> None:
    mine, deleted, unknown = flow_run(), flow_run(), flow_run()
    await recording.post(run_of(mine), run_of(deleted), record(deleted, state("RUNNING")))
    await database.writer.delete_run(deleted.id, force=True)
    executing = [
        AttemptRef(run_id=mine.id, attempt=1, fence=1),
        AttemptRef(run_id=mine.id, attempt=2, fence=2),
        AttemptRef(run_id=deleted.id, attempt=1, fence=1),
        AttemptRef(run_id=unknown.id, attempt=1, fence=1),
    ]
    lost = await database.writer.renew_recorders({recording.id: START}, executing)
    assert [verdict.attempt for verdict in lost] == executing[1:3]
    assert all(verdict.lost and verdict.reason for verdict in lost)
    assert list((await recording.open(*executing)).verdicts) == lost
