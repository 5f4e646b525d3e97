"""What a claim must know of sessions, pools, queues and lines, read in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from headrace_services.storage.declared_rows import WorkPoolRow, WorkQueueRow
from headrace_services.storage.dialects import POSTGRESQL
from headrace_services.storage.dispatch_rows import RouteRow, SessionRow
from headrace_services.storage.entities import Entity, row_from, table_of

__all__ = ["LINES", "PG_LINES", "Lines", "lines_from"]

LINES: Final[tuple[type[Entity], ...]] = (SessionRow, WorkPoolRow, WorkQueueRow, RouteRow)
"""The tables, in the order of `Lines`."""


class Lines(NamedTuple):
    """What was found, by table, each in the order of its key.

    Attributes:
        sessions: that offer to take runs.
        pools: that they serve.
        queues: of these pools.
        routes: every line from which such a session may take.
    """

    sessions: list[SessionRow]
    pools: list[WorkPoolRow]
    queues: list[WorkQueueRow]
    routes: list[RouteRow]


_WHERE: Final = (
    "id = ANY($1::uuid[])",
    "name = ANY($2::text[])",
    "pool_id IN (SELECT id FROM work_pools WHERE name = ANY($2::text[]))",
    "(kind, subject) IN (SELECT * FROM unnest($3::smallint[], $4::text[]))",
)


def _rows(cls: type[Entity], where: str) -> str:
    table = table_of(cls)
    names = ", ".join(POSTGRESQL.column(name) if type == "uuid" else name for name, type in table.columns)
    return f"ARRAY(SELECT ROW({names}) FROM {table.name} WHERE {where} ORDER BY {', '.join(table.key)})"


PG_LINES: Final = f"SELECT {', '.join(map(_rows, LINES, _WHERE))}"
"""For ids of sessions, names of pools, and the kinds and subjects of lines."""


def lines_from(row: Sequence[Any]) -> Lines:
    """The answer to `PG_LINES`."""
    found: list[Any] = [
        [row_from(cls, values, POSTGRESQL) for values in rows] for cls, rows in zip(LINES, row, strict=True)
    ]
    return Lines(*found)
