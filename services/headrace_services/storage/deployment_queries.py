"""Deployments and their versions, read."""

from __future__ import annotations

import json
from typing import Any

from headrace.core.errors import ObjectNotFound
from headrace.v1.deployment_pb2 import DEPLOYMENT_STATUS_READY, Deployment, DeploymentVersion
from headrace.v1.deployment_service_pb2 import DeploymentFilter, DeploymentKey
from headrace_services.storage.backends import Backend
from headrace_services.storage.declared_rows import DeploymentRow, DeploymentVersionRow
from headrace_services.storage.deployment_codec import deployment_message, version_message
from headrace_services.storage.deployment_commands import where_is
from headrace_services.storage.dialects import Dialect, like
from headrace_services.storage.entities import Where, row_from, table_of
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.filters import Conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.presence import Presence, read_presence
from headrace_services.storage.schedule_rows import ScheduleRow, schedule_message
from headrace_services.storage.work_pool_codec import DEFAULT_QUEUE

__all__ = ["DeploymentQueries"]


class DeploymentQueries:
    """Deployments and their versions, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def find(self, key: DeploymentKey) -> DeploymentRow | None:
        """The row of the deployment; None: there is none."""
        rows = await find_rows(self._backend, self._dialect, DeploymentRow, where_is(key))
        return rows[0] if rows else None

    async def row(self, key: DeploymentKey) -> DeploymentRow:
        """The row of the deployment.

        Raises:
            ObjectNotFound: there is none.
        """
        found = await self.find(key)
        if found is None:
            raise ObjectNotFound.of("deployment", key.id or key.name)
        return found

    async def get(self, key: DeploymentKey) -> Deployment:
        """The deployment as it is shown.

        Raises:
            ObjectNotFound: there is none.
        """
        return (await self._shown([await self.row(key)]))[0]

    async def _shown(self, rows: list[DeploymentRow]) -> list[Deployment]:
        where: Where = [("deployment_id", "in", [row.id for row in rows])]
        schedules = await find_rows(
            self._backend, self._dialect, ScheduleRow, where, order=["create_time", "id"]
        )
        presence = await read_presence(self._backend, self._dialect) if rows else Presence()
        shown = {row.id: _message(row, presence) for row in rows}
        for schedule in schedules:
            shown[schedule.deployment_id].schedules.append(schedule_message(schedule))
        return list(shown.values())

    async def page(
        self, filter: DeploymentFilter, page_size: int, page_token: str
    ) -> tuple[list[Deployment], str]:
        """A page of deployments by flow and name, and the token of the next."""
        key, limit = PageKey.of("deployments", filter), page_limit(page_size)
        cursor = key.cursor(page_token, str, str)
        where = self._conditions(filter)
        if cursor is not None:
            where.add("(flow_name, name) > (?, ?)", *cursor)
        columns = table_of(DeploymentRow).columns
        names = [self._dialect.column(name) if type == "uuid" else name for name, type in columns]
        rows = await self._backend.fetch(
            f"SELECT {', '.join(names)} FROM deployments WHERE {where.sql} "
            f"ORDER BY flow_name, name LIMIT {limit + 1}",
            where.parameters,
        )
        found = [row_from(DeploymentRow, tuple(row), self._dialect) for row in rows]
        more, found = len(found) > limit, found[:limit]
        return await self._shown(found), key.token([found[-1].flow_name, found[-1].name]) if more else ""

    def _conditions(self, filter: DeploymentFilter) -> Conditions:
        where = Conditions()
        where.add("workspace_id = 1")
        where.among("id", [self._dialect.id(id.lower()) for id in filter.ids])
        where.among("flow_name", list(filter.flow_names))
        where.among("name", list(filter.names))
        where.among("work_pool", list(filter.work_pools))
        where.among("work_queue", list(filter.work_queues))
        position = "strpos" if self._dialect.name == "postgresql" else "instr"
        for tag in filter.tags_all:
            # As JSON a tag is not part of another one: it ends where its quotes do.
            where.add(f"{position}(tags, ?) > 0", json.dumps(tag, ensure_ascii=False))
        if filter.name_contains:
            pattern = like(filter.name_contains)
            either = f"({self._dialect.contains('name')} OR {self._dialect.contains('flow_name')})"
            where.add(either, pattern, pattern)
        if filter.HasField("paused"):
            where.add("is_paused = ?", filter.paused)
        return where

    async def versions(
        self, deployment_id: str, page_size: int, page_token: str
    ) -> tuple[list[DeploymentVersion], str]:
        """A page of the deployment's versions, newest first, and the token of the next."""
        key, limit = PageKey.of("deployment versions", deployment_id), page_limit(page_size)
        cursor = key.cursor(page_token, int)
        where: list[tuple[str, str, Any]] = [("deployment_id", "=", deployment_id)]
        if cursor is not None:
            where.append(("number", "<", cursor[0]))
        rows = await find_rows(
            self._backend,
            self._dialect,
            DeploymentVersionRow,
            where,
            order=["number DESC"],
            limit=limit + 1,
        )
        more, rows = len(rows) > limit, rows[:limit]
        return [version_message(row) for row in rows], key.token([rows[-1].number]) if more else ""

    async def version(self, deployment_id: str, number: int) -> DeploymentVersion:
        """One version of the deployment.

        Raises:
            ObjectNotFound: it has none of that number.
        """
        where: Where = [("deployment_id", "=", deployment_id), ("number", "=", number)]
        rows = await find_rows(self._backend, self._dialect, DeploymentVersionRow, where)
        if not rows:
            raise ObjectNotFound.of("deployment version", str(number))
        return version_message(rows[0])


def _message(row: DeploymentRow, presence: Presence) -> Deployment:
    """The deployment, with whether somebody is there who can run it."""
    deployment = deployment_message(row)
    heard_at = presence.deployments.get(row.id)
    if row.work_pool is not None:
        heard_at = presence.of_queue(row.work_pool, row.work_queue or DEFAULT_QUEUE)
    if heard_at is not None:
        deployment.status = DEPLOYMENT_STATUS_READY
        set_micros(deployment.last_polled_time, heard_at)
    return deployment
