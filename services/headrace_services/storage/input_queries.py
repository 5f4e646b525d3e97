"""What runs were told, and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.v1.run_service_pb2 import RunInput
from headrace_services.storage.backends import Backend
from headrace_services.storage.change_queries import after_position
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.filters import Conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.outbox import format_position, parse_position
from headrace_services.storage.pages import PageKey
from headrace_services.storage.steps import Row

__all__ = ["InputQueries"]

_COLUMNS: Final = "i.key, i.value, i.sender, i.create_time, i.xid, i.seq"
_PAGE: Final = 40
"""A page must fit into a message, with 64 KiB for each input."""
_START: Final = format_position((0, 0), "inputs")


class InputQueries:
    """Run inputs and timers, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def page(
        self, run_id: str, prefix: str, keys: Sequence[str], page_size: int, page_token: str
    ) -> tuple[list[RunInput], str]:
        """See `Reader.list_inputs`."""
        filter = "\0".join((run_id.lower(), prefix, *keys))
        key, limit = PageKey.of("inputs", filter), min(page_size or _PAGE, _PAGE)
        cursor = key.cursor(page_token, int, int)
        where = self._of_run(run_id, prefix)
        where.among("i.key", keys)
        if cursor is not None:
            where.add("(i.xid, i.seq) > (?, ?)", *cursor)
        rows = await self._fetch(where, limit + 1)
        found = [_input(run_id, row) for row in rows[:limit]]
        return found, key.token([rows[limit - 1][4], rows[limit - 1][5]]) if len(rows) > limit else ""

    async def since(self, run_id: str, prefix: str, token: str, limit: int) -> tuple[list[RunInput], str]:
        """See `Reader.inputs_since`."""
        position = parse_position(token or _START, "inputs")
        where = self._of_run(run_id, prefix)
        where.add(after_position(self._dialect, "i"), *position)
        rows = await self._fetch(where, limit)
        if rows:
            position = (rows[-1][4], rows[-1][5])
        return [_input(run_id, row) for row in rows], format_position(position, "inputs")

    def _of_run(self, run_id: str, prefix: str) -> Conditions:
        where = Conditions()
        where.add("i.run_id = ?", self._dialect.id(run_id.lower()))
        if prefix:
            where.add("substr(i.key, 1, ?) = ?", len(prefix), prefix)
        return where

    async def _fetch(self, where: Conditions, limit: int) -> list[Row]:
        sql = f"SELECT {_COLUMNS} FROM run_inputs AS i WHERE {where.sql} ORDER BY i.xid, i.seq LIMIT {limit}"
        return [tuple(row) for row in await self._backend.fetch(sql, where.parameters)]

    async def due(self, kind: int, until: int, limit: int) -> list[tuple[str, str, int]]:
        """See `Reader.due_timers`."""
        columns = ", ".join(self._dialect.column(name) for name in ("run_id", "state_id"))
        rows: Sequence[Any] = await self._backend.fetch(
            f"SELECT {columns}, due_time FROM timers WHERE kind = ? AND due_time <= ? "
            f"ORDER BY due_time LIMIT {limit}",
            (kind, until),
        )
        read = self._dialect.read_id
        return [(read(row[0]), read(row[1]), row[2]) for row in rows]


def _input(run_id: str, row: Row) -> RunInput:
    said = RunInput(run_id=run_id.lower(), key=row[0], value=row[1].decode(), sender=row[2])
    set_micros(said.create_time, row[3])
    return said
