"""CreateRun and UpdateRun."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    ObjectAlreadyExists,
    ObjectNotFound,
    RequestIdReused,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import CONFLICT_POLICY_FAIL
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, record, run_of, state, task_run


async def test_a_created_run_is_scheduled_for_now(database: Database) -> None:
    run, existed = await database.writer.create_run(flow_run(created_by="alice", priority=3))
    assert not existed
    assert run.state.name == "Scheduled"
    assert run.next_scheduled_start_time.ToMicroseconds() == START
    assert (run.attempt, run.fence, run.created_by, run.priority) == (1, 1, "alice", 3)
    assert run == await database.reader.get_run(run.id)


async def test_creating_the_same_run_twice_is_creating_it_once(database: Database) -> None:
    asked = flow_run()
    first, second = await asyncio.gather(*(database.writer.create_run(asked) for _ in range(2)))
    assert (first[1], second[1]) == (False, True)
    assert first[0].state.id == second[0].state.id


async def test_the_id_of_another_run_is_refused(database: Database) -> None:
    asked = flow_run()
    await database.writer.create_run(asked)
    asked.name = "something else"
    with pytest.raises(RequestIdReused):
        await database.writer.create_run(asked)


async def test_one_key_is_one_run_per_flow(database: Database) -> None:
    created = await asyncio.gather(*(database.writer.create_run(flow_run(), "day-1") for _ in range(5)))
    assert [existed for _, existed in created] == [False, True, True, True, True]
    assert len({run.id for run, _ in created}) == 1
    other, existed = await database.writer.create_run(flow_run("other"), "day-1")
    assert not existed
    assert other.id != created[0][0].id
    with pytest.raises(ObjectAlreadyExists) as caught:
        await database.writer.create_run(flow_run(), "day-1", CONFLICT_POLICY_FAIL)
    assert caught.value.facts["key"] == created[0][0].id


async def test_a_child_belongs_to_its_parents_tree(database: Database) -> None:
    parent, _ = await database.writer.create_run(flow_run())
    child = flow_run("child", parent_run_id=parent.id)
    created, _ = await database.writer.create_run(child)
    assert (created.root_run_id, created.owner_run_id) == (parent.id, parent.id)
    with pytest.raises(ObjectNotFound):
        await database.writer.create_run(flow_run("lost", parent_run_id=new_id()))


async def test_a_recorded_run_may_be_created_afterwards(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), record(flow, state("RUNNING")))
    run, existed = await database.writer.create_run(flow)
    assert (run.state.name, existed) == ("Running", True)


async def test_an_executor_takes_up_a_created_run(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await database.writer.create_run(flow)
    task = task_run(flow)
    outcome = await recording.post(
        record(flow, state("RUNNING", START + SECOND), want_verdict=True), run_of(task)
    )
    assert [verdict.HasField("accepted") for _, verdict in outcome.results] == [True]
    assert (await database.reader.get_run(flow.id)).recorder_id == recording.id


async def test_facts_about_a_run_are_changed(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run(tags=["old"], labels={"a": "1"}))
    news = Run(id=run.id, name="new", tags=["x", "y"], labels={"b": "2"})
    news.parameters.encoding, news.parameters.inline = "json", b"{}"
    changed = await database.writer.update_run(news, ["name", "tags", "labels", "parameters"])
    assert (changed.name, list(changed.tags), dict(changed.labels)) == ("new", ["x", "y"], {"b": "2"})
    assert changed.parameters.inline == b"{}"
    assert changed.etag != run.etag
    assert changed == await database.reader.get_run(run.id)
    assert not (await database.reader.list_runs(RunFilter(tags_all=["old"])))[0]
    cleared = await database.writer.update_run(Run(id=run.id), ["tags", "parameters"])
    assert not cleared.tags
    assert not cleared.HasField("parameters")


async def test_only_what_the_mask_names_is_changed(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run(tags=["old"]))
    changed = await database.writer.update_run(Run(id=run.id, name="new", tags=["lost"]), ["name"])
    assert (changed.name, list(changed.tags)) == ("new", ["old"])


@pytest.mark.parametrize("paths", [["state"], [], ["name", "fence"]])
async def test_other_fields_cannot_be_changed(database: Database, paths: list[str]) -> None:
    run, _ = await database.writer.create_run(flow_run())
    with pytest.raises(FieldsInvalid):
        await database.writer.update_run(Run(id=run.id), paths)


async def test_a_change_of_something_old_is_refused(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    await database.writer.update_run(Run(id=run.id, name="a", etag=run.etag), ["name"])
    with pytest.raises(EtagMismatch):
        await database.writer.update_run(Run(id=run.id, name="b", etag=run.etag), ["name"])
    with pytest.raises(ObjectNotFound):
        await database.writer.update_run(Run(id=new_id(), name="b"), ["name"])


async def test_the_parameters_of_a_run_that_has_started_stay(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    await database.writer.propose_state(run.id, None, state("RUNNING", START + SECOND))
    with pytest.raises(TransitionNotAllowed):
        await database.writer.update_run(Run(id=run.id), ["parameters"])


async def test_a_repeated_change_is_made_once(database: Database) -> None:
    run, _ = await database.writer.create_run(flow_run())
    asked = Run(id=run.id, name="a")
    first = await database.writer.update_run(asked, ["name"], "request-1")
    await database.writer.update_run(Run(id=run.id, name="b"), ["name"])
    assert await database.writer.update_run(asked, ["name"], "request-1") == first
    assert (await database.reader.get_run(run.id)).name == "b"
    with pytest.raises(RequestIdReused):
        await database.writer.update_run(Run(id=run.id, name="c"), ["name"], "request-1")
