"""Schedules, read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.errors import ObjectNotFound
from headrace.v1.schedule_pb2 import Schedule
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.schedule_rows import ScheduleRow, schedule_message

__all__ = ["ScheduleQueries"]


class ScheduleQueries:
    """Schedules, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def get(self, schedule_id: str) -> Schedule:
        """One schedule.

        Raises:
            ObjectNotFound: there is none.
        """
        return schedule_message(await self.row(schedule_id))

    async def row(self, schedule_id: str) -> ScheduleRow:
        """One schedule, as it is kept.

        Raises:
            ObjectNotFound: there is none.
        """
        rows = await self._find([("id", "=", schedule_id.lower())])
        if not rows:
            raise ObjectNotFound.of("schedule", schedule_id)
        return rows[0]

    async def of_deployments(self, deployment_ids: Sequence[str]) -> list[Schedule]:
        """All schedules of the deployments, oldest first."""
        ids = [id.lower() for id in deployment_ids]
        rows = await self._find([("deployment_id", "in", ids)]) if ids else []
        return [schedule_message(row) for row in rows]

    async def page(
        self, deployment_ids: Sequence[str], active_only: bool, page_size: int, page_token: str
    ) -> tuple[list[Schedule], str]:
        """A page of schedules, oldest first."""
        ids = sorted(id.lower() for id in deployment_ids)
        key, limit = PageKey.of("schedules", " ".join([*ids, str(active_only)])), page_limit(page_size)
        cursor = key.cursor(page_token, int, str)
        where: list[tuple[str, str, Any]] = [("deployment_id", "in", ids)] if ids else []
        if active_only:
            where.append(("is_paused", "=", False))
        rows: list[ScheduleRow] = []
        if cursor is not None:
            at, id = cursor
            rows = await self._find([*where, ("create_time", "=", at), ("id", ">", id)], limit + 1)
            where.append(("create_time", ">", at))
        if len(rows) <= limit:
            rows += await self._find(where, limit + 1 - len(rows))
        shown = rows[:limit]
        token = key.token([shown[-1].create_time, shown[-1].id]) if len(rows) > limit else ""
        return [schedule_message(row) for row in shown], token

    async def next_due(self) -> int | None:
        """When the next schedule is due, microseconds; None: none is."""
        rows = await self._backend.fetch("SELECT min(due_time) FROM schedules WHERE due_time IS NOT NULL")
        due: int | None = rows[0][0]
        return due

    async def has_overlap_waits(self) -> bool:
        """Whether runs wait for earlier ones to end."""
        return bool(await self._backend.fetch("SELECT 1 FROM overlap_waits LIMIT 1"))

    async def _find(
        self, where: Sequence[tuple[str, str, Any]], limit: int | None = None
    ) -> list[ScheduleRow]:
        order = ["create_time", "id"]
        return await find_rows(self._backend, self._dialect, ScheduleRow, where, order, limit)
