"""The index of cached results, and locks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    create_locks()
    create_cache_entries()


def create_locks() -> None:
    op.create_table(
        "locks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("acquire_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("hold_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("lease", sa.BigInteger(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("locks_expire_idx", "locks", ["expire_time"], unique=False)


def create_cache_entries() -> None:
    op.create_table(
        "cache_entries",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("producer_run_id", ID, nullable=False),
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("flow_name", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    expires = sa.text("expire_time IS NOT NULL")
    op.create_index(
        "cache_entries_expire_idx",
        "cache_entries",
        ["expire_time"],
        unique=False,
        postgresql_where=expires,
        sqlite_where=expires,
    )
    op.create_index("cache_entries_task_idx", "cache_entries", ["task_name"], unique=False)
