"""Spans of runs, and the ids and contexts that go with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace import tracing
from headrace.core.errors import MissingExtraError
from headrace.core.ids import new_id
from headrace.recorder.process import close_recorders
from headrace.settings import temporary_settings
from headrace.tracing import current_traceparent, extract, inject, start_run_span
from headrace.v1.span_pb2 import SPAN_STATUS_ERROR, SPAN_STATUS_OK, Span
from tests.support.record_server import RecordServer


@dataclass
class Run:
    id: str
    root_run_id: str
    name: str = "a run"
    traceparent: str = ""


def new_run(parent: Run | None = None) -> Run:
    run_id = new_id()
    return Run(run_id, parent.root_run_id if parent else run_id)


@pytest.fixture
def server() -> Iterator[RecordServer]:
    with RecordServer() as server:
        yield server
        close_recorders(5.0)


def spans_of(server: RecordServer) -> dict[str, Span]:
    close_recorders(5.0)
    return {e.span.name: e.span for e in server.journal.entries() if e.WhichOneof("kind") == "span"}


def test_spans_are_recorded_with_their_runs(server: RecordServer) -> None:
    flow_run = new_run()
    task_run = new_run(flow_run)
    with temporary_settings({"api_url": server.address, "traces_exporter": "server"}):
        flow_span = start_run_span(flow_run, "flow", "my flow")
        assert flow_span is not None
        with flow_span:
            task_span = start_run_span(task_run, "task", "my task")
            assert task_span is not None
            with task_span, trace.get_tracer("author").start_as_current_span("own") as own:
                own.set_attribute("rows", 3)
                own.add_event("half way", {"parts": ["a", "b"]})
            task_span.finish("Failed", is_failed=True, message="no luck", run_count=2)
        flow_span.finish("Completed", is_failed=False)
        spans = spans_of(server)
    root_hex = flow_run.id.replace("-", "")
    assert {span.trace_id for span in spans.values()} == {root_hex}
    flow, task, own_span = spans["my flow"], spans["my task"], spans["own"]
    assert (flow.run_id, flow.root_run_id, flow.parent_span_id) == (flow_run.id, flow_run.id, "")
    assert flow.span_id == root_hex[-16:]
    assert (task.run_id, task.root_run_id, task.parent_span_id) == (task_run.id, flow_run.id, flow.span_id)
    assert (own_span.run_id, own_span.parent_span_id) == (task_run.id, task.span_id)
    assert (flow.status, task.status, task.status_message) == (SPAN_STATUS_OK, SPAN_STATUS_ERROR, "no luck")
    assert task.attributes["headrace.run.count"] == 2
    assert own_span.attributes["rows"] == 3
    assert list(own_span.events[0].attributes["parts"]) == ["a", "b"]
    assert 0 < flow.start_time.ToNanoseconds() <= task.start_time.ToNanoseconds()
    assert flow.end_time.ToNanoseconds() >= task.end_time.ToNanoseconds()


def test_the_context_travels_as_w3c_traceparent(server: RecordServer) -> None:
    with temporary_settings({"api_url": server.address, "traces_exporter": "server"}):
        parent = start_run_span(new_run(), "flow", "parent")
        assert parent is not None
        carrier: dict[str, str] = {}
        with parent:
            inject(carrier)
            assert carrier == {"traceparent": parent.traceparent} == {"traceparent": current_traceparent()}
        elsewhere = new_run()
        elsewhere.traceparent = carrier["traceparent"]
        child = start_run_span(elsewhere, "flow", "child")
        assert child is not None
        child.finish("Completed", is_failed=False)
        parent.finish("Completed", is_failed=False)
        spans = spans_of(server)
    assert spans["child"].trace_id == spans["parent"].trace_id
    assert spans["child"].parent_span_id == spans["parent"].span_id


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_broken_traceparent_is_no_parent(header: str) -> None:
    context = extract({"traceparent": header})
    assert not trace.get_current_span(context).get_span_context().is_valid


def test_the_programs_own_provider_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with temporary_settings({"api_url": "off", "traces_exporter": "global"}):
        span = start_run_span(new_run(), "task", "mine")
        assert span is not None
        with span:
            pass
        span.finish("Completed", is_failed=False)
    assert [span.name for span in exporter.get_finished_spans()] == ["mine"]


def test_a_missing_exporter_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_OTLP_MODULE", "headrace.no_such_exporter")
    with (
        temporary_settings({"api_url": "off", "traces_exporter": "otlp"}),
        pytest.raises(MissingExtraError, match=r'pip install "headrace\[otlp\]"'),
    ):
        start_run_span(new_run(), "task", "x")


def test_tracing_switched_off_imports_nothing() -> None:
    program = (
        "import sys; from headrace.tracing import start_run_span, current_traceparent; "
        "assert start_run_span(None, 'flow', 'x') is None; assert current_traceparent() == ''; "
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
