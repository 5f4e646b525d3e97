"""When runs of deployments are made, and runs that wait for an earlier one to end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    create_schedules()
    create_overlap_waits()


def create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("slug", sa.Text(), nullable=True),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("due_time", sa.BigInteger(), nullable=True),
        sa.Column("next_fire_time", sa.BigInteger(), nullable=True),
        sa.Column("last_fire_time", sa.BigInteger(), nullable=True),
        sa.Column("idle_since", sa.BigInteger(), nullable=True),
        sa.Column("missed_fires", sa.BigInteger(), nullable=False),
        sa.Column("skipped_fires", sa.BigInteger(), nullable=False),
        sa.Column("last_skip_reason", sa.Text(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("deployment_id", "slug", name="schedules_slug_key"),
    )
    is_due = sa.text("due_time IS NOT NULL")
    op.create_index(
        "schedules_due_idx", "schedules", ["due_time"], postgresql_where=is_due, sqlite_where=is_due
    )
    op.create_index("schedules_deployment_idx", "schedules", ["deployment_id", "create_time", "id"])


def create_overlap_waits() -> None:
    op.create_table(
        "overlap_waits",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("schedule_id", ID, nullable=False),
        sa.Column("per_schedule", sa.Boolean(), nullable=False),
        sa.Column("include_manual", sa.Boolean(), nullable=False),
        sa.Column("scheduled_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("overlap_waits_deployment_idx", "overlap_waits", ["deployment_id", "scheduled_time"])
