"""The tables, as `history/` leaves them. A test compares the two on both databases.

Instants are BIGINT microseconds since 1970-01-01 UTC, ids are `uuid` on PostgreSQL and 16-byte BLOBs on
SQLite. What is filtered, ordered or decided on is a column; the rest of a run travels as the serialised
message it came as, so that a new field of the wire needs no migration.

Only `history/`, `migrations` and the tests import this module: the server's own statements are written
by hand, because loading SQLAlchemy alone would take a third of the time it may take to start.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

__all__ = ["metadata"]

metadata = sa.MetaData()

Id = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FINAL_TYPES = "(6, 7, 8, 9)"


def _workspace() -> sa.Column[Any]:
    return sa.Column("workspace_id", sa.SmallInteger, nullable=False, server_default="1")


def _xid() -> sa.Column[Any]:
    """Which transaction wrote the row (a default on PostgreSQL); 0 on SQLite, where `seq` is commit order."""
    return sa.Column("xid", sa.BigInteger, nullable=False, server_default="0")


workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
)

flows = sa.Table(
    "flows",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("workspace_id", "name", name="flows_name_key"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("flow_id", Id),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("task_name", sa.Text),
    sa.Column("root_run_id", Id, nullable=False),
    sa.Column("parent_run_id", Id),
    sa.Column("owner_run_id", Id, nullable=False),
    sa.Column("recorder_id", Id),
    sa.Column("deployment_id", sa.Text),
    sa.Column("work_pool", sa.Text),
    sa.Column("work_queue", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    # What CreateRun said, to tell a repeated request from another one under the same id.
    sa.Column("create_digest", sa.LargeBinary),
    # A JSON list; null: none. run_tags has them too, for filters.
    sa.Column("tags", sa.Text),
    # The current state; its body is the row of run_states with this seq. Type 0: no state yet.
    sa.Column("state_type", sa.SmallInteger, nullable=False),
    sa.Column("state_name", sa.Text, nullable=False),
    sa.Column("state_id", Id),
    sa.Column("state_time", sa.BigInteger),
    sa.Column("state_seq", sa.Integer, nullable=False),
    # CRASHED by the server's own guess, which the process's own report replaces.
    sa.Column("is_presumed", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("run_count", sa.Integer, nullable=False),
    sa.Column("flow_run_count", sa.Integer, nullable=False),
    sa.Column("is_resuming", sa.Boolean, nullable=False),
    sa.Column("retry_type", sa.SmallInteger, nullable=False),
    sa.Column("pause_keys", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("start_time", sa.BigInteger),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("expected_start_time", sa.BigInteger),
    sa.Column("next_scheduled_start_time", sa.BigInteger),
    sa.Column("total_run_time", sa.BigInteger, nullable=False),
    # Grows with every write; every update names the one it was decided on.
    sa.Column("version", sa.BigInteger, nullable=False),
    # headrace.v1.Run: what has no column, then what only view FULL shows.
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("full_spec", sa.LargeBinary),
    sa.CheckConstraint("kind IN (1, 2)", name="runs_kind_check"),
    sa.CheckConstraint("state_type BETWEEN 0 AND 9", name="runs_state_type_check"),
    sa.CheckConstraint(f"(state_type IN {FINAL_TYPES}) = (end_time IS NOT NULL)", name="runs_end_check"),
    sa.CheckConstraint("(state_type = 0) = (state_id IS NULL)", name="runs_state_check"),
    sa.CheckConstraint(
        "run_count >= 0 AND total_run_time >= 0 AND fence >= 1 AND attempt >= 1", name="runs_counts_check"
    ),
)
_unfinished = sa.text(f"recorder_id IS NOT NULL AND state_type NOT IN {FINAL_TYPES}")
_is_flow_run = sa.text("kind = 1")
_has_key = sa.text("idempotency_key IS NOT NULL")
sa.Index("runs_state_idx", runs.c.workspace_id, runs.c.kind, runs.c.state_type, runs.c.create_time, runs.c.id)
sa.Index("runs_root_idx", runs.c.root_run_id, runs.c.create_time, runs.c.id)
sa.Index(
    "runs_flow_idx",
    *(runs.c.flow_id, runs.c.state_type, runs.c.create_time, runs.c.id),
    postgresql_where=_is_flow_run,
    sqlite_where=_is_flow_run,
)
for _name in ("start_time", "expected_start_time", "name"):
    sa.Index(
        f"runs_{_name}_idx",
        *(runs.c.workspace_id, runs.c[_name], runs.c.id),
        postgresql_where=_is_flow_run,
        sqlite_where=_is_flow_run,
    )
_has_deployment = sa.text("deployment_id IS NOT NULL")
sa.Index(
    "runs_deployment_idx",
    *(runs.c.deployment_id, runs.c.state_type, runs.c.create_time, runs.c.id),
    postgresql_where=_has_deployment,
    sqlite_where=_has_deployment,
)
sa.Index("runs_recorder_idx", runs.c.recorder_id, postgresql_where=_unfinished, sqlite_where=_unfinished)
sa.Index(
    "runs_idempotency_key",
    *(runs.c.flow_id, runs.c.idempotency_key),
    unique=True,
    postgresql_where=_has_key,
    sqlite_where=_has_key,
)

# Carries what lists are filtered by beside the tag, so that one range of the key is one answer.
run_tags = sa.Table(
    "run_tags",
    metadata,
    sa.Column("workspace_id", sa.SmallInteger, primary_key=True, server_default="1"),
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Column("kind", sa.SmallInteger, primary_key=True),
    sa.Column("state_type", sa.SmallInteger, primary_key=True),
    sa.Column("create_time", sa.BigInteger, primary_key=True),
    sa.Column("run_id", Id, primary_key=True),
    sqlite_with_rowid=False,
)

run_states = sa.Table(
    "run_states",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", Id, nullable=False),
    sa.Column("type", sa.SmallInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("event_time", sa.BigInteger, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    # headrace.v1.State
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("run_id", "id", name="run_states_id_key"),
    sqlite_with_rowid=False,
)

recorders = sa.Table(
    "recorders",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("durable_seq", sa.BigInteger, nullable=False),
    sa.Column("is_sealed", sa.Boolean, nullable=False),
    # Null: no lease, because it is sealed or because its lapse was acted on.
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("replica_id", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("sdk", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("dropped_logs", sa.BigInteger, nullable=False),
    sa.Column("dropped_spans", sa.BigInteger, nullable=False),
    sa.CheckConstraint("NOT is_sealed OR expires_at IS NULL", name="recorders_sealed_check"),
)
_has_lease = sa.text("expires_at IS NOT NULL")
sa.Index("recorders_lease_idx", recorders.c.expires_at, postgresql_where=_has_lease, sqlite_where=_has_lease)

logs = sa.Table(
    "logs",
    metadata,
    sa.Column("seq", Sequence, primary_key=True),
    _xid(),
    _workspace(),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("root_run_id", Id, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("level", sa.SmallInteger, nullable=False),
    sa.Column("logger", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    # headrace.v1.LogEntry: what has no column.
    sa.Column("rest", sa.LargeBinary),
    # What the author attached, for filters: a JSON object of names to values as JSON text.
    sa.Column("fields", sa.Text),
)
sa.Index("logs_run_idx", logs.c.run_id, logs.c.time, logs.c.seq)
sa.Index("logs_root_idx", logs.c.root_run_id, logs.c.time, logs.c.seq)
sa.Index("logs_time_idx", logs.c.time, logs.c.seq)
sa.Index("logs_commit_idx", logs.c.xid, logs.c.seq).ddl_if(dialect="postgresql")

spans = sa.Table(
    "spans",
    metadata,
    sa.Column("seq", Sequence, primary_key=True),
    _workspace(),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("root_run_id", Id, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Column("start_time", sa.BigInteger, nullable=False),
    # headrace.v1.Span
    sa.Column("body", sa.LargeBinary, nullable=False),
)
sa.Index("spans_run_idx", spans.c.run_id, spans.c.start_time, spans.c.seq)
sa.Index("spans_root_idx", spans.c.root_run_id, spans.c.start_time, spans.c.seq)
sa.Index("spans_trace_idx", spans.c.trace_id, spans.c.start_time, spans.c.seq)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", Sequence, primary_key=True),
    _xid(),
    _workspace(),
    sa.Column("id", Id, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False),
    sa.Column("run_id", Id),
    sa.Column("occurred", sa.BigInteger, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    # headrace.v1.Event: what has no column.
    sa.Column("rest", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("events_id_idx", events.c.id)
sa.Index("events_time_idx", events.c.occurred, events.c.seq)
sa.Index("events_event_idx", events.c.event, events.c.occurred, events.c.seq)
sa.Index("events_resource_idx", events.c.resource_id, events.c.occurred, events.c.seq)
sa.Index("events_run_idx", events.c.run_id, events.c.occurred, events.c.seq)
sa.Index("events_commit_idx", events.c.xid, events.c.seq).ddl_if(dialect="postgresql")

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("seq", Sequence, primary_key=True),
    _xid(),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    # Ids of 16 bytes each, one after the other.
    sa.Column("keys", sa.LargeBinary, nullable=False),
    sa.Column("record_time", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("outbox_commit_idx", outbox.c.xid, outbox.c.seq).ddl_if(dialect="postgresql")
sa.Index("outbox_time_idx", outbox.c.record_time).ddl_if(dialect="postgresql")

# One row per name: where something stands, e.g. how far the outbox was trimmed.
markers = sa.Table(
    "markers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# Answers to requests that carry a request id, so that repeating one changes nothing.
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    _workspace(),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
)
sa.Index("requests_time_idx", requests.c.create_time)

# Runs that were deleted while a process may still have been executing them: it cannot make them again.
deleted_runs = sa.Table(
    "deleted_runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("delete_time", sa.BigInteger, nullable=False),
)

# What a run is told while it runs: messages, and what its pauses ask for and were answered.
run_inputs = sa.Table(
    "run_inputs",
    metadata,
    sa.Column("seq", Sequence, primary_key=True),
    _xid(),
    _workspace(),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    # JSON text
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("run_id", "key", name="run_inputs_key"),
    sqlite_autoincrement=True,
)
sa.Index("run_inputs_run_idx", run_inputs.c.run_id, run_inputs.c.xid, run_inputs.c.seq)

# What the server has to do to a run at some instant, unless the run has left the state by then.
timers = sa.Table(
    "timers",
    metadata,
    sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("run_id", Id, primary_key=True),
    _workspace(),
    sa.Column("state_id", Id, nullable=False),
    sa.Column("due_time", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("timers_due_idx", timers.c.kind, timers.c.due_time)

work_pools = sa.Table(
    "work_pools",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    # Null: no limit.
    sa.Column("concurrency_limit", sa.Integer),
    # JSON text
    sa.Column("base_job_template", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    # As of runs; so it is below.
    sa.Column("version", sa.BigInteger, nullable=False),
    # Some fairness key has a limit in this pool.
    sa.Column("has_key_limits", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("workspace_id", "name", name="work_pools_name_key"),
)

work_queues = sa.Table(
    "work_queues",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("pool_id", Id, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    # Unique in the pool; not by a constraint, because ranks change places.
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("concurrency_limit", sa.Integer),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("pool_id", "name", name="work_queues_name_key"),
    sa.CheckConstraint("priority >= 1", name="work_queues_priority_check"),
)
sa.Index("work_queues_priority_idx", work_queues.c.pool_id, work_queues.c.priority)

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("flow_id", Id, nullable=False),
    sa.Column("flow_name", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    # Names, as of runs: a pool that is made again has its deployments back.
    sa.Column("work_pool", sa.Text),
    sa.Column("work_queue", sa.Text),
    sa.Column("concurrency_limit", sa.Integer),
    # A JSON list; null: none.
    sa.Column("tags", sa.Text),
    sa.Column("version_id", Id, nullable=False),
    sa.Column("version_number", sa.BigInteger, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
    # headrace.v1.Deployment, without schedules and what has a meaning of its own here.
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("workspace_id", "flow_name", "name", name="deployments_name_key"),
)
sa.Index("deployments_flow_idx", deployments.c.flow_id)
sa.Index("deployments_pool_idx", deployments.c.work_pool, deployments.c.work_queue)

deployment_versions = sa.Table(
    "deployment_versions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("deployment_id", Id, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    # headrace.v1.DeploymentVersion
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("deployment_id", "number", name="deployment_versions_number_key"),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("deployment_id", Id, nullable=False),
    # Unique in the deployment; null: none.
    sa.Column("slug", sa.Text),
    sa.Column("is_paused", sa.Boolean, nullable=False),
    # When the next run is to be made; null: never again, or not while it or its deployment is paused.
    sa.Column("due_time", sa.BigInteger),
    # What it will be made for.
    sa.Column("next_fire_time", sa.BigInteger),
    sa.Column("last_fire_time", sa.BigInteger),
    # Since when nothing is made; null while it fires.
    sa.Column("idle_since", sa.BigInteger),
    sa.Column("missed_fires", sa.BigInteger, nullable=False),
    sa.Column("skipped_fires", sa.BigInteger, nullable=False),
    sa.Column("last_skip_reason", sa.Text, nullable=False),
    sa.Column("disabled_reason", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    # headrace.v1.Schedule, without what has a column.
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    # Instants to come that are skipped, a JSON array of microseconds; null: none.
    sa.Column("skips", sa.Text),
    sa.UniqueConstraint("deployment_id", "slug", name="schedules_slug_key"),
)
_is_due = sa.text("due_time IS NOT NULL")
sa.Index("schedules_due_idx", schedules.c.due_time, postgresql_where=_is_due, sqlite_where=_is_due)
sa.Index("schedules_deployment_idx", schedules.c.deployment_id, schedules.c.create_time, schedules.c.id)

# Runs that were made for a fire and wait until earlier ones have ended.
overlap_waits = sa.Table(
    "overlap_waits",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    _workspace(),
    sa.Column("deployment_id", Id, nullable=False),
    sa.Column("schedule_id", Id, nullable=False),
    sa.Column("per_schedule", sa.Boolean, nullable=False),
    sa.Column("include_manual", sa.Boolean, nullable=False),
    sa.Column("scheduled_time", sa.BigInteger, nullable=False),
)
sa.Index("overlap_waits_deployment_idx", overlap_waits.c.deployment_id, overlap_waits.c.scheduled_time)
# One kind of line that runs have waited in. Few: they stay.
queue_routes = sa.Table(
    "queue_routes",
    metadata,
    # A hash of the rest.
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    _workspace(),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    # A JSON object, its keys in order; empty: nothing is required.
    sa.Column("labels", sa.Text, nullable=False),
)
sa.Index("queue_routes_subject_idx", queue_routes.c.kind, queue_routes.c.subject)

# Runs that wait for a worker. Small: what is handed out leaves it.
run_queue = sa.Table(
    "run_queue",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    _workspace(),
    sa.Column("route", sa.BigInteger, nullable=False),
    sa.Column("deployment_id", sa.Text),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    # Its turn; null: not due yet.
    sa.Column("pass_number", sa.BigInteger),
    sa.Column("due_time", sa.BigInteger, nullable=False),
    sa.Column("scheduled_time", sa.BigInteger, nullable=False),
    sa.Column("aged_time", sa.BigInteger, nullable=False),
    sa.Column("fairness_key", sa.Text, nullable=False),
    sa.Column("blocked_by", sa.Text),
    sa.Column("late_time", sa.BigInteger),
    sa.Column("lost_count", sa.SmallInteger, nullable=False),
    sa.Column("refusals", sa.SmallInteger, nullable=False),
    sa.Column("excluded", sa.Text),
)
_is_ready = sa.text("pass_number IS NOT NULL AND blocked_by IS NULL")
_is_early = sa.text("pass_number IS NULL")
_is_blocked = sa.text("blocked_by IS NOT NULL")
_may_be_late = sa.text("late_time IS NOT NULL")
sa.Index(
    "run_queue_turn_idx",
    run_queue.c.route,
    run_queue.c.priority.desc(),
    *(run_queue.c.pass_number, run_queue.c.due_time, run_queue.c.run_id),
    postgresql_where=_is_ready,
    sqlite_where=_is_ready,
)
sa.Index("run_queue_due_idx", run_queue.c.due_time, postgresql_where=_is_early, sqlite_where=_is_early)
sa.Index(
    "run_queue_blocked_idx",
    *(run_queue.c.blocked_by, run_queue.c.due_time),
    postgresql_where=_is_blocked,
    sqlite_where=_is_blocked,
)
sa.Index(
    "run_queue_late_idx", run_queue.c.late_time, postgresql_where=_may_be_late, sqlite_where=_may_be_late
)
sa.Index("run_queue_aged_idx", run_queue.c.aged_time, postgresql_where=_is_ready, sqlite_where=_is_ready)

# How far keys have come in lines in which runs take turns by key. No rows while nobody uses keys.
queue_passes = sa.Table(
    "queue_passes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("pass_number", sa.BigInteger, nullable=False),
    # Of the key, thousandths.
    sa.Column("weight", sa.Integer, nullable=False, server_default="1000"),
)
sa.Index("queue_passes_scope_idx", queue_passes.c.scope)

# Attempts that are alive: each holds a slot of its pool, its queue and its deployment.
attempt_holders = sa.Table(
    "attempt_holders",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    _workspace(),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("assignment_id", Id, nullable=False),
    # Null: only the run's own process holds it.
    sa.Column("session_id", Id),
    sa.Column("worker_id", Id, nullable=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("deployment_id", sa.Text),
    sa.Column("phase", sa.SmallInteger, nullable=False),
    sa.Column("offer_time", sa.BigInteger, nullable=False),
    sa.Column("slot_expire_time", sa.BigInteger),
    sa.Column("infrastructure_id", sa.Text, nullable=False),
    sa.Column("on_lost", sa.SmallInteger, nullable=False),
    sa.Column("max_lost", sa.Integer, nullable=False),
    sa.Column("lost_count", sa.SmallInteger, nullable=False),
    sa.Column("refusals", sa.SmallInteger, nullable=False),
    sa.Column("excluded", sa.Text),
    sa.Column("fairness_key", sa.Text, nullable=False, server_default=""),
)
_of_deployment = sa.text("deployment_id IS NOT NULL")
sa.Index("attempt_holders_session_idx", attempt_holders.c.session_id)
sa.Index("attempt_holders_line_idx", *(attempt_holders.c[c] for c in ("kind", "subject", "queue")))
sa.Index(
    "attempt_holders_deployment_idx",
    attempt_holders.c.deployment_id,
    postgresql_where=_of_deployment,
    sqlite_where=_of_deployment,
)

# Ranges of the past that are made up for.
backfills = sa.Table(
    "backfills",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("deployment_id", Id, nullable=False),
    sa.Column("schedule_id", Id, nullable=False),
    # headrace.v1.BackfillState
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("is_ready", sa.Boolean, nullable=False),
    # What is left of the range.
    sa.Column("rest_from", sa.BigInteger, nullable=False),
    sa.Column("rest_until", sa.BigInteger, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("end_time", sa.BigInteger),
    # headrace.v1.Backfill
    sa.Column("spec", sa.LargeBinary, nullable=False),
    # headrace.v1.Schedule
    sa.Column("schedule_spec", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)
# RUNNING, PAUSED and CANCELLING.
_is_live = sa.text("state <= 3")
sa.Index(
    "backfills_live_idx",
    backfills.c.update_time,
    postgresql_where=_is_live,
    sqlite_where=_is_live,
)
sa.Index("backfills_time_idx", backfills.c.create_time, backfills.c.id)

# The instants that backfills have come to.
backfill_runs = sa.Table(
    "backfill_runs",
    metadata,
    sa.Column("backfill_id", Id, primary_key=True),
    sa.Column("fire_time", sa.BigInteger, primary_key=True, autoincrement=False),
    _workspace(),
    sa.Column("run_id", Id, nullable=False),
    # headrace.v1.BackfillAction
    sa.Column("action", sa.SmallInteger, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=False),
    # headrace.v1.StateType
    sa.Column("outcome", sa.SmallInteger),
)
_is_open = sa.text("is_open")
sa.Index(
    "backfill_runs_open_idx",
    backfill_runs.c.backfill_id,
    postgresql_where=_is_open,
    sqlite_where=_is_open,
)

# What the runs of a fairness key have of a pool.
fairness_rules = sa.Table(
    "fairness_rules",
    metadata,
    sa.Column("work_pool", sa.Text, primary_key=True),
    sa.Column("fairness_key", sa.Text, primary_key=True),
    _workspace(),
    # Thousandths.
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("concurrency_limit", sa.Integer),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)

# What may be left of attempts that were given up, until a worker has removed it.
teardowns = sa.Table(
    "teardowns",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True, autoincrement=False),
    _workspace(),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("work_pool", sa.Text, nullable=False),
    sa.Column("infrastructure_id", sa.Text, nullable=False),
    # When it is sent to a worker next.
    sa.Column("due_time", sa.BigInteger, nullable=False),
    sa.Column("deliveries", sa.SmallInteger, nullable=False),
    # The workers it was sent to, a JSON list of ids.
    sa.Column("tried", sa.Text, nullable=False),
)
sa.Index("teardowns_due_idx", teardowns.c.due_time)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("work_pool", sa.Text, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.Column("update_time", sa.BigInteger, nullable=False),
    # headrace.v1.Worker
    sa.Column("body", sa.LargeBinary, nullable=False),
)
sa.Index("workers_pool_idx", workers.c.work_pool, workers.c.name, workers.c.id)
sa.Index("workers_name_idx", workers.c.name, workers.c.id)

# One process of a worker each.
worker_sessions = sa.Table(
    "worker_sessions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _workspace(),
    sa.Column("worker_id", Id, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("replica_id", sa.Text, nullable=False),
    # Null: it is over.
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("heartbeat_time", sa.BigInteger, nullable=False),
    sa.Column("is_draining", sa.Boolean, nullable=False),
    sa.Column("drain_deadline", sa.BigInteger),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    # Of everything but the lease, which is renewed in bulk.
    sa.Column("version", sa.BigInteger, nullable=False),
)
_is_asked_to_drain = sa.text("drain_deadline IS NOT NULL AND NOT is_draining")
sa.Index("worker_sessions_worker_idx", worker_sessions.c.worker_id)
sa.Index(
    "worker_sessions_lease_idx",
    worker_sessions.c.expires_at,
    postgresql_where=_has_lease,
    sqlite_where=_has_lease,
)
sa.Index(
    "worker_sessions_drain_idx",
    worker_sessions.c.id,
    postgresql_where=_is_asked_to_drain,
    sqlite_where=_is_asked_to_drain,
)

# Locks that processes hold, by name. A row that is not renewed stays until somebody wants the lock, or for
# an hour or so.
locks = sa.Table(
    "locks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _workspace(),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("acquire_time", sa.BigInteger, nullable=False),
    sa.Column("expire_time", sa.BigInteger, nullable=False),
    # Null: renewed for as long as the holder likes.
    sa.Column("hold_expire_time", sa.BigInteger),
    sa.Column("lease", sa.BigInteger, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
)
sa.Index("locks_expire_idx", locks.c.expire_time)

# Where the results are that later calls may use.
cache_entries = sa.Table(
    "cache_entries",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _workspace(),
    sa.Column("id", Id, nullable=False),
    sa.Column("producer_run_id", Id, nullable=False),
    sa.Column("task_name", sa.Text, nullable=False),
    sa.Column("flow_name", sa.Text, nullable=False),
    # A JSON list.
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    # Null: never.
    sa.Column("expire_time", sa.BigInteger),
    # headrace.v1.Payload
    sa.Column("result", sa.LargeBinary, nullable=False),
)
_expires = sa.text("expire_time IS NOT NULL")
sa.Index(
    "cache_entries_expire_idx",
    cache_entries.c.expire_time,
    postgresql_where=_expires,
    sqlite_where=_expires,
)
sa.Index("cache_entries_task_idx", cache_entries.c.task_name)
