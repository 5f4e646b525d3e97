"""Runs that wait for workers, the attempts that workers hold, and the workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    create_queue_routes()
    create_run_queue()
    create_queue_passes()
    create_attempt_holders()
    create_workers()
    create_worker_sessions()


def create_queue_routes() -> None:
    op.create_table(
        "queue_routes",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("queue_routes_subject_idx", "queue_routes", ["kind", "subject"], unique=False)


def create_run_queue() -> None:
    op.create_table(
        "run_queue",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("route", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("pass_number", sa.BigInteger(), nullable=True),
        sa.Column("due_time", sa.BigInteger(), nullable=False),
        sa.Column("scheduled_time", sa.BigInteger(), nullable=False),
        sa.Column("aged_time", sa.BigInteger(), nullable=False),
        sa.Column("fairness_key", sa.Text(), nullable=False),
        sa.Column("blocked_by", sa.Text(), nullable=True),
        sa.Column("late_time", sa.BigInteger(), nullable=True),
        sa.Column("lost_count", sa.SmallInteger(), nullable=False),
        sa.Column("refusals", sa.SmallInteger(), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index(
        "run_queue_aged_idx",
        "run_queue",
        ["aged_time"],
        unique=False,
        postgresql_where=sa.text("pass_number IS NOT NULL AND blocked_by IS NULL"),
        sqlite_where=sa.text("pass_number IS NOT NULL AND blocked_by IS NULL"),
    )
    op.create_index(
        "run_queue_blocked_idx",
        "run_queue",
        ["blocked_by", "due_time"],
        unique=False,
        postgresql_where=sa.text("blocked_by IS NOT NULL"),
        sqlite_where=sa.text("blocked_by IS NOT NULL"),
    )
    op.create_index(
        "run_queue_due_idx",
        "run_queue",
        ["due_time"],
        unique=False,
        postgresql_where=sa.text("pass_number IS NULL"),
        sqlite_where=sa.text("pass_number IS NULL"),
    )
    op.create_index(
        "run_queue_late_idx",
        "run_queue",
        ["late_time"],
        unique=False,
        postgresql_where=sa.text("late_time IS NOT NULL"),
        sqlite_where=sa.text("late_time IS NOT NULL"),
    )
    op.create_index(
        "run_queue_turn_idx",
        "run_queue",
        ["route", sa.literal_column("priority DESC"), "pass_number", "due_time", "run_id"],
        unique=False,
        postgresql_where=sa.text("pass_number IS NOT NULL AND blocked_by IS NULL"),
        sqlite_where=sa.text("pass_number IS NOT NULL AND blocked_by IS NULL"),
    )


def create_queue_passes() -> None:
    op.create_table(
        "queue_passes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("pass_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("queue_passes_scope_idx", "queue_passes", ["scope"], unique=False)


def create_attempt_holders() -> None:
    op.create_table(
        "attempt_holders",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("assignment_id", ID, nullable=False),
        sa.Column("session_id", ID, nullable=True),
        sa.Column("worker_id", ID, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("phase", sa.SmallInteger(), nullable=False),
        sa.Column("offer_time", sa.BigInteger(), nullable=False),
        sa.Column("slot_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("infrastructure_id", sa.Text(), nullable=False),
        sa.Column("on_lost", sa.SmallInteger(), nullable=False),
        sa.Column("max_lost", sa.Integer(), nullable=False),
        sa.Column("lost_count", sa.SmallInteger(), nullable=False),
        sa.Column("refusals", sa.SmallInteger(), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index(
        "attempt_holders_deployment_idx",
        "attempt_holders",
        ["deployment_id"],
        unique=False,
        postgresql_where=sa.text("deployment_id IS NOT NULL"),
        sqlite_where=sa.text("deployment_id IS NOT NULL"),
    )
    op.create_index("attempt_holders_line_idx", "attempt_holders", ["kind", "subject", "queue"], unique=False)
    op.create_index("attempt_holders_session_idx", "attempt_holders", ["session_id"], unique=False)


def create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("work_pool", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("workers_name_idx", "workers", ["name", "id"], unique=False)
    op.create_index("workers_pool_idx", "workers", ["work_pool", "name", "id"], unique=False)


def create_worker_sessions() -> None:
    op.create_table(
        "worker_sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("worker_id", ID, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("heartbeat_time", sa.BigInteger(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("drain_deadline", sa.BigInteger(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "worker_sessions_drain_idx",
        "worker_sessions",
        ["id"],
        unique=False,
        postgresql_where=sa.text("drain_deadline IS NOT NULL AND NOT is_draining"),
        sqlite_where=sa.text("drain_deadline IS NOT NULL AND NOT is_draining"),
    )
    op.create_index(
        "worker_sessions_lease_idx",
        "worker_sessions",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("worker_sessions_worker_idx", "worker_sessions", ["worker_id"], unique=False)
