"""The operations on rows of `entities`, for each of the two stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.entities import (
    Entity,
    Lock,
    Order,
    Table,
    Where,
    compile_delete,
    compile_find,
    replacing,
    row_from,
    row_values,
    table_of,
)
from headrace_services.storage.postgresql import Connection
from headrace_services.storage.postgresql_statement import Part, Statement
from headrace_services.storage.rowset import RowWrites
from headrace_services.storage.steps import Conflict, Row

__all__ = ["PostgresqlEntities", "SqliteEntities", "numbered"]

E = TypeVar("E", bound=Entity)


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """`sql` with `$1, $2, ...` for its `?`s."""
    first, *rest = sql.split("?")
    return first + "".join(f"${i}{part}" for i, part in enumerate(rest, 1))


def _guarded(cls: type[Entity]) -> list[str]:
    """The columns that say which row, as it was, is written."""
    table = table_of(cls)
    return [*table.key, *(["version"] if table.is_versioned else []), *cls.GUARDS]


def _stored(row: Entity, table: Table) -> Row:
    """The values of `_guarded` as the database should have them."""
    return (*row.key, *((row.stored_version,) if table.is_versioned else ()), *row.stored_guards)


class SqliteEntities:
    """Mixed into the SQLite store."""

    def _connected(self) -> sqlite3.Connection:
        raise NotImplementedError

    def find_rows(self, cls: type[E], where: Where, order: Order, limit: int | None, lock: Lock) -> list[E]:
        rows = self._connected().execute(*compile_find(cls, SQLITE, where, order, limit, lock))
        return [row_from(cls, row, SQLITE) for row in rows.fetchall()]

    def delete_rows(self, cls: type[Entity], where: Where) -> None:
        self._connected().execute(*compile_delete(cls, SQLITE, where))

    def write_rows(self, writes: RowWrites) -> None:
        table = table_of(writes.cls)
        guarded = _guarded(writes.cls)
        guard = " AND ".join(f"{name} {'IS' if name in writes.cls.GUARDS else '='} ?" for name in guarded)
        if writes.deleted:
            parameters = [_blobs(table, guarded, _stored(row, table)) for row in writes.deleted]
            self._each(f"DELETE FROM {table.name} WHERE {guard}", parameters)
        if writes.updated:
            assigned = ", ".join(f"{name} = ?" for name in table.changing)
            parameters = [
                (
                    *_blobs(table, table.changing, row_values(row, table.changing)),
                    *_blobs(table, guarded, _stored(row, table)),
                )
                for row in writes.updated
            ]
            self._each(f"UPDATE {table.name} SET {assigned} WHERE {guard}", parameters)
        if writes.inserted:
            names = [name for name, _ in table.columns]
            parameters = [_blobs(table, names, row_values(row, names)) for row in writes.inserted]
            marks = ", ".join("?" * len(names))
            listed = ", ".join(names)
            sql = f"INSERT INTO {table.name} ({listed}) VALUES ({marks}){replacing(writes.cls)}"
            self._each(sql, parameters)

    def _each(self, sql: str, parameters: Sequence[Row]) -> None:
        if self._connected().executemany(sql, parameters).rowcount != len(parameters):
            raise Conflict


def _blobs(table: Table, names: Iterable[str], values: Row) -> Row:
    types = table.types
    return tuple(
        SQLITE.id(value) if types[name] == "uuid" and value is not None else value
        for name, value in zip(names, values, strict=True)
    )


class PostgresqlEntities:
    """Mixed into the PostgreSQL store."""

    async def find_rows(
        self,
        connection: Connection,
        cls: type[Entity],
        where: Where,
        order: Order,
        limit: int | None,
        lock: Lock,
    ) -> list[Entity]:
        sql, parameters = compile_find(cls, POSTGRESQL, where, order, limit, lock)
        rows = await connection.fetch(numbered(sql), *parameters)
        return [row_from(cls, row, POSTGRESQL) for row in rows]

    async def delete_rows(self, connection: Connection, cls: type[Entity], where: Where) -> None:
        sql, parameters = compile_delete(cls, POSTGRESQL, where)
        await connection.execute(numbered(sql), *parameters)

    async def write_rows(self, connection: Connection, writes: RowWrites) -> None:
        statement = Statement()
        self._add_rows(statement, writes)
        await statement.run(connection)

    def _add_rows(self, statement: Statement, writes: RowWrites) -> None:
        """Add what is written of one table; each row that was there must be as it was loaded."""
        parts, table = _parts(writes.cls), table_of(writes.cls)
        statement.add(parts.delete, [_stored(row, table) for row in writes.deleted], each=1)
        changing = table.changing
        updated = [(*row_values(row, changing), *_stored(row, table)) for row in writes.updated]
        statement.add(parts.update, updated, each=1)
        names = [name for name, _ in table.columns]
        statement.add(parts.insert, [row_values(row, names) for row in writes.inserted])

    def _add_kept(self, statement: Statement, kept: Mapping[type[Entity], Sequence[Entity]]) -> None:
        """Let the statement fail when one of the rows, which were not locked, is not as it was loaded."""
        for cls, rows in kept.items():
            statement.add(_parts(cls).keep, [_stored(row, table_of(cls)) for row in rows], each=1)


class _Parts(NamedTuple):
    """What is done with the rows of one table."""

    delete: Part
    update: Part
    insert: Part
    keep: Part


def _parts(cls: Any) -> _Parts:
    """The parts of a table's rows. Any: mypy takes the hash of the rows, who have none, for the class's."""
    return _made_parts(cls)


@cache
def _made_parts(cls: type[Entity]) -> _Parts:
    table = table_of(cls)
    name, types = table.name, table.types
    guarded = _guarded(cls)
    matched = " AND ".join(
        f"{name}.{column} {'IS NOT DISTINCT FROM' if column in cls.GUARDS else '='} new.stored_{column}"
        for column in guarded
    )
    stored = tuple((f"stored_{column}", types[column]) for column in guarded)
    changing = tuple((column, types[column]) for column in table.changing)
    assigned = ", ".join(f"{column} = new.{column}" for column, _ in changing)
    listed = ", ".join(column for column, _ in table.columns)
    return _Parts(
        Part(f"DELETE FROM {name} USING {{rows}} WHERE {matched} RETURNING 1", stored),
        Part(f"UPDATE {name} SET {assigned} FROM {{rows}} WHERE {matched} RETURNING 1", (*changing, *stored)),
        Part(f"INSERT INTO {name} ({listed}) SELECT {listed} FROM {{rows}}{replacing(cls)}", table.columns),
        Part(f"SELECT 1 FROM {{rows}} JOIN {name} ON {matched} FOR KEY SHARE OF {name}", stored),
    )
