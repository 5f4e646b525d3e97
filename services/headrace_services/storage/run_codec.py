"""Runs: from rows to messages."""

from __future__ import annotations

from headrace.v1.run_pb2 import Run
from headrace_services.domain.books import estimated_run_time, lateness
from headrace_services.domain.states import CANCELLING
from headrace_services.storage.instants import set_duration, set_micros
from headrace_services.storage.rows import RunRow, decode_tags

__all__ = ["run_message"]


def run_message(row: RunRow, body: bytes | None, now: int, *, full: bool) -> Run:
    """The run as it is shown.

    Args:
        row: the run.
        body: its current state, serialised.
        now: microseconds; durations that still grow are measured to it.
        full: with parameters, job variables and the state's data.
    """
    run = Run.FromString(row.spec)
    if full and row.full_spec is not None:
        run.MergeFromString(row.full_spec)
    run.id = row.id
    run.name = row.name
    run.root_run_id = row.root_id
    run.owner_run_id = row.owner_id
    run.parent_run_id = row.parent_id or ""
    run.task_name = row.task_name or ""
    run.deployment_id = row.deployment_id or ""
    run.work_pool = row.work_pool or ""
    run.work_queue = row.work_queue or ""
    run.flow_id = row.flow_id or ""
    run.recorder_id = row.recorder_id or ""
    run.tags.extend(decode_tags(row.tags))
    run.attempt = row.attempt
    run.fence = row.fence
    run.etag = str(row.version)
    run.cancel_requested = row.books.type is CANCELLING
    if body is not None:
        _set_state(run, body, full)
    _set_books(run, row, now)
    return run


def _set_state(run: Run, body: bytes, full: bool) -> None:
    run.state.ParseFromString(body)
    if not full:
        run.state.ClearField("data")


def _set_books(run: Run, row: RunRow, now: int) -> None:
    books = row.books
    run.run_count = books.run_count
    set_micros(run.create_time, row.create_time)
    if books.start_time is not None:
        set_micros(run.start_time, books.start_time)
    if books.end_time is not None:
        set_micros(run.end_time, books.end_time)
    if books.expected_start_time is not None:
        set_micros(run.expected_start_time, books.expected_start_time)
    if books.next_scheduled_start_time is not None:
        set_micros(run.next_scheduled_start_time, books.next_scheduled_start_time)
    set_duration(run.total_run_time, books.total_run_time)
    set_duration(run.estimated_run_time, estimated_run_time(books, now))
    set_duration(run.lateness, lateness(books, now))
