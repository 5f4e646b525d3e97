"""Rows of `entities`, read outside of any transaction."""

from __future__ import annotations

from typing import TypeVar

from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.entities import Entity, Order, Where, compile_find, row_from

__all__ = ["find_rows"]

E = TypeVar("E", bound=Entity)


async def find_rows(
    backend: Backend,
    dialect: Dialect,
    cls: type[E],
    where: Where,
    order: Order = (),
    limit: int | None = None,
) -> list[E]:
    """The rows that meet the conditions.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    rows = await backend.fetch(*compile_find(cls, dialect, where, order, limit))
    return [row_from(cls, row, dialect) for row in rows]
