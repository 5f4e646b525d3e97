"""Backfills, and the instants that they have come to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    op.create_table(
        "backfills",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("schedule_id", ID, nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("is_ready", sa.Boolean(), nullable=False),
        sa.Column("rest_from", sa.BigInteger(), nullable=False),
        sa.Column("rest_until", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("schedule_spec", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    is_live = sa.text("state <= 3")
    op.create_index(
        "backfills_live_idx", "backfills", ["update_time"], postgresql_where=is_live, sqlite_where=is_live
    )
    op.create_index("backfills_time_idx", "backfills", ["create_time", "id"], unique=False)
    op.create_table(
        "backfill_runs",
        sa.Column("backfill_id", ID, nullable=False),
        sa.Column("fire_time", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("action", sa.SmallInteger(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("backfill_id", "fire_time"),
    )
    is_open = sa.text("is_open")
    op.create_index(
        "backfill_runs_open_idx",
        "backfill_runs",
        ["backfill_id"],
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
