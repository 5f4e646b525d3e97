"""What executors record."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.errors import (
    FieldsInvalid,
    InternalError,
    ObjectNotFound,
    SequenceGap,
    StaleAttempt,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED, ScheduledDetails
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, log, record, run_of, state, task_run


async def test_a_run_is_recorded_from_beginning_to_end(database: Database, recording: Recording) -> None:
    flow = flow_run(tags=["nightly", "etl"])
    task = task_run(flow)
    outcome = await recording.post(
        run_of(flow),
        record(flow, state("RUNNING", START)),
        run_of(task),
        record(task, state("PENDING", START + SECOND)),
        record(task, state("RUNNING", START + 2 * SECOND)),
        record(task, state("COMPLETED", START + 5 * SECOND)),
        record(flow, state("COMPLETED", START + 6 * SECOND)),
    )
    assert (outcome.durable_seq, list(outcome.results)) == (7, [])
    stored = await database.reader.get_run(task.id)
    assert stored.state.name == "Completed"
    assert stored.run_count == 1
    assert stored.total_run_time.ToMicroseconds() == 3 * SECOND
    assert stored.expected_start_time.ToMicroseconds() == START + SECOND
    assert stored.recorder_id == recording.id
    assert stored.root_run_id == stored.owner_run_id == stored.parent_run_id == flow.id
    whole = await database.reader.get_run(flow.id)
    assert (whole.flow_name, list(whole.tags)) == ("etl", ["nightly", "etl"])
    states, token = await database.reader.list_states(task.id)
    assert ([s.name for s in states], token) == (["Pending", "Running", "Completed"], "")
    assert states[1].running.run_count == 1
    assert states[0].record_time.ToMicroseconds() == START


async def test_entries_are_applied_exactly_once(database: Database, recording: Recording) -> None:
    flow = flow_run()
    entries = [run_of(flow), record(flow, state("RUNNING")), log(flow, "hello")]
    await recording.post(*entries)
    more = record(flow, state("COMPLETED", START + SECOND))
    again = await database.writer.record(recording.id, 1, [*entries, more])
    assert (again.durable_seq, list(again.results)) == (4, [])
    assert len((await database.reader.list_states(flow.id))[0]) == 2
    assert len((await database.reader.list_logs(LogFilter(run_ids=[flow.id])))[0]) == 1


async def test_a_gap_is_refused_and_says_where_to_go_on(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow))
    with pytest.raises(SequenceGap) as caught:
        await database.writer.record(recording.id, 3, [record(flow, state("RUNNING"))])
    assert caught.value.durable_seq == 1


async def test_pipelined_batches_are_one_sequence(database: Database, recording: Recording) -> None:
    flow = flow_run()
    tasks = [task_run(flow, f"step-{i}") for i in range(50)]
    first = recording.post(run_of(flow), record(flow, state("RUNNING")))
    rest = [
        recording.post(
            run_of(task), record(task, state("RUNNING")), record(task, state("COMPLETED", START + 1))
        )
        for task in tasks
    ]
    outcomes = await asyncio.gather(first, *rest)
    assert [outcome.durable_seq for outcome in outcomes] == [2 + 3 * i for i in range(51)]
    counts = await database.reader.count_runs(RunFilter(kinds=["RUN_KIND_TASK"]))
    assert [(c.state_type, c.count) for c in counts] == [(STATE_TYPE_COMPLETED, 50)]


async def test_a_recorder_must_open_first(database: Database) -> None:
    with pytest.raises(ObjectNotFound, match="recorder"):
        await Recording(database).post(run_of(flow_run()))


async def test_a_refused_entry_leaves_an_error_and_the_sequence_goes_on(
    database: Database, recording: Recording
) -> None:
    flow, unknown = flow_run(), flow_run("other")
    outcome = await recording.post(
        run_of(flow),
        record(unknown, state("RUNNING")),
        record(flow, state("RUNNING"), fence=2),
        record(flow, state("COMPLETED", START + SECOND)),
        record(flow, state("RUNNING", START + 2 * SECOND)),
        log(flow, "still here"),
    )
    assert outcome.durable_seq == 6
    refused = [(seq, type(error)) for seq, error in outcome.results]
    assert refused == [(2, ObjectNotFound), (3, StaleAttempt), (5, TransitionNotAllowed)]
    assert (await database.reader.get_run(flow.id)).state.name == "Completed"


async def test_a_run_without_its_parent_is_refused(recording: Recording) -> None:
    orphan = task_run(flow_run())
    outcome = await recording.post(run_of(orphan))
    assert [type(error) for _, error in outcome.results] == [ObjectNotFound]


async def test_the_first_state_may_come_with_the_run(database: Database, recording: Recording) -> None:
    flow = flow_run(state=state("PENDING"))
    await recording.post(run_of(flow), record(flow, state("RUNNING", START + SECOND)))
    states, _ = await database.reader.list_states(flow.id)
    assert [s.name for s in states] == ["Pending", "Running"]


async def test_a_further_entry_about_a_run_changes_what_it_says(
    database: Database, recording: Recording
) -> None:
    flow = flow_run(tags=["a"], labels={"team": "x"})
    flow.parameters.encoding, flow.parameters.inline = "json", b"[1]"
    await recording.post(run_of(flow))
    news = Run(id=flow.id, kind=flow.kind, name="renamed", tags=["b", "c"])
    news.inputs.add(parameter="data", run_ids=[flow.id])
    await recording.post(run_of(news))
    stored = await database.reader.get_run(flow.id)
    assert (stored.name, list(stored.tags), dict(stored.labels)) == ("renamed", ["b", "c"], {"team": "x"})
    assert stored.parameters.inline == b"[1]"
    assert stored.inputs[0].parameter == "data"
    assert stored.flow_name == "etl"
    found, _ = await database.reader.list_runs(RunFilter(tags_all=["b"]))
    assert [run.id for run in found] == [flow.id]
    assert await database.reader.list_runs(RunFilter(tags_all=["a"])) == ([], "")


async def test_states_that_share_an_instant_are_moved_apart(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("PENDING")), record(flow, state("RUNNING")))
    states, _ = await database.reader.list_states(flow.id)
    assert [s.event_time.ToMicroseconds() for s in states] == [START, START + 1]


async def test_what_only_the_server_may_say_is_not_taken_from_executors(
    database: Database, recording: Recording
) -> None:
    flow = flow_run()
    lie = state("RUNNING", forced_by="root")
    lie.record_time.FromMicroseconds(5)
    lie.running.run_count = 77
    await recording.post(run_of(flow), record(flow, lie))
    stored = (await database.reader.get_run(flow.id)).state
    assert (stored.forced_by, stored.record_time.ToMicroseconds()) == ("", START)
    assert stored.running.run_count == 1


async def test_a_retry_recorded_by_its_executor(database: Database, recording: Recording) -> None:
    flow = flow_run()
    retry = state("SCHEDULED", START + 2 * SECOND, name="AwaitingRetry")
    retry.scheduled.cause = ScheduledDetails.CAUSE_RETRY
    retry.scheduled.scheduled_time.FromMicroseconds(START + 9 * SECOND)
    await recording.post(
        run_of(flow),
        record(flow, state("RUNNING", START)),
        record(flow, retry),
        record(flow, state("RUNNING", START + 9 * SECOND, name="Retrying")),
        record(flow, state("COMPLETED", START + 10 * SECOND)),
    )
    stored = await database.reader.get_run(flow.id)
    assert (stored.run_count, stored.total_run_time.ToMicroseconds()) == (2, 3 * SECOND)
    attempts = await database.reader.list_attempts(flow.id)
    assert [(a.number, a.end_state.name) for a in attempts] == [(1, "AwaitingRetry"), (2, "Completed")]


async def test_text_with_a_nul_is_kept_on_both_databases(database: Database, recording: Recording) -> None:
    flow = flow_run(tags=["a\0b"])
    flow.name = "nul\0name"
    outcome = await recording.post(
        run_of(flow), record(flow, state("RUNNING", name="R\0", message="m\0")), log(flow, "x\0y")
    )
    assert not outcome.results
    stored = await database.reader.get_run(flow.id)
    assert (stored.name, list(stored.tags)) == ("nul\ufffdname", ["a\ufffdb"])
    logs, _ = await database.reader.list_logs(LogFilter(run_ids=[flow.id]))
    assert logs[0].message == "x\ufffdy"


async def test_one_poisonous_entry_is_found_and_left_out(
    database: Database, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    """A state id that the run had before breaks a unique key, which only the database notices."""
    flow, other = flow_run(), flow_run("other")
    pending = state("PENDING")
    entries = [
        run_of(flow),
        record(flow, pending),
        record(flow, state("RUNNING", START + SECOND)),
        record(flow, state("PENDING", START + 2 * SECOND, id=pending.id)),
        record(flow, state("COMPLETED", START + 3 * SECOND)),
    ]
    neighbour = Recording(database)
    await neighbour.open()
    outcome, beside = await asyncio.gather(recording.post(*entries), neighbour.post(run_of(other)))
    assert (outcome.durable_seq, beside.durable_seq) == (5, 1)
    assert [(seq, type(error)) for seq, error in outcome.results] == [(4, InternalError)]
    assert "could not be committed" in caplog.text
    states, _ = await database.reader.list_states(flow.id)
    assert [s.name for s in states] == ["Pending", "Running", "Completed"]
    assert (await database.reader.get_run(other.id)).name == "other-run"


async def test_an_unknown_kind_of_entry_is_left_out(recording: Recording) -> None:
    outcome = await recording.post(RecordEntry(), run_of(flow_run()))
    assert [(seq, type(error)) for seq, error in outcome.results] == [(1, FieldsInvalid)]
    assert outcome.durable_seq == 2


async def test_a_run_says_what_kind_it_is(recording: Recording) -> None:
    outcome = await recording.post(run_of(Run(id=new_id(), name="neither")))
    assert [type(error) for _, error in outcome.results] == [FieldsInvalid]


async def test_ids_that_are_none_are_left_out(
    database: Database, recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [
        run_of(flow_run(id="")),
        run_of(Run(id="x", name="no kind")),
        run_of(flow_run(id="abc")),
        log(Run(id="?"), "x"),
    ]
    outcome = await recording.post(*entries)
    assert [seq for seq, error in outcome.results if isinstance(error, InternalError)] == [1, 2, 3, 4]
    assert outcome.durable_seq == 4
    assert await database.reader.list_runs(RunFilter()) == ([], "")


async def test_upper_case_ids_are_the_same_ids(database: Database, recording: Recording) -> None:
    flow = flow_run()
    shouted = Run(id=flow.id.upper(), kind=flow.kind, name="loud", flow_name="etl")
    await recording.post(run_of(shouted), record(flow, state("RUNNING")))
    assert (await database.reader.get_run(flow.id.upper())).state.name == "Running"
