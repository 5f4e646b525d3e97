"""Log lines and spans."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from headrace.core.errors import PageTokenInvalid, ResumeTokenInvalid
from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_NEWEST_FIRST, LOG_ORDER_OLDEST_FIRST
from headrace.v1.record_service_pb2 import DroppedNotice, RecordEntry
from headrace.v1.run_pb2 import Run
from headrace.v1.span_pb2 import Span
from headrace.v1.span_service_pb2 import SpanFilter
from headrace_services.storage.database import Database
from tests.storage.build import SECOND, START, Recording, flow_run, log, run_of, task_run


async def _messages(database: Database, size: int = 0, order: Any = 0, **filter: Any) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        logs, token = await database.reader.list_logs(LogFilter(**filter), order, size, token)
        found.extend(line.message for line in logs)
        if not token:
            return found


async def test_everything_about_a_line_comes_back(database: Database, recording: Recording) -> None:
    flow = flow_run()
    entry = log(flow, "hello", level=30, trace_id="a" * 32, span_id="b" * 16, attempt=2)
    entry.log.fields.update({"rows": 3, "who": ["x"]})
    bare = LogEntry(run_id=flow.id, level=20, logger="l", message="bare", time=entry.log.time)
    await recording.post(run_of(flow), entry, RecordEntry(log=bare))
    lines, _ = await database.reader.list_logs(LogFilter(run_ids=[flow.id]))
    bare.root_run_id = flow.id
    assert lines == [entry.log, bare]


async def test_lines_are_filtered_ordered_and_paged(database: Database, recording: Recording) -> None:
    flow, other = flow_run(), flow_run("other")
    task = task_run(flow)
    lines = [
        log(flow, "start", at=START),
        log(task, "50% done", at=START + 3 * SECOND, level=10),
        log(other, "elsewhere", at=START + 2 * SECOND, level=40),
        log(flow, "Half_way", at=START + SECOND, level=40),
        log(flow, "end", at=START + 4 * SECOND, level=30),
    ]
    lines[-1].log.logger = "user"
    await recording.post(run_of(flow), run_of(task), run_of(other), *lines)
    everything = ["start", "Half_way", "elsewhere", "50% done", "end"]
    assert await _messages(database) == everything
    for size in (1, 2, 5):
        assert await _messages(database, size) == everything
        newest = await _messages(database, size, LOG_ORDER_NEWEST_FIRST, root_run_ids=[flow.id])
        assert newest == ["end", "50% done", "Half_way", "start"]
    assert await _messages(database, run_ids=[flow.id]) == ["start", "Half_way", "end"]
    assert await _messages(database, run_ids=[flow.id, task.id]) == ["start", "Half_way", "50% done", "end"]
    assert await _messages(database, run_ids=[task.id], root_run_ids=[other.id]) == []
    assert await _messages(database, root_run_ids=[other.id, flow.id], min_level=40) == [
        "Half_way",
        "elsewhere",
    ]
    assert await _messages(database, message_contains="0%") == ["50% done"]
    assert await _messages(database, message_contains="half_") == ["Half_way"]
    assert await _messages(database, loggers=["user"]) == ["end"]
    lower, upper = lines[3].log.time, lines[1].log.time
    assert await _messages(database, **{"from": lower, "until": upper}) == ["Half_way", "elsewhere"]


async def test_log_tokens_belong_to_their_list(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow), log(flow, "a"), log(flow, "b"))
    _, token = await database.reader.list_logs(LogFilter(), LOG_ORDER_OLDEST_FIRST, 1)
    with pytest.raises(PageTokenInvalid):
        await database.reader.list_logs(LogFilter(min_level=10), LOG_ORDER_OLDEST_FIRST, 1, token)
    with pytest.raises(PageTokenInvalid):
        await database.reader.list_logs(LogFilter(), LOG_ORDER_NEWEST_FIRST, 1, token)


async def test_lines_are_followed_in_the_order_of_their_commits(
    database: Database, recording: Recording
) -> None:
    flow, other = flow_run(), flow_run()
    await recording.post(run_of(flow), run_of(other), log(flow, "before"))
    token = await database.reader.latest_log_token()
    filter = LogFilter(root_run_ids=[flow.id], min_level=20)
    lines, token = await database.reader.logs_since(filter, token)
    assert lines == []
    await recording.post(
        log(flow, "late", at=START + 9 * SECOND), log(flow, "debug", level=10), log(other, "x")
    )
    await recording.post(log(flow, "early", at=START))
    found: list[str] = []
    for _ in range(3):
        lines, token = await database.reader.logs_since(filter, token, limit=1)
        found.extend(line.message for line in lines)
    assert found == ["late", "early"]
    for bad in ("", "runs.0-1", "logs.x-1", "logs.1", "logs.-1-2", "logs.1-" + "9" * 30):
        with pytest.raises(ResumeTokenInvalid):
            await database.reader.logs_since(filter, bad)


async def test_what_was_dropped_is_counted(database: Database, recording: Recording) -> None:
    notice = RecordEntry(dropped=DroppedNotice(logs=3, spans=2))
    outcome = await recording.post(notice, notice)
    assert not outcome.results
    rows = await database.reader._backend.fetch("SELECT dropped_logs, dropped_spans FROM recorders")
    assert [tuple(row) for row in rows] == [(6, 4)]


def _span(run: Run, name: str, at: int, trace: str = "a") -> Span:
    span = Span(
        run_id=run.id,
        root_run_id=run.root_run_id or run.id,
        trace_id=trace * 32,
        span_id=f"{at % 9}" * 16,
        name=name,
    )
    span.start_time.FromMicroseconds(at)
    span.end_time.FromMicroseconds(at + SECOND)
    span.attributes.update({"n": 1})
    return span


async def test_spans_by_start_time(database: Database, recording: Recording) -> None:
    flow = flow_run()
    task = task_run(flow)
    spans = [
        _span(flow, "flow", START),
        _span(task, "second", START + 2 * SECOND),
        _span(task, "first", START + SECOND, trace="b"),
    ]
    await recording.post(run_of(flow), run_of(task), *(RecordEntry(span=span) for span in spans))
    found, token = await database.reader.list_spans(SpanFilter(root_run_ids=[flow.id]))
    assert (found, token) == ([spans[0], spans[2], spans[1]], "")
    page, token = await database.reader.list_spans(SpanFilter(root_run_ids=[flow.id]), 2)
    rest, _ = await database.reader.list_spans(SpanFilter(root_run_ids=[flow.id]), 2, token)
    assert page + rest == found
    assert (await database.reader.list_spans(SpanFilter(run_ids=[task.id])))[0] == [spans[2], spans[1]]
    assert (await database.reader.list_spans(SpanFilter(trace_id="b" * 32)))[0] == [spans[2]]


async def test_lines_are_found_by_their_fields(database: Database, recording: Recording) -> None:
    flow = flow_run()
    told: list[dict[str, Any]] = [
        {"user": "bob", "count": 3, "ok": True},
        {"user": "3", "count": 3.5, "order": {"id": 7, "to": ["a", "b"]}},
        {"user": None, 'a "b".c\\d': "odd", "ok": False},
    ]
    entries = [run_of(flow), log(flow, "none")]
    for index, fields in enumerate(told):
        line = log(flow, f"line {index}", at=START + index)
        line.log.fields.update(fields)
        entries.append(line)
    await recording.post(*entries)

    async def found(**wanted: Any) -> list[str]:
        filter = LogFilter()
        for name, value in wanted.items():
            field = filter.fields.add(name=name)
            ParseDict(value, field.value)
        return [line.message for line in (await database.reader.list_logs(filter))[0]]

    assert await found(user="bob") == ["line 0"]
    assert await found(count=3) == ["line 0"]
    assert await found(count=3.5) == ["line 1"]
    assert await found(user="3") == ["line 1"]
    assert await found(user=3) == []
    assert await found(user=None) == ["line 2"]
    assert await found(ok=True) == ["line 0"]
    assert await found(ok=False) == ["line 2"]
    assert await found(**{"order.id": 7}) == ["line 1"]
    assert await found(order={"to": ["a", "b"], "id": 7}) == ["line 1"]
    assert await found(**{'a "b".c\\d': "odd"}) == ["line 2"]
    assert await found(user="bob", count=3) == ["line 0"]
    assert await found(user="bob", count=4) == []
