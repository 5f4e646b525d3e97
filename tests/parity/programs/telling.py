"""Events from code: what is given back, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from plain import outcome

from headrace import flow
from headrace.events import Event, RelatedResource, Resource, emit_event
from headrace.serializers import CompressedJSONSerializer, CompressedPickleSerializer
from headrace.types import SecretDict

THING = {"headrace.resource.id": "order.1", "headrace.resource.name": "the order", "colour": "red"}
SHIP = {"headrace.resource.id": "ship.1", "headrace.resource.role": "carrier", "size": "3"}


def _told(event: Event | None) -> Any:
    if event is None:
        return None
    return {
        "event": event.event,
        "resource": [event.resource.id, event.resource.name, event.resource["colour"]],
        "related": [[one.id, one.role] for one in event.related],
        "payload": event.payload,
        "follows": event.follows is not None,
        "zone": str(event.occurred.utcoffset()),
    }


def program_events() -> dict[str, Any]:
    now = datetime.now(UTC)
    first = emit_event("order.paid", THING, occurred=now)

    def after(minutes: float) -> Any:
        later = emit_event("x", THING, occurred=now + timedelta(minutes=minutes), follows=first)
        return later is not None and later.follows == (first and first.id)

    @flow
    def tells() -> bool:
        return emit_event("in.a.flow", THING) is not None

    return {
        "outside of runs": _told(first),
        "with everything": _told(emit_event("x", THING, related=[SHIP], payload={"n": [1, {"a": None}]})),
        "in a flow": outcome(tells),
        "follows": {str(minutes): after(minutes) for minutes in (0, 4.9, -4.9, 5.1, -5.1)},
        "no labels": outcome(lambda: emit_event("x", {})),
        "an empty id": outcome(lambda: emit_event("x", {"headrace.resource.id": ""})),
        "no role": outcome(lambda: emit_event("x", THING, related=[THING])),
        "too many related": outcome(lambda: emit_event("x", THING, related=[SHIP] * 101)),
        "too large": outcome(lambda: emit_event("x", THING, payload={"text": "x" * 2_000_000})),
    }


def program_event_values() -> dict[str, Any]:
    related = [RelatedResource({**SHIP, "headrace.resource.id": f"ship.{n}", "n": str(n)}) for n in (1, 2)]
    event = Event(event="x", resource=Resource(THING), related=related)
    return {
        "involved": [one.id for one in event.involved_resources],
        "in a role": [event.resource_in_role["carrier"].id, list(event.resource_in_role)],
        "all in a role": [one.id for one in event.resources_in_role["carrier"]],
        "labels": [
            event.find_resource_label(label)
            for label in ("colour", "nothing", "related:carrier:n", "related:nobody:n")
        ],
        "get": [event.resource.get("colour"), event.resource.get("nothing"), event.resource.get("x", "d")],
        "contains": ["colour" in event.resource, "nothing" in event.resource],
        "keys": len(list(event.resource.keys())),
        "no id": outcome(lambda: Resource({"a": "b"})),
        "no role": outcome(lambda: RelatedResource(THING)),
    }


def program_further_names() -> dict[str, Any]:
    secret = SecretDict({"password": "swordfish"})

    @flow
    def opens(options: SecretDict) -> str:
        return str(options.get_secret_value()["password"])

    return {
        "secret dict": [str(secret), secret.get_secret_value()["password"], outcome(lambda: opens(secret))],
        "secret dict from a dict": outcome(lambda: opens({"password": "x"})),  # type: ignore[arg-type]
        "compressed": [
            serializer.loads(serializer.dumps({"a": [1, None]}))
            for serializer in (CompressedJSONSerializer(), CompressedPickleSerializer())
        ],
        "types": [CompressedJSONSerializer().type, CompressedPickleSerializer().type],
    }
