"""The table of legal transitions once more, through the database: what is stored decides the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.duration_pb2 import Duration

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import RetryPolicy, Run
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import State
from headrace_services.domain.states import StateValue
from headrace_services.storage.database import Database
from headrace_services.storage.state_codec import encode_state
from tests.storage.build import ManualClock, Recording, flow_run, record, run_of
from tests.unit.domain.cases import NOW, SECOND, value
from tests.unit.domain.test_flow_transitions import IN, TYPES, VERDICTS


def message(state: StateValue) -> State:
    """The state under an id of its own, as a client sends it."""
    if state.data is not None:
        sent = encode_state(replace(state, id=new_id(), data=None), run_count=0, record_time=0)
        sent.data.encoding, sent.data.inline = "json", b"1"
    else:
        sent = encode_state(replace(state, id=new_id()), run_count=0, record_time=0)
    sent.ClearField("record_time")
    return sent


def letters(verdict: ProposeStateResponse, before: State | None) -> str:
    """The verdict in the letters of the table."""
    kind = str(verdict.WhichOneof("verdict"))
    if kind != "rejected":
        return {"accepted": "A", "wait": "W", "abort": "X"}[kind]
    kept = before is not None and verdict.rejected.state.id == before.id
    return "R" if kept else f"R>{verdict.rejected.state.name}"


async def put_in(database: Database, recording: Recording, row: str) -> tuple[Run, State | None]:
    """A stored run that is in the row's state, with the row's facts."""
    current, given = IN[row]
    run = flow_run(deployment_id=new_id() if given.get("has_deployment") else "")
    if "max_retries" in given:
        run.retry_policy.CopyFrom(RetryPolicy(max_retries=given["max_retries"], delays=[Duration(seconds=1)]))
    if current is not None and not given.get("is_held", True):
        is_paused = current.type.value == "PAUSED"
        first = value("RUNNING", timestamp=NOW - 90 * SECOND) if is_paused else current
        created, _ = await database.writer.create_run(Run(**_fields(run), state=message(first)))
        if is_paused:  # nothing begins with a pause
            await database.writer.propose_state(run.id, None, message(current))
        return created, (await database.reader.get_run(run.id)).state
    states = [] if current is None else [message(current)]
    if current is not None and current.type.value not in ("SCHEDULED", "PENDING", "RUNNING"):
        states.insert(0, message(value("RUNNING", timestamp=NOW - 90 * SECOND)))
    outcome = await recording.post(run_of(run), *(record(run, sent) for sent in states))
    assert not outcome.results
    return run, states[-1] if states else None


def _fields(run: Run) -> dict[str, Any]:
    return {field.name: found for field, found in run.ListFields()}


async def test_what_is_stored_decides_as_the_rules_say(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    clock.time = NOW
    found: dict[str, list[str]] = {}
    for row in IN:
        found[row] = []
        for type in TYPES:
            run, before = await put_in(database, recording, row)
            verdict = await database.writer.propose_state(run.id, None, message(value(type, timestamp=NOW)))
            found[row].append(letters(verdict, before))
    assert found == VERDICTS
