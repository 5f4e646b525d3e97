"""SQLite keeps the order of commits in the primary keys; indexes for it cost every commit a page each."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.drop_index("logs_commit_idx", table_name="logs")
        op.drop_index("outbox_commit_idx", table_name="outbox")
        op.drop_index("outbox_time_idx", table_name="outbox")
