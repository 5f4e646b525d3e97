"""Tracer providers of our own. Imported when the settings ask for one: the OpenTelemetry SDK is not small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from headrace.recorder import get_recorder
from headrace.tracing import ROOT_RUN_ID, RUN_ID
from headrace.v1 import span_pb2 as pb
from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["RecorderProcessor", "RunIds", "otlp_provider", "server_provider", "span_message"]

MAX_EVENTS = 128
MAX_NAME_CHARACTERS = 400
MAX_STATUS_BYTES = 8192
MAX_TEXT_CHARACTERS = 4000

WantedIds = Callable[[], tuple[str, str] | None]


class RunIds(IdGenerator):
    """Gives the span of a run the ids that follow from the run's; every other span random ones.

    Args:
        wanted: root run and run that the next span is for; None: for no run.
    """

    def __init__(self, wanted: WantedIds) -> None:
        self._wanted = wanted
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        wanted = self._wanted()
        return int(wanted[0].replace("-", ""), 16) if wanted else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        wanted = self._wanted()
        return int(wanted[1].replace("-", "")[-16:], 16) if wanted else self._random.generate_span_id()


class RecorderProcessor(SpanProcessor):
    """Posts each span that belongs to a run to the recorder, as it ends."""

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """The author's own spans belong to the run in whose body they are made."""
        attributes: Mapping[str, Any] = span.attributes or {}
        if RUN_ID in attributes:
            return
        parent: Any = get_current_span(parent_context)
        inherited: Mapping[str, Any] = getattr(parent, "attributes", None) or {}
        for key in (RUN_ID, ROOT_RUN_ID):
            if key in inherited:
                span.set_attribute(key, inherited[key])

    def on_end(self, span: ReadableSpan) -> None:
        if RUN_ID in (span.attributes or {}):
            get_recorder().post(RecordEntry(span=span_message(span)))

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return get_recorder().flush(timeout_millis / 1000)


def server_provider(wanted: WantedIds) -> TracerProvider:
    """Records spans with their runs."""
    provider = TracerProvider(id_generator=RunIds(wanted), resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(RecorderProcessor())
    return provider


def otlp_provider(exporter: SpanExporter, wanted: WantedIds) -> TracerProvider:
    """Sends spans where the OTEL_EXPORTER_OTLP_* variables say."""
    provider = TracerProvider(id_generator=RunIds(wanted), resource=_resource())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _resource() -> Resource:
    # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first.
    return Resource({"service.name": "headrace"}).merge(Resource.create())


def span_message(span: ReadableSpan) -> pb.Span:
    """The wire's form of an ended span; what is over a limit is cut."""
    context: Any = span.get_span_context()
    attributes: Mapping[str, Any] = span.attributes or {}
    message = pb.Span(
        run_id=str(attributes.get(RUN_ID, "")),
        root_run_id=str(attributes.get(ROOT_RUN_ID, "")),
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_span_id=f"{span.parent.span_id:016x}" if span.parent else "",
        name=span.name[:MAX_NAME_CHARACTERS],
        kind=_KINDS[span.kind],
        status=_STATUSES[span.status.status_code],
        status_message=_cut(span.status.description or ""),
        attributes=_struct({k: v for k, v in attributes.items() if k not in (RUN_ID, ROOT_RUN_ID)}),
    )
    message.start_time.FromNanoseconds(span.start_time or 0)
    message.end_time.FromNanoseconds(span.end_time or 0)
    for event in list(span.events)[:MAX_EVENTS]:
        noted = pb.SpanEvent(
            name=event.name[:MAX_NAME_CHARACTERS], attributes=_struct(event.attributes or {})
        )
        noted.time.FromNanoseconds(event.timestamp)
        message.events.append(noted)
    return message


_KINDS = {
    SpanKind.INTERNAL: pb.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: pb.SPAN_KIND_SERVER,
    SpanKind.CLIENT: pb.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: pb.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: pb.SPAN_KIND_CONSUMER,
}
_STATUSES = {
    StatusCode.UNSET: pb.SPAN_STATUS_UNSPECIFIED,
    StatusCode.OK: pb.SPAN_STATUS_OK,
    StatusCode.ERROR: pb.SPAN_STATUS_ERROR,
}


def _cut(text: str) -> str:
    return text.encode()[:MAX_STATUS_BYTES].decode(errors="ignore")


def _struct(attributes: Mapping[str, Any]) -> Struct:
    struct = Struct()
    for key, value in attributes.items():
        struct.fields[key].CopyFrom(_value(value))
    return struct


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value)
    if isinstance(value, str):
        return Value(string_value=value[:MAX_TEXT_CHARACTERS])
    if isinstance(value, Sequence):
        listed = Value(list_value=ListValue())
        for item in cast("Sequence[Any]", value):
            listed.list_value.values.append(_value(item))
        return listed
    return Value(string_value=str(value)[:MAX_TEXT_CHARACTERS])
