"""Rows of tables that need nothing of their own but to be found, changed and deleted.

A row is a dataclass whose fields are the columns, in the table's order. `rowset.Rows` loads and writes
them within a transaction, `entity_queries` reads them outside of one; both compile the same conditions for
both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeAlias, TypeVar

from headrace_services.storage.dialects import Dialect, like
from headrace_services.storage.steps import Row

__all__ = [
    "VERSION",
    "ColumnType",
    "Entity",
    "Key",
    "Lock",
    "Order",
    "Table",
    "Where",
    "column",
    "compile_delete",
    "compile_find",
    "replacing",
    "row_from",
    "row_values",
    "table_of",
]

ColumnType = Literal["uuid", "text", "bigint", "int", "smallint", "bool", "bytea"]
Key: TypeAlias = tuple[Any, ...]
Where: TypeAlias = Sequence[tuple[str, str, Any]]
"""Conditions (column, operator, value) that all hold; an operator is `=`, `<>`, `<`, `<=`, `>`, `>=`,
`in` with a list, `contains` with text whatever its case, `holds` and `begins` with text as it is, or `is`
with None or, for what is not null, True."""
Order: TypeAlias = Sequence[str]
"""Columns, each with ` DESC` behind it or not."""

VERSION: Final = "version"
"""The column that grows with every write of its row."""
_OPERATORS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})


class Lock(Enum):
    """What other transactions may not do to the rows until this one ends. SQLite has one at a time anyway."""

    NONE = ""
    KEEP = "FOR KEY SHARE"
    """They cannot be deleted: for what refers to them."""
    CHANGE = "FOR NO KEY UPDATE"
    """They cannot be changed."""
    OWN = "FOR UPDATE"
    """Nobody can even `KEEP` them: for whoever deletes them with what refers to them."""
    CLAIM = "FOR NO KEY UPDATE SKIP LOCKED"
    """As `CHANGE`; rows that are locked are passed over."""


def column(type: ColumnType, **default: Any) -> Any:
    """A field that is a column of `type`."""
    return field(metadata={"type": type}, **default)


@dataclass(slots=True)
class Entity:
    """One row. A subclass is a dataclass with slots and has `TABLE`, `KEY` and its columns.

    A column `version` grows with every write, and an update that was decided on another version is a
    conflict. A table without one has rows that are only made and deleted, or that are locked when read.

    Attributes:
        is_stored: the row is in the database.
        stored_version: its version there.
        stored_guards: what its `GUARDS` are there.
    """

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]
    REPLACES: ClassVar[bool] = False
    """A new row takes the place of the one that has its key, if there is one."""
    GUARDS: ClassVar[tuple[str, ...]] = ()
    """In place of a version: columns that an update expects as they were loaded."""

    is_stored: bool = field(default=False, kw_only=True)
    stored_version: int = field(default=0, kw_only=True)
    stored_guards: tuple[Any, ...] = field(default=(), kw_only=True)

    @property
    def key(self) -> Key:
        """The values of the primary key."""
        return tuple(getattr(self, name) for name in self.KEY)

    @classmethod
    def loaded(cls, values: Iterable[Any]) -> Self:
        """A row as the database has it."""
        row = cls(*values)
        row.note_stored()
        return row

    def note_stored(self) -> None:
        """The row is in the database as it is now."""
        self.is_stored, self.stored_version = True, getattr(self, VERSION, 0)
        self.stored_guards = tuple(getattr(self, name) for name in self.GUARDS)


E = TypeVar("E", bound=Entity)


class Table(NamedTuple):
    """What the statements of a table are made of.

    Attributes:
        name: of the table.
        key: columns of the primary key.
        columns: (name, type) in the order of the fields.
        is_versioned: there is a column `version`.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, ColumnType], ...]
    is_versioned: bool

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of each column."""
        return dict(self.columns)

    @property
    def changing(self) -> list[str]:
        """The columns that an update may change."""
        return [name for name, _ in self.columns if name not in self.key]


_tables: Final[dict[type[Entity], Table]] = {}


def table_of(cls: type[Entity]) -> Table:
    """The table of a class of rows."""
    known = _tables.get(cls)
    if known is not None:
        return known
    columns = tuple((f.name, f.metadata["type"]) for f in fields(cls) if "type" in f.metadata)
    table = _tables[cls] = Table(cls.TABLE, cls.KEY, columns, any(name == VERSION for name, _ in columns))
    return table


def row_values(row: Entity, names: Iterable[str]) -> Row:
    """The values of these columns."""
    return tuple(getattr(row, name) for name in names)


def row_from(cls: type[E], values: Sequence[Any], dialect: Dialect) -> E:
    """The row, of all its columns as the database gave them."""
    if dialect.name == "postgresql":
        return cls.loaded(values)
    read = [
        dialect.read_id(value) if type == "uuid" else bool(value) if type == "bool" else value
        for (_, type), value in zip(table_of(cls).columns, values, strict=True)
    ]
    return cls.loaded(read)


def compile_find(
    cls: type[Entity],
    dialect: Dialect,
    where: Where,
    order: Order = (),
    limit: int | None = None,
    lock: Lock = Lock.NONE,
) -> tuple[str, list[Any]]:
    """The query, with `?` for its parameters."""
    table = table_of(cls)
    names = ", ".join(dialect.column(name) if type == "uuid" else name for name, type in table.columns)
    conditions, parameters = _compile_where(table, dialect, where)
    by = ", ".join(order or table.key)
    sql = f"SELECT {names} FROM {table.name} WHERE {conditions} ORDER BY {by}"
    if limit is not None:
        sql += f" LIMIT {int(limit)}"
    if lock is not Lock.NONE and dialect.name == "postgresql":
        sql += f" {lock.value}"
    return sql, parameters


def replacing(cls: type[Entity]) -> str:
    """The end of an INSERT: what becomes of a row that has the key already."""
    table = table_of(cls)
    if not cls.REPLACES:
        return ""
    assigned = ", ".join(f"{name} = excluded.{name}" for name in table.changing)
    return f" ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {assigned}"


def compile_delete(cls: type[Entity], dialect: Dialect, where: Where) -> tuple[str, list[Any]]:
    """The statement that deletes what meets the conditions."""
    table = table_of(cls)
    conditions, parameters = _compile_where(table, dialect, where)
    return f"DELETE FROM {table.name} WHERE {conditions}", parameters


def _compile_where(table: Table, dialect: Dialect, where: Where) -> tuple[str, list[Any]]:
    parts: list[str] = []
    parameters: list[Any] = []
    types = table.types
    for name, operator, value in where:
        type = types[name]
        if operator == "is":
            parts.append(f"{name} IS {'NOT ' if value else ''}NULL")
        elif operator == "in":
            values = [dialect.id(item) if type == "uuid" else item for item in value]
            if dialect.name == "postgresql":
                parts.append(f"{name} = ANY(?::{type}[])")
                parameters.append(values)
            else:
                parts.append(f"{name} IN ({', '.join('?' * len(values))})")
                parameters.extend(values)
        elif operator == "contains":
            parts.append(dialect.contains(name))
            parameters.append(like(value))
        elif operator in ("holds", "begins"):
            parts.append(dialect.position(name) + (" = 1" if operator == "begins" else " > 0"))
            parameters.append(value)
        elif operator in _OPERATORS:
            parts.append(f"{name} {operator} ?")
            parameters.append(dialect.id(value) if type == "uuid" else value)
        else:
            raise ValueError(f"{operator!r} is no operator")
    return " AND ".join(parts) or "1 = 1", parameters
