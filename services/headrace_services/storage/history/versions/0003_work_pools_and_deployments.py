"""Where runs wait for workers, and flows made runnable elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    create_work_pools()
    create_work_queues()
    create_deployments()
    create_deployment_versions()
    has_deployment = sa.text("deployment_id IS NOT NULL")
    op.create_index(
        "runs_deployment_idx",
        "runs",
        ["deployment_id", "state_type", "create_time", "id"],
        unique=False,
        postgresql_where=has_deployment,
        sqlite_where=has_deployment,
    )


def create_work_pools() -> None:
    op.create_table(
        "work_pools",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("base_job_template", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "name", name="work_pools_name_key"),
    )


def create_work_queues() -> None:
    op.create_table(
        "work_queues",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("pool_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("priority >= 1", name="work_queues_priority_check"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("pool_id", "name", name="work_queues_name_key"),
    )
    op.create_index("work_queues_priority_idx", "work_queues", ["pool_id", "priority"], unique=False)


def create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("flow_id", ID, nullable=False),
        sa.Column("flow_name", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("work_pool", sa.Text(), nullable=True),
        sa.Column("work_queue", sa.Text(), nullable=True),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("version_id", ID, nullable=False),
        sa.Column("version_number", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workspace_id", "flow_name", "name", name="deployments_name_key"),
    )
    op.create_index("deployments_flow_idx", "deployments", ["flow_id"], unique=False)
    op.create_index("deployments_pool_idx", "deployments", ["work_pool", "work_queue"], unique=False)


def create_deployment_versions() -> None:
    op.create_table(
        "deployment_versions",
        sa.Column("id", ID, nullable=False),
        sa.Column("workspace_id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("deployment_id", "number", name="deployment_versions_number_key"),
    )
