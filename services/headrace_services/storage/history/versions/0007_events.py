"""What happened, and the fields of log lines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("logs", sa.Column("fields", sa.Text(), nullable=True))
    create_events()


def create_events() -> None:
    op.create_table(
        "events",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("run_id", ID, nullable=True),
        sa.Column("occurred", sa.BigInteger(), nullable=False),
        sa.Column("record_time", sa.BigInteger(), nullable=False),
        sa.Column("rest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_id_idx", "events", ["id"], unique=False)
    op.create_index("events_time_idx", "events", ["occurred", "seq"], unique=False)
    for column, name in (("event", "event"), ("resource_id", "resource"), ("run_id", "run")):
        op.create_index(f"events_{name}_idx", "events", [column, "occurred", "seq"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE events ALTER COLUMN xid SET DEFAULT pg_current_xact_id()::text::bigint")
        op.create_index("events_commit_idx", "events", ["xid", "seq"], unique=False)
