"""Flows, runs and their states, recorders, logs, spans, the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLOW_RUN = sa.text("kind = 1")
UNFINISHED = sa.text("recorder_id IS NOT NULL AND state_type NOT IN (6, 7, 8, 9)")
HAS_KEY = sa.text("idempotency_key IS NOT NULL")
HAS_LEASE = sa.text("expires_at IS NOT NULL")


def upgrade() -> None:
    create_workspaces()
    create_deleted_runs()
    create_flows()
    create_logs()
    create_markers()
    create_outbox()
    create_recorders()
    create_requests()
    create_run_states()
    create_run_tags()
    create_runs()
    create_spans()
    if op.get_context().dialect.name == "postgresql":
        for table in ("logs", "outbox"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN xid SET DEFAULT pg_current_xact_id()::text::bigint")


def create_deleted_runs() -> None:
    op.create_table(
        "deleted_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def create_flows() -> None:
    op.create_table(
        "flows",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "name", name="flows_name_key"),
    )


def create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("root_run_id", ID, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("logger", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("rest", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("logs_commit_idx", "logs", ["xid", "seq"], unique=False)
    op.create_index("logs_root_idx", "logs", ["root_run_id", "time", "seq"], unique=False)
    op.create_index("logs_run_idx", "logs", ["run_id", "time", "seq"], unique=False)
    op.create_index("logs_time_idx", "logs", ["time", "seq"], unique=False)


def create_markers() -> None:
    op.create_table(
        "markers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("record_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_commit_idx", "outbox", ["xid", "seq"], unique=False)
    op.create_index("outbox_time_idx", "outbox", ["record_time"], unique=False)


def create_recorders() -> None:
    op.create_table(
        "recorders",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("durable_seq", sa.BigInteger(), nullable=False),
        sa.Column("is_sealed", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("sdk", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("dropped_logs", sa.BigInteger(), nullable=False),
        sa.Column("dropped_spans", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("NOT is_sealed OR expires_at IS NULL", name="recorders_sealed_check"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "recorders_lease_idx",
        "recorders",
        ["expires_at"],
        unique=False,
        postgresql_where=HAS_LEASE,
        sqlite_where=HAS_LEASE,
    )


def create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("method", "request_id"),
    )
    op.create_index("requests_time_idx", "requests", ["create_time"], unique=False)


def create_run_states() -> None:
    op.create_table(
        "run_states",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("type", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("event_time", sa.BigInteger(), nullable=False),
        sa.Column("record_time", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq"),
        sa.UniqueConstraint("run_id", "id", name="run_states_id_key"),
        sqlite_with_rowid=False,
    )


def create_run_tags() -> None:
    op.create_table(
        "run_tags",
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("state_type", sa.SmallInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "tag", "kind", "state_type", "create_time", "run_id"),
        sqlite_with_rowid=False,
    )


def create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("flow_id", ID, nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task_name", sa.Text(), nullable=True),
        sa.Column("root_run_id", ID, nullable=False),
        sa.Column("parent_run_id", ID, nullable=True),
        sa.Column("owner_run_id", ID, nullable=False),
        sa.Column("recorder_id", ID, nullable=True),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("work_pool", sa.Text(), nullable=True),
        sa.Column("work_queue", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("create_digest", sa.LargeBinary(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("state_type", sa.SmallInteger(), nullable=False),
        sa.Column("state_name", sa.Text(), nullable=False),
        sa.Column("state_id", ID, nullable=True),
        sa.Column("state_time", sa.BigInteger(), nullable=True),
        sa.Column("state_seq", sa.Integer(), nullable=False),
        sa.Column("is_presumed", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("flow_run_count", sa.Integer(), nullable=False),
        sa.Column("is_resuming", sa.Boolean(), nullable=False),
        sa.Column("retry_type", sa.SmallInteger(), nullable=False),
        sa.Column("pause_keys", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("expected_start_time", sa.BigInteger(), nullable=True),
        sa.Column("next_scheduled_start_time", sa.BigInteger(), nullable=True),
        sa.Column("total_run_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("full_spec", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint("(state_type = 0) = (state_id IS NULL)", name="runs_state_check"),
        sa.CheckConstraint("(state_type IN (6, 7, 8, 9)) = (end_time IS NOT NULL)", name="runs_end_check"),
        sa.CheckConstraint("kind IN (1, 2)", name="runs_kind_check"),
        sa.CheckConstraint(
            "run_count >= 0 AND total_run_time >= 0 AND fence >= 1 AND attempt >= 1", name="runs_counts_check"
        ),
        sa.CheckConstraint("state_type BETWEEN 0 AND 9", name="runs_state_type_check"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "runs_expected_start_time_idx",
        "runs",
        ["workspace_id", "expected_start_time", "id"],
        unique=False,
        postgresql_where=FLOW_RUN,
        sqlite_where=FLOW_RUN,
    )
    op.create_index(
        "runs_flow_idx",
        "runs",
        ["flow_id", "state_type", "create_time", "id"],
        unique=False,
        postgresql_where=FLOW_RUN,
        sqlite_where=FLOW_RUN,
    )
    op.create_index(
        "runs_idempotency_key",
        "runs",
        ["flow_id", "idempotency_key"],
        unique=True,
        postgresql_where=HAS_KEY,
        sqlite_where=HAS_KEY,
    )
    op.create_index(
        "runs_name_idx",
        "runs",
        ["workspace_id", "name", "id"],
        unique=False,
        postgresql_where=FLOW_RUN,
        sqlite_where=FLOW_RUN,
    )
    op.create_index(
        "runs_recorder_idx",
        "runs",
        ["recorder_id"],
        unique=False,
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.create_index("runs_root_idx", "runs", ["root_run_id", "create_time", "id"], unique=False)
    op.create_index(
        "runs_start_time_idx",
        "runs",
        ["workspace_id", "start_time", "id"],
        unique=False,
        postgresql_where=FLOW_RUN,
        sqlite_where=FLOW_RUN,
    )
    op.create_index(
        "runs_state_idx", "runs", ["workspace_id", "kind", "state_type", "create_time", "id"], unique=False
    )


def create_spans() -> None:
    op.create_table(
        "spans",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("root_run_id", ID, nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("spans_root_idx", "spans", ["root_run_id", "start_time", "seq"], unique=False)
    op.create_index("spans_run_idx", "spans", ["run_id", "start_time", "seq"], unique=False)
    op.create_index("spans_trace_idx", "spans", ["trace_id", "start_time", "seq"], unique=False)


def create_workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.execute("INSERT INTO workspaces (id, name) VALUES (1, 'default')")
