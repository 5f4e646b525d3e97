"""Weights and limits of fairness keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fairness_rules",
        sa.Column("work_pool", sa.Text(), nullable=False),
        sa.Column("fairness_key", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("work_pool", "fairness_key"),
    )
    op.add_column(
        "work_pools",
        sa.Column("has_key_limits", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("attempt_holders", sa.Column("fairness_key", sa.Text(), server_default="", nullable=False))
    op.add_column("queue_passes", sa.Column("weight", sa.Integer(), server_default="1000", nullable=False))
    # Passes are counted in millionths of a turn from now on, so that keys can have more than one.
    op.execute("UPDATE queue_passes SET pass_number = pass_number * 1000000")
    op.execute("UPDATE run_queue SET pass_number = pass_number * 1000000 WHERE pass_number > 0")
