"""Deleting runs and flows."""

from __future__ import annotations

import pytest

from headrace.core.errors import ObjectNotFound, RunActive, StaleAttempt
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.span_pb2 import Span
from headrace.v1.span_service_pb2 import SpanFilter
from headrace_services.storage.database import Database
from tests.storage.build import START, Recording, flow_run, log, record, run_of, state, task_run


def span(run: Run) -> RecordEntry:
    built = Span(run_id=run.id, root_run_id=run.root_run_id or run.id, trace_id="a" * 32, span_id="b" * 16)
    built.start_time.FromMicroseconds(START)
    return RecordEntry(span=built)


async def test_a_run_goes_with_everything_below_it(database: Database, recording: Recording) -> None:
    flow, kept = flow_run(tags=["t"]), flow_run(tags=["t"])
    task = task_run(flow, tags=["t"])
    for run in (flow, kept, task):
        await recording.run_through(run, ["RUNNING", "COMPLETED"])
        await recording.post(log(run, "line"), span(run))
    token = await database.reader.latest_token()
    assert await database.writer.delete_run(flow.id) == 2
    changes = await database.reader.changes_since(token)
    assert sorted(changes.deleted) == sorted([flow.id, task.id])
    found, _ = await database.reader.list_runs(RunFilter(tags_all=["t"]))
    assert [run.id for run in found] == [kept.id]
    assert {line.run_id for line in (await database.reader.list_logs(LogFilter()))[0]} == {kept.id}
    assert {s.run_id for s in (await database.reader.list_spans(SpanFilter()))[0]} == {kept.id}
    with pytest.raises(ObjectNotFound):
        await database.reader.list_states(task.id)
    assert await database.writer.delete_run(flow.id) == 0


async def test_a_part_of_a_tree_can_go(database: Database, recording: Recording) -> None:
    flow = flow_run()
    sub = flow_run("sub", root_run_id=flow.id, parent_run_id=flow.id)
    below = task_run(sub)
    beside = task_run(flow, "beside")
    for run in (flow, sub, below, beside):
        await recording.run_through(run, ["RUNNING", "COMPLETED"])
    assert await database.writer.delete_run(sub.id) == 2
    left, _ = await database.reader.list_runs(RunFilter())
    assert {run.id for run in left} == {flow.id, beside.id}


async def test_what_may_be_executing_is_kept_unless_forced(database: Database, recording: Recording) -> None:
    flow = flow_run()
    task = task_run(flow)
    await recording.run_through(flow, ["RUNNING"])
    await recording.run_through(task, ["RUNNING", "COMPLETED"])
    with pytest.raises(RunActive):
        await database.writer.delete_run(flow.id)
    assert await database.writer.delete_run(flow.id, force=True) == 2


async def test_a_run_that_never_started_can_go(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    assert await database.writer.delete_run(run.id) == 1


async def test_a_process_cannot_bring_a_deleted_run_back(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["RUNNING"])
    await database.writer.delete_run(flow.id, force=True)
    outcome = await recording.post(
        record(flow, state("COMPLETED", START + 9)), run_of(flow), run_of(task_run(flow))
    )
    assert [type(error) for _, error in outcome.results] == [ObjectNotFound, StaleAttempt, ObjectNotFound]
    with pytest.raises(StaleAttempt):
        await database.writer.create_run(flow)


async def test_a_flow_goes_with_all_its_runs(database: Database, recording: Recording) -> None:
    flow, other = flow_run(), flow_run("other")
    inner = flow_run("etl", root_run_id=other.id, parent_run_id=other.id)
    for run in (flow, other, inner, task_run(flow)):
        await recording.run_through(run, ["RUNNING", "COMPLETED"])
    assert await database.writer.delete_flow(name="etl") == 3
    flows, _ = await database.reader.list_flows()
    assert [f.name for f in flows] == ["other"]
    with pytest.raises(ObjectNotFound):
        await database.writer.delete_flow(name="etl")
    await recording.run_through(flow_run(), ["RUNNING"])
    again, _ = await database.reader.get_flow(name="etl")
    with pytest.raises(RunActive):
        await database.writer.delete_flow(id=again.id)
    assert await database.writer.delete_flow(id=again.id, force=True) == 1
