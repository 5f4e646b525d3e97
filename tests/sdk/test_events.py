"""Events from code: what they say by themselves, what is refused, and that they arrive."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from headrace import flow, get_client, tags, task
from headrace.core.ids import flow_id_of
from headrace.events import Event, ReceivedEvent, RelatedResource, Resource, emit_event
from headrace.exceptions import EventTooLarge
from headrace.recorder import get_recorder
from headrace.settings import temporary_settings
from headrace.testing import headrace_test_harness
from headrace.v1.event_pb2 import Event as Recorded
from headrace.v1.event_pb2 import EventFilter
from tests.support.recorders import MemoryRecorder

THING = {"headrace.resource.id": "order.1", "headrace.resource.name": "the order"}


def recorded(recorder: MemoryRecorder) -> list[Recorded]:
    return [entry.event for entry in recorder.entries if entry.HasField("event")]


def test_outside_of_runs(recorder: MemoryRecorder) -> None:
    made = emit_event(
        "order.shipped", THING, payload={"parcels": 3, "when": datetime(2026, 1, 2, tzinfo=UTC)}
    )
    assert made is not None
    assert (made.event, made.resource.id, made.resource.name) == ("order.shipped", "order.1", "the order")
    assert abs(made.occurred - datetime.now(UTC)) < timedelta(minutes=1)
    (told,) = recorded(recorder)
    assert (told.id, told.event, dict(told.resource.labels)) == (str(made.id), "order.shipped", THING)
    assert json.loads(told.payload) == {"parcels": 3, "when": "2026-01-02T00:00:00Z"}
    assert (list(told.related), told.run_id, told.follows) == ([], "", "")


def test_what_runs_is_related_by_itself(recorder: MemoryRecorder) -> None:
    @task(tags=["heavy"])
    def step() -> None:
        emit_event(
            "order.packed", THING, related=[{"headrace.resource.id": "x", "headrace.resource.role": "by"}]
        )

    @flow(name="ships")
    def ships() -> None:
        emit_event("order.begun", THING)
        step()

    with tags("eu", "heavy"):
        ships()
    flow_run, task_run = recorder.the("ships").run, recorder.the("step").run
    begun, packed = recorded(recorder)
    assert (begun.run_id, packed.run_id) == (flow_run.id, task_run.id)

    def related(event: Recorded) -> list[tuple[str, str, str]]:
        return [
            tuple(one.labels.get(f"headrace.resource.{part}", "") for part in ("role", "id", "name"))  # type: ignore[misc]
            for one in event.related
        ]

    of_the_flow = [
        ("flow-run", f"headrace.flow-run.{flow_run.id}", flow_run.name),
        ("flow", f"headrace.flow.{flow_id_of('ships')}", "ships"),
        ("tag", "headrace.tag.eu", ""),
        ("tag", "headrace.tag.heavy", ""),
    ]
    assert related(begun) == of_the_flow
    of_the_task = ("task-run", f"headrace.task-run.{task_run.id}", task_run.name)
    assert related(packed) == [("by", "x", ""), of_the_flow[0], of_the_task, *of_the_flow[1:]]


def test_the_resource_is_not_related_to_itself(recorder: MemoryRecorder) -> None:
    @flow
    def tells() -> str:
        from headrace.runtime import flow_run

        emit_event("seen", {"headrace.resource.id": f"headrace.flow-run.{flow_run.id}"})
        return ""

    tells()
    assert [one.labels["headrace.resource.role"] for one in recorded(recorder)[0].related] == ["flow"]


@pytest.mark.parametrize(("minutes", "is_set"), [(0, True), (4, True), (-4, True), (6, False), (-6, False)])
def test_follows_only_when_they_are_close(minutes: int, is_set: bool, recorder: MemoryRecorder) -> None:
    first = emit_event("first", THING)
    assert first is not None
    later = emit_event("second", THING, occurred=first.occurred + timedelta(minutes=minutes), follows=first)
    assert later is not None
    assert later.follows == (first.id if is_set else None)
    assert recorded(recorder)[1].follows == (str(first.id) if is_set else "")


def test_ids_and_times_can_be_given(recorder: MemoryRecorder) -> None:
    id = uuid.uuid4()
    emit_event("x", THING, id=id, occurred=datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))))
    emit_event("x", THING, occurred=datetime(2026, 5, 1, 12))
    told = recorded(recorder)
    assert told[0].id == str(id)
    assert [one.occurred.ToDatetime() for one in told] == [datetime(2026, 5, 1, 12)] * 2


def test_labels_of_prefect_are_taken_for_ours(recorder: MemoryRecorder) -> None:
    made = emit_event(
        "x",
        {"prefect.resource.id": "order.1", "colour": "red"},
        related=[{"prefect.resource.id": "ship.1", "prefect.resource.role": "carrier"}],
    )
    assert made is not None
    assert (made.resource.id, made.resource["prefect.resource.id"]) == ("order.1", "order.1")
    assert dict(recorded(recorder)[0].resource.labels) == {"headrace.resource.id": "order.1", "colour": "red"}
    assert made.resource_in_role["carrier"].id == "ship.1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": {}},
        {"resource": {"headrace.resource.id": ""}},
        {"resource": THING, "related": [{"headrace.resource.id": "x"}]},
        {"resource": THING, "payload": {"it": object()}},
        {"resource": THING, "related": [{**THING, "headrace.resource.role": f"r{i}"} for i in range(101)]},
    ],
)
def test_a_mistake_never_ends_what_happens(
    wrong: dict[str, Any], recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    assert emit_event("x", **wrong) is None
    assert recorded(recorder) == []
    assert "The event 'x' could not be emitted" in caplog.text


def test_but_one_that_is_too_large_does(recorder: MemoryRecorder) -> None:
    with pytest.raises(EventTooLarge, match="bytes"):
        emit_event("x", THING, payload={"text": "x" * 1_000_001})
    assert recorded(recorder) == []


def test_nothing_is_told_where_there_is_no_server(recorder: MemoryRecorder) -> None:
    with temporary_settings({"api_url": "off"}):
        assert emit_event("x", THING) is None
    assert recorded(recorder) == []


def test_events_as_values() -> None:
    made = Event(
        event="x",
        resource=Resource(THING),
        related=[
            RelatedResource({"headrace.resource.id": f"s.{i}", "headrace.resource.role": "ship", "n": str(i)})
            for i in range(2)
        ],
    )
    assert [one.id for one in made.involved_resources] == ["order.1", "s.0", "s.1"]
    assert [one.id for one in made.resources_in_role["ship"]] == ["s.0", "s.1"]
    assert made.resource_in_role["ship"].id == "s.0"
    assert made.find_resource_label("headrace.resource.name") == "the order"
    assert made.find_resource_label("related:ship:n") == "0"
    assert made.find_resource_label("related:nobody:n") is None
    assert made.size_bytes == len(made.model_dump_json())
    assert dict(made.resource.items()) == THING and list(made.resource.keys()) == list(THING)
    with pytest.raises(ValidationError, match=r"headrace\.resource\.id"):
        Resource({"a": "b"})
    received = ReceivedEvent(**made.model_dump(), received=datetime.now(UTC))
    assert received.id == made.id


def test_they_arrive_once_in_order() -> None:
    @task
    def counts(number: int) -> None:
        emit_event(f"counted.{number}", {"headrace.resource.id": f"number.{number}"}, payload={"n": number})

    @flow(name="counting")
    def counting() -> None:
        for number in range(50):
            counts(number)

    with headrace_test_harness():
        counting()
        emit_event("counted.last", {"headrace.resource.id": "number.50"})
        assert get_recorder().flush(20)
        with get_client(sync_client=True) as client:
            events = list(client.iter_events(EventFilter(events=["counted.*"]), oldest_first=True))
            assert [one.event for one in events] == [*(f"counted.{n}" for n in range(50)), "counted.last"]
            (third,) = client.iter_events(EventFilter(resource_ids=["number.3"]))
            assert client.get_run(third.run_id).task_name == "counts"
            assert json.loads(third.payload) == {"n": 3}


def test_a_tight_loop_needs_no_more_memory_than_a_short_one(recorder: MemoryRecorder) -> None:
    """Nothing is kept of an event that was told, but what the recorder keeps."""
    import gc
    import tracemalloc

    posted = 0

    def post(*entries: object) -> int:
        nonlocal posted
        posted += len(entries)
        return posted

    recorder.post = post  # type: ignore[method-assign]
    for _ in range(100):
        emit_event("x", THING)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3000):
            emit_event("x", THING)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert posted == 3100
    assert grown < 200_000
