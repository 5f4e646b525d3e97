"""What runs are told while they run, and when something is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    create_run_inputs()
    create_timers()
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE run_inputs ALTER COLUMN xid SET DEFAULT pg_current_xact_id()::text::bigint")


def create_run_inputs() -> None:
    op.create_table(
        "run_inputs",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("run_id", "key", name="run_inputs_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("run_inputs_run_idx", "run_inputs", ["run_id", "xid", "seq"], unique=False)


def create_timers() -> None:
    op.create_table(
        "timers",
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("state_id", ID, nullable=False),
        sa.Column("due_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "run_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("timers_due_idx", "timers", ["kind", "due_time"], unique=False)
