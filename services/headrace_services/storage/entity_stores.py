"""The operations on rows of `entities`, for each of the two stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.entities import (
    Entity,
    Lock,
    Order,
    Table,
    Where,
    compile_delete,
    compile_find,
    row_from,
    row_values,
    table_of,
)
from headrace_services.storage.postgresql import Connection
from headrace_services.storage.rowset import RowWrites
from headrace_services.storage.steps import Conflict, Row

__all__ = ["PostgresqlEntities", "SqliteEntities", "numbered"]


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """`sql` with `$1, $2, ...` for its `?`s."""
    first, *rest = sql.split("?")
    return first + "".join(f"${i}{part}" for i, part in enumerate(rest, 1))


def _guarded(table: Table) -> list[str]:
    """The columns that say which row, as it was, is written."""
    return [*table.key, *(["version"] if table.is_versioned else [])]


def _stored(row: Entity, table: Table) -> Row:
    """The values of `_guarded` as the database should have them."""
    return (*row.key, row.stored_version) if table.is_versioned else row.key


class SqliteEntities:
    """Mixed into the SQLite store."""

    def _connected(self) -> sqlite3.Connection:
        raise NotImplementedError

    def find_rows(
        self, cls: type[Entity], where: Where, order: Order, limit: int | None, lock: Lock
    ) -> list[Entity]:
        rows = self._connected().execute(*compile_find(cls, SQLITE, where, order, limit, lock))
        return [row_from(cls, row, SQLITE) for row in rows.fetchall()]

    def delete_rows(self, cls: type[Entity], where: Where) -> None:
        self._connected().execute(*compile_delete(cls, SQLITE, where))

    def write_rows(self, writes: RowWrites) -> None:
        table = table_of(writes.cls)
        guard = " AND ".join(f"{name} = ?" for name in _guarded(table))
        guarded = _guarded(table)
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
            self._each(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", parameters)

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
        table = table_of(writes.cls)
        types = table.types
        guarded = _guarded(table)
        matched = " AND ".join(f"{table.name}.{name} = new.stored_{name}" for name in guarded)
        stored = [(f"stored_{name}", types[name]) for name in guarded]
        if writes.deleted:
            rows = [_stored(row, table) for row in writes.deleted]
            await _each(connection, f"DELETE FROM {table.name} USING {{rows}} WHERE {matched}", stored, rows)
        if writes.updated:
            assigned = ", ".join(f"{name} = new.{name}" for name in table.changing)
            columns = [*((name, types[name]) for name in table.changing), *stored]
            rows = [(*row_values(row, table.changing), *_stored(row, table)) for row in writes.updated]
            sql = f"UPDATE {table.name} SET {assigned} FROM {{rows}} WHERE {matched}"
            await _each(connection, sql, columns, rows)
        if writes.inserted:
            names = [name for name, _ in table.columns]
            listed = ", ".join(names)
            rows = [row_values(row, names) for row in writes.inserted]
            sql = f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {{rows}}"
            await _each(connection, sql, list(table.columns), rows)


async def _each(
    connection: Connection, sql: str, columns: Sequence[tuple[str, Any]], rows: Sequence[Row]
) -> None:
    """Run `sql`, in which `{rows}` stands for the rows, as a table with `columns` (name, type)."""
    places = ", ".join(f"${i}::{type}[]" for i, (_, type) in enumerate(columns, 1))
    names = ", ".join(name for name, _ in columns)
    arrays = [list(values) for values in zip(*rows, strict=True)]
    done = await connection.execute(sql.replace("{rows}", f"unnest({places}) AS new ({names})"), *arrays)
    if int(str(done).rpartition(" ")[2]) != len(rows):
        raise Conflict
