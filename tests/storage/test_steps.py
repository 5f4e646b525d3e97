"""Steps of runs that are run again: listed, begun anew, and kept from those who have lost the run."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core.errors import (
    ObjectNotFound,
    PageTokenInvalid,
    RunActive,
    StaleAttempt,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run
from headrace.v1.run_service_pb2 import RunStep
from headrace.v1.state_pb2 import State
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, record, run_of, state, task_run


async def listed(database: Database, run: Run, size: int = 0, max_bytes: int = 100) -> list[RunStep]:
    steps: list[RunStep] = []
    token = ""
    while True:
        page, token = await database.reader.run_steps(run.id, size, token, max_bytes)
        steps += page
        if not token:
            return steps


def completed(at: int, data: bytes) -> State:
    done = state("COMPLETED", at)
    done.data.encoding, done.data.inline = "json", data
    return done


async def names(database: Database, run: Run) -> list[str]:
    return [one.name for one in (await database.reader.list_states(run.id))[0]]


async def test_steps_are_listed_with_what_is_needed_to_recognise_them(
    database: Database, recording: Recording
) -> None:
    flow = flow_run()
    first, second = task_run(flow, step_key="a:1"), task_run(flow, "other", step_key="b:1")
    below = flow_run(
        "inner", step_key="c:1", root_run_id=flow.id, parent_run_id=second.id, owner_run_id=flow.id
    )
    unstarted, plain = task_run(flow), task_run(flow)
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    for run in (first, second, below, unstarted, plain):
        await recording.post(run_of(run), record(run, state("PENDING", START + SECOND)))
    running = [record(run, state("RUNNING", START + 2 * SECOND)) for run in (first, second, below, plain)]
    await recording.post(*running)
    await recording.post(
        record(first, completed(START + 3 * SECOND, b"[1]")),
        record(second, completed(START + 4 * SECOND, b"x" * 101)),
        record(plain, completed(START + 4 * SECOND, b"1")),
        run_of(Run(id=first.id, kind=first.kind, step_key="a:1", step_committed=True)),
    )
    found = {step.run_id: step for step in await listed(database, flow)}
    # A run without a key is one only if it never ran.
    assert list(found) == [first.id, second.id, below.id, unstarted.id]
    one, other, inner, waiting = found.values()
    assert (one.parent_run_id, one.code_key, one.step_key) == (flow.id, "module.step", "a:1")
    assert (one.state.name, one.state.data.inline, one.run_count, one.committed) == (
        "Completed",
        b"[1]",
        1,
        True,
    )
    assert one.start_time.ToMicroseconds() == START + 2 * SECOND
    assert one.end_time.ToMicroseconds() == START + 3 * SECOND
    assert (other.state.HasField("data"), other.data_left_out, other.committed) == (False, True, False)
    assert (inner.code_key, inner.parent_run_id, inner.state.name) == ("inner", second.id, "Running")
    assert (waiting.step_key, waiting.state.name, waiting.run_count) == ("", "Pending", 0)


async def test_pages(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    runs = [task_run(flow, step_key=f"a:{number}") for number in range(7)]
    await recording.post(*[run_of(run) for run in runs])
    await recording.post(*[record(run, completed(START, b"x" * 50_000)) for run in runs])
    for size in (1, 2, 3, 7, 0):
        assert [one.run_id for one in await listed(database, flow, size)] == [run.id for run in runs]
    whole = await listed(database, flow, max_bytes=60_000)
    assert all(len(one.state.data.inline) == 50_000 for one in whole)
    # However many are asked for, a page stays below what a message may hold.
    many = [task_run(flow, step_key=f"b:{number}") for number in range(30)]
    await recording.post(*[run_of(run) for run in many])
    await recording.post(*[record(run, completed(START, b"x" * 60_000)) for run in many])
    page, token = await database.reader.run_steps(flow.id, 1000, "", 65_536)
    assert sum(len(one.state.data.inline) for one in page) < 1_200_000 and token
    assert len(await listed(database, flow, max_bytes=65_536)) == 37
    with pytest.raises(PageTokenInvalid):
        await database.reader.run_steps(flow.id, 0, token, 1)
    with pytest.raises(ObjectNotFound):
        await database.reader.run_steps(new_id())


@pytest.mark.parametrize(
    ("end", "key", "expected"),
    [
        ("FAILED", "a:1", ["Running", "Failed", "Pending", "Running"]),
        ("CRASHED", "a:1", ["Running", "Crashed", "Pending", "Running"]),
        ("CANCELLED", "a:1", ["Running", "Cancelled", "Pending", "Running"]),
        ("COMPLETED", "a:1", ["Running", "Completed"]),
        ("FAILED", "", ["Running", "Failed"]),
    ],
)
async def test_a_step_that_did_not_complete_begins_anew(
    end: str, key: str, expected: list[str], database: Database, recording: Recording
) -> None:
    flow = flow_run()
    step = task_run(flow, step_key=key)
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    await recording.post(
        run_of(step), record(step, state("RUNNING")), record(step, state(end, START + SECOND))
    )
    again = Run()
    again.CopyFrom(step)
    again.state.CopyFrom(state("PENDING", START + 2 * SECOND))
    outcome = await recording.post(run_of(again), record(step, state("RUNNING", START + 3 * SECOND)))
    assert await names(database, step) == expected
    refused: list[type] = [type(result) for _, result in outcome.results]
    assert refused == ([] if len(expected) == 4 else [TransitionNotAllowed] * 2)
    if len(expected) == 4:
        now = await database.reader.get_run(step.id)
        assert (now.run_count, now.HasField("end_time")) == (2, False)


async def test_the_key_of_a_step_may_come_later(database: Database, recording: Recording) -> None:
    flow = flow_run()
    step = task_run(flow)
    await recording.post(run_of(flow), record(flow, state("RUNNING")), run_of(step))
    await recording.post(run_of(Run(id=step.id, kind=step.kind, step_key="a:1")))
    assert [one.step_key for one in await listed(database, flow)] == ["a:1"]


async def take_over(database: Database, run: Run, force: bool = False, state_id: str = "") -> Run:
    return await database.writer.take_over_run(run.id, state_id or new_id(), force)


@pytest.mark.parametrize("end", ["FAILED", "CRASHED", "CANCELLED"])
async def test_a_run_that_has_ended_is_taken_over(end: str, database: Database, recording: Recording) -> None:
    flow = flow_run()
    step = task_run(flow, step_key="a:1")
    await recording.run_through(flow, ["PENDING", "RUNNING"])
    await recording.post(run_of(step), record(step, state("RUNNING")))
    await recording.post(record(flow, state(end, START + 9 * SECOND)))
    id = new_id()
    taken = await take_over(database, flow, state_id=id)
    assert (taken.attempt, taken.fence, taken.state.name, taken.recorder_id) == (2, 2, "Pending", "")
    assert not taken.HasField("end_time")
    # Sent again, because the answer was lost.
    assert (await take_over(database, flow, state_id=id)).fence == 2
    # The process that had it is refused, whatever it writes.
    late = await recording.post(
        record(flow, state("COMPLETED", START + 10 * SECOND)),
        record(step, state("COMPLETED", START + 10 * SECOND)),
        run_of(task_run(flow, step_key="b:1")),
    )
    assert [type(result) for _, result in late.results] == [StaleAttempt] * 3
    # The next one goes on with the step.
    other = Recording(database)
    await other.open()
    again = Run(fence=2, attempt=2)
    again.MergeFrom(step)
    again.state.CopyFrom(state("PENDING", START + 11 * SECOND))
    outcome = await other.post(run_of(again), record(step, state("RUNNING", START + 12 * SECOND), fence=2))
    assert not outcome.results
    assert (await database.reader.get_run(step.id)).recorder_id == other.id


async def test_a_run_that_a_process_executes_is_taken_by_force_only(
    database: Database, recording: Recording
) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["PENDING", "RUNNING"])
    with pytest.raises(RunActive, match="may be executing it"):
        await take_over(database, flow)
    assert (await take_over(database, flow, force=True)).fence == 2
    # Nobody executes it now.
    assert (await take_over(database, flow)).fence == 3


@pytest.mark.parametrize(
    ("states", "fields", "message"),
    [
        (["RUNNING", "COMPLETED"], {}, "has completed"),
        (["RUNNING", "PAUSED"], {}, "is paused"),
        (["RUNNING", "CANCELLING"], {}, "is being cancelled"),
    ],
)
async def test_what_is_not_taken_over(
    states: list[str], fields: dict[str, Any], message: str, database: Database, recording: Recording
) -> None:
    flow = flow_run(**fields)
    await recording.run_through(flow, states)
    with pytest.raises(TransitionNotAllowed, match=message):
        await take_over(database, flow, force=True)
    step = task_run(flow)
    with pytest.raises(ObjectNotFound):
        await take_over(database, step)
    await recording.post(run_of(step), record(step, state("RUNNING")))
    with pytest.raises(TransitionNotAllowed, match="started on its own"):
        await take_over(database, step)
    assert (await database.reader.get_run(flow.id)).fence == 1


async def test_a_run_that_waits_for_a_worker_is_left_to_it(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run(deployment_id=new_id()))
    with pytest.raises(RunActive):
        await take_over(database, run)
    lone, _ = await database.writer.create_run(flow_run())
    assert (await take_over(database, lone)).state.name == "Pending"
