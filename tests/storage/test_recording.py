"""What executors record."""

from __future__ import annotations

from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, record, run_of, state, task_run


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
