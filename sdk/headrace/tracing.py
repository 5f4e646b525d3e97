"""OpenTelemetry spans for runs, and the trace context that travels with them.

`HEADRACE_TRACES_EXPORTER` says where they go; with `none`, nothing of OpenTelemetry is imported and asking
for a span costs one comparison. With `server` a trace has the id of its root run, and a run's span the last
16 digits of the run's id, so that either can be found from the other.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from headrace.core.errors import MissingExtraError
from headrace.settings import Settings, get_current_settings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.trace.span import SpanContext

__all__ = [
    "RUN_ID",
    "RunSpan",
    "TracedRun",
    "attached",
    "current_traceparent",
    "extract",
    "inject",
    "start_run_span",
]

RUN_ID = "headrace.run.id"
ROOT_RUN_ID = "headrace.root_run.id"
_OTLP_PACKAGE = "headrace[otlp]"
_OTLP_MODULE = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


class TracedRun(Protocol):
    """What a span says of a run; both kinds of run have it."""

    @property
    def id(self) -> str:
        """UUID."""
        ...

    @property
    def root_run_id(self) -> str:
        """The run at the top of the tree."""
        ...

    @property
    def name(self) -> str:
        """What people see."""
        ...

    @property
    def traceparent(self) -> str:
        """Trace context that the run was given from outside; empty for none."""
        ...


class RunSpan:
    """The span of one run. Within `with`, it is the current one: spans made there are its children."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Any = None

    @property
    def traceparent(self) -> str:
        """The W3C trace context to record with the run and to hand on."""
        return _traceparent(self._span.get_span_context())

    def __enter__(self) -> RunSpan:
        from opentelemetry import context, trace

        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *_: object) -> None:
        from opentelemetry import context

        context.detach(self._token)

    def finish(self, state_name: str, *, is_failed: bool, message: str = "", run_count: int = 1) -> None:
        """The run has ended; what is recorded is the span as it is now.

        Args:
            state_name: of the final state.
            is_failed: whether the span's status is an error.
            message: why, in one sentence.
            run_count: how often the body was tried.
        """
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("headrace.run.state", state_name)
        self._span.set_attribute("headrace.run.count", run_count)
        self._span.set_status(
            Status(StatusCode.ERROR, message[:2000]) if is_failed else Status(StatusCode.OK)
        )
        self._span.end()


_latest: tuple[Settings, Tracer | None] | None = None


def start_run_span(run: TracedRun, kind: str, definition: str) -> RunSpan | None:
    """A started span for `run`; None when nothing is traced.

    Args:
        run: what is about to be executed.
        kind: "flow" or "task".
        definition: name of the flow or task.

    Raises:
        MissingExtraError: the exporter that the settings name is not installed.
    """
    settings = get_current_settings()
    tracer = _latest[1] if _latest is not None and _latest[0] is settings else _find_tracer(settings)
    return None if tracer is None else _start(tracer, run, kind, definition)


def _start(tracer: Tracer, run: TracedRun, kind: str, definition: str) -> RunSpan:
    parent: Any = None
    if not _current_context_is_valid() and run.traceparent:
        parent = extract({"traceparent": run.traceparent})
    attributes = {
        RUN_ID: run.id,
        ROOT_RUN_ID: run.root_run_id,
        "headrace.run.name": run.name,
        "headrace.run.kind": kind,
        f"headrace.{kind}.name": definition,
    }
    token = _wanted.set((run.root_run_id, run.id))
    try:
        return RunSpan(tracer.start_span(definition, context=parent, attributes=attributes))
    finally:
        _wanted.reset(token)


def _find_tracer(settings: Settings) -> Tracer | None:
    global _latest
    exporter = settings.traces_exporter
    tracer = None if exporter == "none" else _tracer(exporter)
    _latest = (settings, tracer)
    return tracer


_providers: dict[str, Any] = {}


def _tracer(exporter: str) -> Tracer:
    from opentelemetry import trace

    if exporter == "global":
        return trace.get_tracer("headrace", version("headrace"))
    if exporter not in _providers:
        provider = _providers[exporter] = _server_provider() if exporter == "server" else _otlp_provider()
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            # The author's own spans in runs go the same way, unless the program has said where.
            trace.set_tracer_provider(provider)
    tracer: Tracer = _providers[exporter].get_tracer("headrace", version("headrace"))
    return tracer


def _server_provider() -> Any:
    from headrace.tracing_export import server_provider

    return server_provider(lambda: _wanted.get())


def _otlp_provider() -> Any:
    try:
        module: Any = importlib.import_module(_OTLP_MODULE)
    except ImportError:
        raise MissingExtraError("HEADRACE_TRACES_EXPORTER=otlp", _OTLP_PACKAGE) from None
    from headrace.tracing_export import otlp_provider

    return otlp_provider(module.OTLPSpanExporter(), lambda: _wanted.get())


# Root run and run that the next span is for, while it is made.
_wanted: ContextVar[tuple[str, str] | None] = ContextVar("headrace_span_ids", default=None)


def _current_context() -> SpanContext | None:
    # Where nobody has imported the API there is no span, and importing it would cost every script 20 ms.
    tracing: Any = sys.modules.get("opentelemetry.trace")
    return tracing.get_current_span().get_span_context() if tracing is not None else None


def _current_context_is_valid() -> bool:
    context = _current_context()
    return context is not None and context.is_valid


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_traceparent() -> str:
    """The W3C trace context of the current span; empty when there is none."""
    context = _current_context()
    return _traceparent(context) if context is not None and context.is_valid else ""


@contextmanager
def attached(traceparent: str) -> Generator[None]:
    """Spans made inside are children of the span that `traceparent` names; none is named by ''."""
    if not traceparent:
        yield
        return
    from opentelemetry import context

    token = context.attach(extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the current trace context into `carrier` (headers, metadata, environment of a child)."""
    traceparent = current_traceparent()
    if traceparent:
        carrier["traceparent"] = traceparent


def extract(carrier: MutableMapping[str, str]) -> Any:
    """The OpenTelemetry context that `carrier` holds; an empty one if what it holds is not valid."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier, context=Context())
