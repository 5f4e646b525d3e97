"""Backfills, read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.core.errors import ObjectNotFound
from headrace.v1.backfill_pb2 import BACKFILL_STATE_CANCELLING, Backfill, BackfillRun, BackfillState
from headrace_services.domain.backfills import LIVE
from headrace_services.domain.effects import RetryType
from headrace_services.domain.states import FINAL_TYPES, SCHEDULED
from headrace_services.storage.backends import Backend
from headrace_services.storage.backfill_rows import (
    BackfillRow,
    BackfillRunRow,
    backfill_message,
    run_message,
)
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.pages import PageKey, page_limit

__all__ = ["BackfillQueries"]

_NEWS: Final = 200
"""Of how many runs one look tells."""
_LIVE: Final = f"state <= {max(LIVE)}"
_HAS_ENDED: Final = f"r.state_type IN ({', '.join(str(type.number) for type in FINAL_TYPES)})"
_HAS_NOT_STARTED: Final = (
    f"r.state_type = {SCHEDULED.number} AND r.retry_type <> {RetryType.IN_PROCESS.value} "
    f"AND b.state = {BACKFILL_STATE_CANCELLING}"
)


class BackfillQueries:
    """Backfills, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def get(self, backfill_id: str) -> Backfill:
        """One backfill.

        Raises:
            ObjectNotFound: there is none.
        """
        where = [("id", "=", backfill_id.lower())]
        rows = await find_rows(self._backend, self._dialect, BackfillRow, where)
        if not rows:
            raise ObjectNotFound.of("backfill", backfill_id)
        return backfill_message(rows[0])

    async def page(
        self,
        deployment_ids: Sequence[str],
        states: Sequence[BackfillState.ValueType],
        page_size: int,
        page_token: str,
    ) -> tuple[list[Backfill], str]:
        """A page of backfills, newest first, and the token of the next."""
        ids = sorted(id.lower() for id in deployment_ids)
        key, limit = (
            PageKey.of("backfills", " ".join([*ids, *map(str, sorted(states))])),
            page_limit(page_size),
        )
        cursor = key.cursor(page_token, int, str)
        where: list[tuple[str, str, Any]] = [("deployment_id", "in", ids)] if ids else []
        if states:
            where.append(("state", "in", list(states)))
        rows: list[BackfillRow] = []
        if cursor is not None:
            at, id = cursor
            rows = await self._find([*where, ("create_time", "=", at), ("id", "<", id)], limit + 1)
            where.append(("create_time", "<", at))
        if len(rows) <= limit:
            rows += await self._find(where, limit + 1 - len(rows))
        token = key.token([rows[limit - 1].create_time, rows[limit - 1].id]) if len(rows) > limit else ""
        return [backfill_message(row) for row in rows[:limit]], token

    async def _find(self, where: Sequence[tuple[str, str, Any]], limit: int) -> list[BackfillRow]:
        order = ["create_time DESC", "id DESC"]
        return await find_rows(self._backend, self._dialect, BackfillRow, where, order, limit)

    async def runs(self, backfill_id: str, page_size: int, page_token: str) -> tuple[list[BackfillRun], str]:
        """A page of the instants that the backfill has come to, oldest first, and the token of the next.

        Raises:
            ObjectNotFound: there is no such backfill.
        """
        await self.get(backfill_id)
        id = backfill_id.lower()
        key, limit = PageKey.of("backfill runs", id), page_limit(page_size)
        cursor = key.cursor(page_token, int)
        where: list[tuple[str, str, Any]] = [("backfill_id", "=", id)]
        if cursor is not None:
            where.append(("fire_time", ">", cursor[0]))
        rows = await find_rows(self._backend, self._dialect, BackfillRunRow, where, ["fire_time"], limit + 1)
        token = key.token([rows[limit - 1].fire_time]) if len(rows) > limit else ""
        return [run_message(row) for row in rows[:limit]], token

    async def has_live(self) -> bool:
        """Whether any has not ended."""
        return bool(await self._backend.fetch(f"SELECT 1 FROM backfills WHERE {_LIVE} LIMIT 1"))

    async def steps(self) -> dict[str, list[str]]:
        """The backfills that have something to do: each with its runs that have ended since, or that are to
        be cancelled before they start. Who has waited the longest comes first."""
        id, run_id = self._dialect.column("b.id"), self._dialect.column("x.run_id")
        ready = await self._backend.fetch(
            f"SELECT {id} FROM backfills AS b WHERE {_LIVE} AND is_ready ORDER BY update_time, id"
        )
        news = await self._backend.fetch(
            f"SELECT {id}, {run_id} FROM backfills AS b "
            "JOIN backfill_runs AS x ON x.backfill_id = b.id AND x.is_open "
            "LEFT JOIN runs AS r ON r.id = x.run_id "
            f"WHERE b.{_LIVE} AND (r.id IS NULL OR {_HAS_ENDED} OR ({_HAS_NOT_STARTED})) "
            f"ORDER BY b.update_time, b.id, x.fire_time LIMIT {_NEWS}"
        )
        read = self._dialect.read_id
        found: dict[str, list[str]] = {read(row[0]): [] for row in ready}
        for row in news:
            found.setdefault(read(row[0]), []).append(read(row[1]))
        return found
