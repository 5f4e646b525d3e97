"""Events: stored once, found by what they are about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.core.errors import PageTokenInvalid
from headrace.core.ids import new_id
from headrace.v1.event_pb2 import Event, EventFilter, EventResource
from headrace.v1.event_service_pb2 import EVENT_ORDER_OLDEST_FIRST
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import TimeRange
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, ManualClock, Recording


def event(name: str = "order.shipped", resource: str = "order.1", *, at: int = START, **fields: Any) -> Event:
    made = Event(id=new_id(), event=name, **fields)
    made.occurred.FromMicroseconds(at)
    made.resource.labels["headrace.resource.id"] = resource
    return made


async def post(recording: Recording, *events: Event) -> Any:
    return await recording.post(*(RecordEntry(event=one) for one in events))


async def found(database: Database, order: Any = EVENT_ORDER_OLDEST_FIRST, **filter: Any) -> list[str]:
    events, _ = await database.reader.list_events(EventFilter(**filter), order)
    return [f"{one.event} {one.resource.labels['headrace.resource.id']}" for one in events]


async def test_an_event_comes_back_as_it_was_told(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    told = event(payload=json.dumps({"parcels": 2**60, "to": "Ulm\u0000"}), follows=new_id(), run_id=new_id())
    told.related.append(
        EventResource(labels={"headrace.resource.id": "ship.7", "headrace.resource.role": "carrier"})
    )
    assert not (await post(recording, told)).results
    ((kept,), token) = await database.reader.list_events(EventFilter())
    assert (token, kept.received.ToMicroseconds()) == ("", clock.now())
    kept.ClearField("received")
    assert kept == told


async def test_entries_sent_again_are_one_event(database: Database, recording: Recording) -> None:
    entries = [RecordEntry(event=event()), RecordEntry(event=event("order.paid"))]
    await recording.post(*entries)
    await database.writer.record(recording.id, 1, entries)
    assert await found(database) == ["order.shipped order.1", "order.paid order.1"]


async def test_filters(database: Database, recording: Recording) -> None:
    run_id = new_id()
    told = [
        event("order.paid", "order.1", at=START),
        event("order.shipped", "order.1", at=START + SECOND, run_id=run_id),
        event("order.shipped", "order.20", at=START + 2 * SECOND),
        event("invoice_sent", "invoice.1", at=START + 3 * SECOND),
    ]
    await post(recording, *told)
    names = [
        "order.paid order.1",
        "order.shipped order.1",
        "order.shipped order.20",
        "invoice_sent invoice.1",
    ]
    assert await found(database) == names
    assert await found(database, 0) == names[::-1]
    assert await found(database, events=["order.shipped"]) == names[1:3]
    assert await found(database, events=["order.*"]) == names[:3]
    assert await found(database, events=["order.p*", "invoice_sent"]) == [names[0], names[3]]
    assert await found(database, events=["order%*"]) == []
    assert await found(database, resource_ids=["order.1"]) == names[:2]
    assert await found(database, resource_ids=["order.*"], events=["order.shipped"]) == names[1:3]
    assert await found(database, run_ids=[run_id]) == [names[1]]
    assert await found(database, ids=[told[3].id, told[0].id.upper()]) == [names[0], names[3]]
    between = TimeRange()
    getattr(between, "from").FromMicroseconds(START + SECOND)
    between.until.FromMicroseconds(START + 3 * SECOND)
    assert await found(database, occurred=between) == names[1:3]


@pytest.mark.parametrize("order", [0, EVENT_ORDER_OLDEST_FIRST])
async def test_pages(database: Database, recording: Recording, order: Any) -> None:
    await post(recording, *(event(f"e{i}", at=START + i // 2) for i in range(7)))
    seen: list[str] = []
    token = ""
    while True:
        events, token = await database.reader.list_events(EventFilter(), order, 3, token)
        seen += [one.event for one in events]
        if not token:
            break
    expected = [f"e{i}" for i in range(7)]
    assert seen == (expected if order else expected[::-1])
    _, token = await database.reader.list_events(EventFilter(), order, 3)
    with pytest.raises(PageTokenInvalid):
        await database.reader.list_events(EventFilter(events=["e1"]), order, 3, token)


async def test_what_is_no_event_is_refused_and_the_rest_taken(
    database: Database, recording: Recording
) -> None:
    nameless, roleless = event(), event()
    nameless.resource.labels.clear()
    roleless.related.append(EventResource(labels={"headrace.resource.id": "x"}))
    bad = [nameless, roleless, event(payload="[1]"), event(payload="{")]
    outcome = await post(recording, *bad, event("good"))
    messages = [refused.message for _, refused in outcome.results]
    assert [message.split(":")[0] for message in messages] == [
        "event.resource.labels",
        "event.related[0].labels",
        "event.payload",
        "event.payload",
    ]
    assert await found(database) == ["good order.1"]
