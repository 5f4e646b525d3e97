"""The few things in which hand-written queries differ between the databases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from headrace_services.storage.blobs import blob, from_blob
from headrace_services.storage.columns import RUN_COLUMNS, RUN_ID_COLUMNS
from headrace_services.storage.steps import Row

__all__ = ["POSTGRESQL", "SQLITE", "Dialect", "like"]


class Dialect:
    """How ids are written and read. Parameters are `?` on both."""

    name: str
    like: str

    def id(self, id: str) -> Any:
        """An id as a parameter."""
        raise NotImplementedError

    def read_id(self, value: Any) -> Any:
        """An id, or None, as it came."""
        raise NotImplementedError

    def column(self, name: str) -> str:
        """An id column in a list of results."""
        raise NotImplementedError

    def contains(self, column: str) -> str:
        """The condition that a text is like a pattern of `like`; the case of ASCII letters does not count."""
        return f"{column} {self.like} ? ESCAPE '\\'"

    def position(self, column: str) -> str:
        """Where a text begins in another, from 1; 0: nowhere. One parameter."""
        raise NotImplementedError

    def member(self, column: str) -> str:
        """The condition that a member of a JSON object of texts has a value; two parameters."""
        raise NotImplementedError

    def run_columns(self, table: str) -> str:
        """The columns of a `RunRow`."""
        names = (self.column(f"{table}.{c}") if c in RUN_ID_COLUMNS else f"{table}.{c}" for c in RUN_COLUMNS)
        return ", ".join(names)

    def run_row(self, row: Row) -> Row:
        """The values of a `RunRow`."""
        return row

    def ids(self, rows: Iterable[Row]) -> list[str]:
        """The ids in the first column."""
        return [self.read_id(row[0]) for row in rows]


class _Sqlite(Dialect):
    name = "sqlite"
    like = "LIKE"

    def id(self, id: str) -> bytes:
        return blob(id)

    def read_id(self, value: Any) -> Any:
        return from_blob(value)

    def column(self, name: str) -> str:
        return name

    def position(self, column: str) -> str:
        return f"instr({column}, ?)"

    def member(self, column: str) -> str:
        return f"EXISTS (SELECT 1 FROM json_each({column}) AS j WHERE j.key = ? AND j.value = ?)"

    def run_row(self, row: Row) -> Row:
        values = list(row)
        for position in _ID_POSITIONS:
            values[position] = from_blob(values[position])
        return tuple(values)


class _Postgresql(Dialect):
    name = "postgresql"
    like = "ILIKE"

    def id(self, id: str) -> str:
        return id

    def read_id(self, value: Any) -> Any:
        return value

    def column(self, name: str) -> str:
        return f"{name}::text"

    def position(self, column: str) -> str:
        return f"strpos({column}, ?)"

    def member(self, column: str) -> str:
        return f"({column}::jsonb ->> ?::text) = ?"


_ID_POSITIONS: Final[Sequence[int]] = [i for i, c in enumerate(RUN_COLUMNS) if c in RUN_ID_COLUMNS]
SQLITE: Final = _Sqlite()
POSTGRESQL: Final = _Postgresql()


def like(text: str) -> str:
    """A LIKE pattern, with `\\` as its escape, for what contains `text`."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
