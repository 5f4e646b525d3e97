"""The columns that are read and written together, in their order."""

from __future__ import annotations

from typing import Final

from headrace_services.storage.rows import RecorderRow, RunRow
from headrace_services.storage.steps import Row

__all__ = [
    "DELETED_FROM",
    "RECORDER_COLUMNS",
    "RUN_COLUMNS",
    "RUN_ID_COLUMNS",
    "TRIMMED",
    "UPDATED_COLUMNS",
    "recorder_values",
    "run_values",
    "updated_values",
]

RUN_COLUMNS: Final = (
    "id",
    "kind",
    "flow_id",
    "name",
    "task_name",
    "root_run_id",
    "parent_run_id",
    "owner_run_id",
    "recorder_id",
    "deployment_id",
    "work_pool",
    "work_queue",
    "idempotency_key",
    "create_digest",
    "tags",
    "state_type",
    "state_name",
    "state_id",
    "state_time",
    "state_seq",
    "is_presumed",
    "attempt",
    "fence",
    "run_count",
    "flow_run_count",
    "is_resuming",
    "retry_type",
    "pause_keys",
    "create_time",
    "start_time",
    "end_time",
    "expected_start_time",
    "next_scheduled_start_time",
    "total_run_time",
    "version",
    "spec",
)
"""What makes a `RunRow`; inserting adds `full_spec`."""

RUN_ID_COLUMNS: Final = frozenset(
    {
        "id",
        "flow_id",
        "root_run_id",
        "parent_run_id",
        "owner_run_id",
        "recorder_id",
        "state_id",
    }
)

UPDATED_COLUMNS: Final = (
    "name",
    "recorder_id",
    "work_queue",
    "tags",
    "state_type",
    "state_name",
    "state_id",
    "state_time",
    "state_seq",
    "is_presumed",
    "attempt",
    "fence",
    "run_count",
    "flow_run_count",
    "is_resuming",
    "retry_type",
    "pause_keys",
    "start_time",
    "end_time",
    "expected_start_time",
    "next_scheduled_start_time",
    "total_run_time",
    "version",
    "spec",
    "full_spec",
)
"""What an update may change; the last two stay as they are when they are None."""

RECORDER_COLUMNS: Final = (
    "id",
    "durable_seq",
    "is_sealed",
    "expires_at",
    "replica_id",
    "host",
    "pid",
    "sdk",
    "create_time",
    "dropped_logs",
    "dropped_spans",
)


DELETED_FROM: Final = (
    ("run_states", "run_id"),
    ("logs", "run_id"),
    ("spans", "run_id"),
    ("run_inputs", "run_id"),
    ("timers", "run_id"),
    ("run_queue", "run_id"),
    ("attempt_holders", "run_id"),
    ("runs", "id"),
)
"""Tables that lose rows with a run, and the column with its id; run_tags has a key of its own."""


_DAY_SECONDS: Final = 24 * 3600
TRIMMED: Final = (
    ("DELETE FROM requests WHERE create_time < {}", _DAY_SECONDS),
    ("DELETE FROM deleted_runs WHERE delete_time < {}", 14 * _DAY_SECONDS),
    # Longer than a spool is kept, so that no recorder is taken for a new one.
    ("DELETE FROM recorders WHERE expires_at IS NULL AND update_time < {}", 14 * _DAY_SECONDS),
)
"""What does not stay for ever, and for how many seconds it does. The outbox has a rule of its own."""


def run_values(run: RunRow) -> Row:
    """The values of `RUN_COLUMNS` and `full_spec`."""
    type, timestamp, start, end, expected, upcoming, run_time, run_count, is_resuming = run.books
    return (
        run.id,
        run.kind,
        run.flow_id,
        run.name,
        run.task_name,
        run.root_id,
        run.parent_id,
        run.owner_id,
        run.recorder_id,
        run.deployment_id,
        run.work_pool,
        run.work_queue,
        run.idempotency_key,
        run.create_digest,
        run.tags,
        0 if type is None else type.number,
        run.state_name,
        run.state_id,
        None if type is None else timestamp,
        run.state_seq,
        run.is_presumed,
        run.attempt,
        run.fence,
        run_count,
        run.flow_run_count,
        is_resuming,
        int(run.retry_type),
        run.pause_keys,
        run.create_time,
        start,
        end,
        expected,
        upcoming,
        run_time,
        run.version,
        run.spec,
        run.full_spec,
    )


def updated_values(run: RunRow) -> Row:
    """The values of `UPDATED_COLUMNS`, the id, and the version the update was decided on."""
    type, timestamp, start, end, expected, upcoming, run_time, run_count, is_resuming = run.books
    return (
        run.name,
        run.recorder_id,
        run.work_queue,
        run.tags,
        0 if type is None else type.number,
        run.state_name,
        run.state_id,
        None if type is None else timestamp,
        run.state_seq,
        run.is_presumed,
        run.attempt,
        run.fence,
        run_count,
        run.flow_run_count,
        is_resuming,
        int(run.retry_type),
        run.pause_keys,
        start,
        end,
        expected,
        upcoming,
        run_time,
        run.version,
        run.spec if run.writes_spec else None,
        run.full_spec if run.writes_full_spec else None,
        run.id,
        run.stored_version,
    )


def recorder_values(recorder: RecorderRow) -> Row:
    """The values of `RECORDER_COLUMNS`."""
    return (
        recorder.id,
        recorder.durable_seq,
        recorder.is_sealed,
        recorder.expires_at,
        recorder.replica_id,
        recorder.host,
        recorder.pid,
        recorder.sdk,
        recorder.create_time,
        recorder.dropped_logs,
        recorder.dropped_spans,
    )
