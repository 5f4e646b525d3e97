"""Everything that a transaction writes on PostgreSQL, as one statement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg  # type: ignore[import-untyped]

from headrace_services.storage.postgresql import Connection
from headrace_services.storage.steps import Conflict, Row

__all__ = ["Columns", "Part", "Statement"]

Columns: TypeAlias = tuple[tuple[str, str], ...]
"""Names and types."""
_DIVISION_BY_ZERO: Final[Any] = asyncpg.DivisionByZeroError


class Part(NamedTuple):
    """What is done with the rows of one table.

    Attributes:
        sql: with `{rows}` for the rows, which are called `new`.
        columns: of these rows.
    """

    sql: str
    columns: Columns


class Statement:
    """One statement made of parts, each with rows of its own.

    They all see the tables as they were before it.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._rows: list[Sequence[Row]] = []
        # By the place of a part: how many rows it must return.
        self._expected: dict[int, int] = {}

    def add(self, part: Part, rows: Sequence[Row], *, each: int | None = None) -> None:
        """Add a part, unless there are no rows for it.

        Args:
            each: how many rows the part must return for each of its rows; None: it may be any number.
        """
        if not rows:
            return
        if each is not None:
            self._expected[len(self._parts)] = each * len(rows)
        self._parts.append(part)
        self._rows.append(rows)

    async def run(self, connection: Connection) -> None:
        """Run it: all of it comes about, or nothing.

        Raises:
            Conflict: a part met another number of rows than was expected; nothing is written.
        """
        if not self._parts:
            return
        # One row is the hurry of one run, and costs half as much as a column of scalars than as arrays.
        is_single = all(len(rows) == 1 for rows in self._rows)
        sql = _compose(tuple(self._parts), tuple(self._expected), is_single)
        parameters: list[Any] = []
        for rows in self._rows:
            parameters.extend(rows[0] if is_single else map(list, zip(*rows, strict=True)))
        try:
            await connection.fetchrow(sql, *parameters, *self._expected.values())
        except _DIVISION_BY_ZERO:
            raise Conflict from None


@lru_cache(maxsize=256)
def _compose(parts: tuple[Part, ...], counted: tuple[int, ...], is_single: bool) -> str:
    """The statement's text: counts that differ from the last parameters make it fail.

    Outside of a transaction a statement that fails leaves nothing behind, so that it need not be in one.
    """
    texts: list[str] = []
    place = 1
    for part in parts:
        texts.append(part.sql.replace("{rows}", _rows(part.columns, place, is_single)))
        place += len(part.columns)
    checks = [f"(SELECT count(*) FROM part{index}) = ${place + i}" for i, index in enumerate(counted)]
    named = ", ".join(f"part{i} AS ({text})" for i, text in enumerate(texts))
    return f"WITH {named} SELECT 1 / ({' AND '.join(checks) or 'true'})::int"


def _rows(columns: Columns, first: int, is_single: bool) -> str:
    """The rows as a table: of the parameters from number `first` on."""
    if is_single:
        values = (f"${place}::{type} AS {name}" for place, (name, type) in enumerate(columns, first))
        return f"(SELECT {', '.join(values)}) AS new"
    names = ", ".join(name for name, _ in columns)
    places = ", ".join(f"${place}::{type}[]" for place, (_, type) in enumerate(columns, first))
    return f"unnest({places}) AS new ({names})"
