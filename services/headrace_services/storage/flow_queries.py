"""Flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.errors import ObjectNotFound
from headrace.v1.flow_pb2 import Flow
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect, like
from headrace_services.storage.filters import ALL_TYPES, Conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.rows import WORKSPACE
from headrace_services.storage.steps import Row

__all__ = ["FlowQueries"]


class FlowQueries:
    """Flows, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect
        self._columns = f"{dialect.column('f.id')}, f.name, f.create_time"

    async def get(self, id: str | None, name: str | None) -> Flow:
        """The flow, without its last run.

        Raises:
            ObjectNotFound: there is none.
        """
        where = Conditions()
        where.add(f"f.workspace_id = {WORKSPACE}")
        if id is not None:
            where.add("f.id = ?", self._dialect.id(id.lower()))
        else:
            where.add("f.name = ?", name)
        rows = await self._backend.fetch(
            f"SELECT {self._columns} FROM flows AS f WHERE {where.sql}", where.parameters
        )
        if not rows:
            raise ObjectNotFound.of("flow", id or name or "")
        return self._flow(rows[0])

    async def page(self, name_contains: str, page_size: int, page_token: str) -> tuple[list[Flow], str]:
        """A page of flows by name, without their last runs."""
        key, limit = PageKey.of("flows", name_contains), page_limit(page_size)
        cursor = key.cursor(page_token, str)
        where = Conditions()
        where.add(f"f.workspace_id = {WORKSPACE}")
        if name_contains:
            where.add(self._dialect.contains("f.name"), like(name_contains))
        if cursor is not None:
            where.add("f.name > ?", cursor[0])
        sql = f"SELECT {self._columns} FROM flows AS f WHERE {where.sql} ORDER BY f.name LIMIT {limit + 1}"
        rows = await self._backend.fetch(sql, where.parameters)
        flows = [self._flow(row) for row in rows[:limit]]
        return flows, key.token([flows[-1].name]) if len(rows) > limit else ""

    async def newest_runs(self, flow_ids: Sequence[str]) -> list[str]:
        """Ids of the flows' newest runs."""
        if not flow_ids:
            return []
        # One look at the index per flow and type of state, instead of a walk over all runs of the flow.
        types = ", ".join(f"({type})" for type in ALL_TYPES)
        newest = (
            "SELECT r.id FROM runs AS r WHERE r.flow_id = f.id AND r.kind = 1 AND r.state_type = t.type "
            "ORDER BY r.create_time DESC, r.id DESC LIMIT 1"
        )
        sql = (
            f"WITH t (type) AS (VALUES {types}), candidates AS (SELECT f.id AS flow_id, ({newest}) AS id "
            f"FROM flows AS f CROSS JOIN t WHERE f.id IN ({', '.join('?' * len(flow_ids))})) "
            f"SELECT {self._dialect.column('r.id')}, {self._dialect.column('r.flow_id')} "
            "FROM candidates JOIN runs AS r ON r.id = candidates.id ORDER BY r.create_time, r.id"
        )
        parameters: list[Any] = [self._dialect.id(id) for id in flow_ids]
        rows = await self._backend.fetch(sql, parameters)
        newest_of = {row[1]: self._dialect.read_id(row[0]) for row in rows}
        return list(newest_of.values())

    def _flow(self, row: Row) -> Flow:
        flow = Flow(id=self._dialect.read_id(row[0]), name=row[1])
        set_micros(flow.create_time, row[2])
        return flow
