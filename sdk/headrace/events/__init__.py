"""What happens in a program, told to the server.

    from headrace.events import emit_event

    emit_event("order.shipped", {"headrace.resource.id": "order.4711"}, payload={"parcels": 3})

Events are recorded as runs are: through the spool, so that none is lost in an outage and each is stored
once.
"""

from __future__ import annotations

from headrace.events.emitting import emit_event
from headrace.events.schemas import Event, ReceivedEvent, RelatedResource, Resource

__all__ = ["Event", "ReceivedEvent", "RelatedResource", "Resource", "emit_event"]
