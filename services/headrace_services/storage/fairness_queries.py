"""Rules of fairness keys, read: with what waits and runs under each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.clock import Clock
from headrace.v1.work_pool_pb2 import FairnessRule
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entity_queries import find_rows
from headrace_services.storage.fairness_rows import FairnessRuleRow, rule_message
from headrace_services.storage.filters import Conditions
from headrace_services.storage.pages import PageKey, page_limit

__all__ = ["FairnessQueries"]


class FairnessQueries:
    """Rules of fairness keys, read.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, dialect: Dialect, clock: Clock) -> None:
        self._backend = backend
        self._dialect = dialect
        self._clock = clock

    async def get(self, work_pool: str, fairness_key: str) -> FairnessRule | None:
        """The rule of the key; None: it has none."""
        where = [("work_pool", "=", work_pool), ("fairness_key", "=", fairness_key)]
        rows = await find_rows(self._backend, self._dialect, FairnessRuleRow, where)
        return (await self._shown(rows))[0] if rows else None

    async def page(self, work_pool: str, page_size: int, page_token: str) -> tuple[list[FairnessRule], str]:
        """A page of rules by pool and key, and the token of the next. An empty pool means all."""
        key, limit = PageKey.of("fairness rules", work_pool), page_limit(page_size)
        cursor = key.cursor(page_token, str, str)
        pools: list[tuple[str, str, Any]] = [("work_pool", "=", work_pool)] if work_pool else []
        rows: list[FairnessRuleRow] = []
        after = pools
        if cursor is not None:
            rows = await self._find(
                [*pools, ("work_pool", "=", cursor[0]), ("fairness_key", ">", cursor[1])], limit + 1
            )
            after = [*pools, ("work_pool", ">", cursor[0])]
        if len(rows) <= limit:
            rows += await self._find(after, limit + 1 - len(rows))
        last = rows[limit - 1] if len(rows) > limit else None
        token = key.token([last.work_pool, last.fairness_key]) if last is not None else ""
        return await self._shown(rows[:limit]), token

    async def _find(self, where: Sequence[tuple[str, str, Any]], limit: int) -> list[FairnessRuleRow]:
        order = ["work_pool", "fairness_key"]
        return await find_rows(self._backend, self._dialect, FairnessRuleRow, where, order, limit)

    async def _shown(self, rows: Sequence[FairnessRuleRow]) -> list[FairnessRule]:
        pools = sorted({row.work_pool for row in rows})
        keys = sorted({row.fairness_key for row in rows})
        if not rows:
            return []
        held, queued = Conditions(), Conditions()
        held.among("subject", pools)
        held.among("fairness_key", keys)
        queued.among("l.subject", pools)
        queued.among("q.fairness_key", keys)
        queued.add("q.due_time <= ?", self._clock.now())
        holding = await self._counts(
            "SELECT subject, fairness_key, count(*) FROM attempt_holders WHERE kind = 1 "
            f"AND {held.sql} GROUP BY subject, fairness_key",
            held,
        )
        waiting = await self._counts(
            "SELECT l.subject, q.fairness_key, count(*) FROM run_queue AS q "
            "JOIN queue_routes AS l ON l.id = q.route WHERE l.kind = 1 "
            f"AND {queued.sql} GROUP BY l.subject, q.fairness_key",
            queued,
        )
        shown = [rule_message(row) for row in rows]
        for rule in shown:
            key = (rule.work_pool, rule.fairness_key)
            rule.held_runs, rule.queued_runs = holding.get(key, 0), waiting.get(key, 0)
        return shown

    async def _counts(self, sql: str, where: Conditions) -> dict[tuple[str, str], int]:
        rows = await self._backend.fetch(sql, where.parameters)
        return {(row[0], row[1]): row[2] for row in rows}
