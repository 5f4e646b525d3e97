"""Pauses, their timers, and what runs are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from headrace.core.errors import FieldsInvalid, ObjectAlreadyExists, ObjectNotFound, ResumeTokenInvalid
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.run_service_pb2 import ProposeStateResponse, RunInput
from headrace.v1.state_pb2 import ScheduledDetails, State
from headrace_services.storage.database import Database
from headrace_services.storage.work import TimerKind
from tests.storage.build import SECOND, START, ManualClock, Recording, flow_run, record, run_of, state

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"type": "string"}},
        "required": ["age"],
        "additionalProperties": False,
    }
)


def paused(timeout_seconds: float | None = 60, *, key: str = "1", asks: str = "", **details: Any) -> State:
    """A paused state that asks for something that fits the schema `asks`."""
    built = state("PAUSED", START, name=details.pop("name", "Paused"))
    built.paused.pause_key = key
    built.paused.reschedule = details.pop("reschedule", False)
    if timeout_seconds is not None:
        built.paused.timeout_time.FromMicroseconds(START + int(timeout_seconds * SECOND))
    if asks:
        built.paused.input_keyset = f"paused-{key}"
        built.paused.input_schema = asks
        built.paused.input_description = "How old is it?"
    return built


async def running(database: Database, **fields: Any) -> Run:
    run, _ = await database.writer.create_run(flow_run(**fields))
    await database.writer.propose_state(run.id, None, state("RUNNING", START))
    return run


async def pause(database: Database, run: Run, asked: State) -> ProposeStateResponse:
    return await database.writer.propose_state(run.id, None, asked)


async def names(database: Database, run: Run) -> list[str]:
    return [s.name for s in (await database.reader.list_states(run.id))[0]]


async def inputs(database: Database, run: Run) -> dict[str, Any]:
    found, _ = await database.reader.list_inputs(run.id)
    return {said.key: json.loads(said.value) for said in found}


async def test_a_pause_keeps_what_it_asks_for_beside_the_state(database: Database) -> None:
    run = await running(database)
    await pause(database, run, paused(asks=SCHEMA))
    kept = (await database.reader.get_run(run.id)).state.paused
    assert (kept.input_keyset, kept.input_schema, kept.input_description) == ("paused-1", "", "")
    assert await inputs(database, run) == {
        "paused-1-schema": json.loads(SCHEMA),
        "paused-1-description": "How old is it?",
    }


async def test_an_answer_is_kept_with_the_state_it_brings(database: Database) -> None:
    run = await running(database)
    await pause(database, run, paused(asks=SCHEMA))
    verdict = await database.writer.resume_run(run.id, new_id(), '{"age": 3}')
    assert verdict.accepted.state.name == "Running"
    assert (await inputs(database, run))["paused-1-response"] == {"age": 3}
    assert (await database.reader.get_run(run.id)).run_count == 1
    assert await database.reader.due_timers(TimerKind.PAUSE, START + 1000 * SECOND) == []


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        ("", ["input.age"]),
        ('{"age": "old", "colour": 1}', ["input.age", "input.colour"]),
        ('{"age": -1}', ["input.age"]),
        ("[]", ["input"]),
        ("{", ["input"]),
    ],
)
async def test_an_answer_that_does_not_fit_changes_nothing(
    database: Database, answer: str, fields: list[str]
) -> None:
    run = await running(database)
    await pause(database, run, paused(asks=SCHEMA))
    with pytest.raises(FieldsInvalid) as refused:
        await database.writer.resume_run(run.id, new_id(), answer)
    assert sorted(violation.field for violation in refused.value.violations) == fields
    assert await names(database, run) == ["Scheduled", "Running", "Paused"]
    assert "paused-1-response" not in await inputs(database, run)
    accepted = await database.writer.resume_run(run.id, new_id(), '{"age": 1}')
    assert accepted.accepted.state.name == "Running"


async def test_resuming_twice_at_once_is_one_accept_and_one_abort(database: Database) -> None:
    run = await running(database)
    await pause(database, run, paused())
    answers = await asyncio.gather(*(database.writer.resume_run(run.id, new_id()) for _ in range(2)))
    assert sorted(str(answer.WhichOneof("verdict")) for answer in answers) == ["abort", "accepted"]
    reason = next(answer.abort.reason for answer in answers if answer.HasField("abort"))
    assert reason == "The run is not paused: it is Running."


async def test_the_same_request_twice_is_one_resumption(database: Database) -> None:
    run = await running(database)
    await pause(database, run, paused(asks=SCHEMA))
    id = new_id()
    for _ in range(2):
        verdict = await database.writer.resume_run(run.id, id, '{"age": 3}')
        assert verdict.accepted.state.id == id
    await pause(database, run, paused(key="2"))
    assert (await database.writer.resume_run(run.id, id)).accepted.state.id == id
    assert await names(database, run) == ["Scheduled", "Running", "Paused", "Running", "Paused"]


async def test_a_suspended_run_is_scheduled_again(database: Database) -> None:
    run = await running(database, deployment_id=new_id())
    suspended = await pause(database, run, paused(None, name="Suspended", reschedule=True))
    assert suspended.HasField("accepted")
    assert (await database.reader.get_run(run.id)).recorder_id == ""
    resumed = (await database.writer.resume_run(run.id, new_id())).accepted.state
    assert (resumed.name, resumed.scheduled.cause) == ("Resuming", ScheduledDetails.CAUSE_RESUMED)


async def test_only_a_run_of_a_deployment_is_suspended(database: Database) -> None:
    run = await running(database)
    verdict = await pause(database, run, paused(None, reschedule=True))
    assert "deployment" in verdict.abort.reason


async def test_a_pause_ends_when_its_time_is_over(database: Database, clock: ManualClock) -> None:
    run = await running(database)
    asked = paused(60)
    await pause(database, run, asked)
    assert await database.reader.due_timers(TimerKind.PAUSE, START + 59 * SECOND) == []
    (timer,) = await database.reader.due_timers(TimerKind.PAUSE, START + 60 * SECOND)
    assert timer == (run.id, asked.id, START + 60 * SECOND)
    assert not await database.writer.expire_pause(run.id, asked.id)
    clock.advance(60)
    assert await database.writer.expire_pause(run.id, asked.id)
    failed = (await database.reader.get_run(run.id)).state
    assert (failed.name, failed.message) == ("Failed", "The run was paused and never resumed.")
    assert await database.reader.due_timers(TimerKind.PAUSE, START + 90 * SECOND) == []


async def test_a_timer_does_nothing_to_a_run_that_has_left_its_pause(
    database: Database, clock: ManualClock
) -> None:
    run = await running(database)
    first, second = paused(60), paused(90, key="2")
    await pause(database, run, first)
    await database.writer.resume_run(run.id, new_id())
    await pause(database, run, second)
    clock.advance(60)
    assert not await database.writer.expire_pause(run.id, first.id)
    assert (await database.reader.get_run(run.id)).state.name == "Paused"


async def test_resuming_after_the_time_fails_the_run(database: Database, clock: ManualClock) -> None:
    run = await running(database)
    await pause(database, run, paused(60))
    clock.advance(60)
    verdict = await database.writer.resume_run(run.id, new_id())
    assert verdict.rejected.state.name == "Failed"
    assert await names(database, run) == ["Scheduled", "Running", "Paused", "Failed"]


async def test_the_time_of_a_pause_begins_when_the_server_hears_of_it(
    database: Database, clock: ManualClock
) -> None:
    run = await running(database)
    clock.advance(3600)  # the proposer's clock is an hour behind
    await pause(database, run, paused(60))
    timers = await database.reader.due_timers(TimerKind.PAUSE, START + 9999 * SECOND)
    assert [due for *_, due in timers] == [START + 3660 * SECOND]


async def test_expiring_and_resuming_on_two_replicas_one_wins(
    replicas: list[Database], clock: ManualClock
) -> None:
    run = await running(replicas[0])
    asked = paused(60)
    await pause(replicas[0], run, asked)
    clock.advance(60)
    ended = await asyncio.gather(*(replica.writer.expire_pause(run.id, asked.id) for replica in replicas))
    assert sorted(ended) == [False, True]
    assert (await names(replicas[0], run)).count("Failed") == 1


@pytest.mark.parametrize("is_delayed", [True, False])
async def test_a_retry_in_the_process_lets_keys_fire_again(
    recording: Recording, database: Database, is_delayed: bool
) -> None:
    run = flow_run()
    await recording.run_through(run, ["PENDING", "RUNNING"])
    outcome = await recording.post(record(run, paused(asks=SCHEMA), want_verdict=True))
    assert outcome.results[0][1].HasField("accepted")
    await database.writer.resume_run(run.id, new_id(), '{"age": 3}')
    passed_by = await recording.post(record(run, paused(), want_verdict=True))
    assert passed_by.results[0][1].rejected.state.name == "Running"
    if is_delayed:
        retry = state("SCHEDULED", START, name="AwaitingRetry")
        retry.scheduled.cause = ScheduledDetails.CAUSE_RETRY
        await recording.post(record(run, retry))
    await recording.post(record(run, state("RUNNING", START, name="Retrying"), want_verdict=True))
    again = await recording.post(record(run, paused(asks=SCHEMA), want_verdict=True))
    assert again.results[0][1].HasField("accepted")
    assert "paused-1-response" not in await inputs(database, run)


async def test_a_pause_recorded_without_a_server_is_kept_like_another(
    recording: Recording, database: Database
) -> None:
    run = flow_run()
    await recording.post(run_of(run), record(run, state("RUNNING")), record(run, paused(asks=SCHEMA)))
    assert "paused-1-schema" in await inputs(database, run)
    await database.writer.resume_run(run.id, new_id(), '{"age": 3}')
    again = await recording.post(record(run, paused(), want_verdict=True))
    assert again.results[0][1].rejected.state.name == "Running"


async def test_whoever_executes_a_suspended_run_is_told(recording: Recording, database: Database) -> None:
    run = flow_run(deployment_id=new_id())
    await recording.run_through(run, ["PENDING", "RUNNING"])
    attempt = AttemptRef(run_id=run.id, attempt=1, fence=1)
    renewals = {recording.id: START + 60 * SECOND}
    assert await database.writer.renew_recorders(renewals, [attempt]) == []
    await pause(database, run, paused(None, reschedule=True, name="Suspended"))
    for _ in range(2):  # at every renewal
        (verdict,) = await database.writer.renew_recorders(renewals, [attempt])
        assert (verdict.suspended, verdict.lost, verdict.reason) == (True, False, "The run is Suspended.")


async def test_inputs_are_told_once_per_key_and_in_order(database: Database) -> None:
    run = await running(database)
    for number in range(5):
        said = RunInput(run_id=run.id, key=f"int-{number}", value=str(number), sender="me")
        assert (await database.writer.send_input(said)).key == said.key
        await database.writer.send_input(said)
    with pytest.raises(ObjectAlreadyExists):
        await database.writer.send_input(RunInput(run_id=run.id, key="int-0", value="7"))
    await database.writer.send_input(RunInput(run_id=run.id, key="other", value="null"))
    found, token = await database.reader.inputs_since(run.id, "int-", "", 3)
    assert [said.value for said in found] == ["0", "1", "2"]
    rest, end = await database.reader.inputs_since(run.id, "int-", token)
    assert [(said.value, said.sender) for said in rest] == [("3", "me"), ("4", "me")]
    assert await database.reader.inputs_since(run.id, "int-", end) == ([], end)


async def test_pages_of_inputs(database: Database) -> None:
    run = await running(database)
    for number in range(5):
        await database.writer.send_input(RunInput(run_id=run.id, key=f"k{number}", value="1"))
    keys: list[str] = []
    token = ""
    while True:
        page, token = await database.reader.list_inputs(run.id, page_size=2, page_token=token)
        keys += [said.key for said in page]
        if not token:
            break
    assert keys == [f"k{number}" for number in range(5)]
    only, _ = await database.reader.list_inputs(run.id, keys=["k1", "k3", "k9"])
    assert [said.key for said in only] == ["k1", "k3"]


async def test_inputs_go_one_by_one_and_with_their_run(database: Database) -> None:
    run = await running(database)
    for key in ("a", "b"):
        await database.writer.send_input(RunInput(run_id=run.id, key=key, value="1"))
    await database.writer.delete_input(run.id, "a")
    await database.writer.delete_input(run.id, "a")
    assert list(await inputs(database, run)) == ["b"]
    await pause(database, run, paused(60))
    await database.writer.delete_run(run.id, force=True)
    assert await database.reader.due_timers(TimerKind.PAUSE, START + 99 * SECOND) == []
    with pytest.raises(ObjectNotFound):
        await database.reader.list_inputs(run.id)


async def test_inputs_that_cannot_be(database: Database) -> None:
    run = await running(database)
    with pytest.raises(FieldsInvalid):
        await database.writer.send_input(RunInput(run_id=run.id, key="k", value="{"))
    for attempt in (
        database.writer.send_input(RunInput(run_id=new_id(), key="k", value="1")),
        database.writer.delete_input(new_id(), "k"),
        database.writer.resume_run(new_id(), new_id()),
        database.reader.inputs_since(new_id(), "", ""),
    ):
        with pytest.raises(ObjectNotFound):
            await attempt
    with pytest.raises(ResumeTokenInvalid):
        await database.reader.inputs_since(run.id, "", "runs.0-1")
