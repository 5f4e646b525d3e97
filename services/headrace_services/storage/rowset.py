"""The rows of `entities` that one transaction works on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from headrace_services.storage.entities import VERSION, Entity, Key, Lock, Order, Where
from headrace_services.storage.steps import Steps, call

__all__ = ["RowWrites", "Rows"]

E = TypeVar("E", bound=Entity)


class RowWrites(NamedTuple):
    """What is written of one table, in this order.

    Attributes:
        deleted: rows that go.
        updated: rows that are there and have changed.
        inserted: rows that are new.
    """

    cls: type[Entity]
    deleted: Sequence[Entity]
    updated: Sequence[Entity]
    inserted: Sequence[Entity]

    def note_stored(self) -> None:
        """They are written."""
        for row in (*self.updated, *self.inserted):
            row.note_stored()


class Rows:
    """Loads rows, keeps one object for each, and writes those that were changed.

    A query is answered by the database, after what was changed in the same table has been written to it:
    so a command sees what the ones before it in the same transaction did.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[type[Entity], Key], Entity | None] = {}
        self._changed: dict[type[Entity], dict[Key, Entity]] = {}
        self._deleted: dict[type[Entity], dict[Key, Entity]] = {}
        self.has_written = False
        """Something was written before the transaction's end."""
        self.kept: dict[tuple[type[Entity], Key], Entity] = {}
        """Rows that were read with `Lock.KEEP`, as they were then."""
        self.written: set[type[Entity]] = set()
        """Tables in which rows were made, changed or deleted one by one."""

    @property
    def is_empty(self) -> bool:
        """Nothing was or will be written."""
        return not (self.has_written or any(self._changed.values()) or any(self._deleted.values()))

    def get(self, cls: type[E], *key: Any) -> E | None:
        """The row with the key, which was loaded or made in this transaction; None: there is none."""
        return cast("E | None", self._known[cls, key])

    def load(self, cls: type[E], keys: Iterable[Key], lock: Lock = Lock.CHANGE) -> Steps[None]:
        """Make `get` know about the keys: of tables whose key is one column all at once."""
        missing = sorted({key for key in keys if (cls, key) not in self._known})
        if not missing:
            return
        if len(cls.KEY) == 1:
            yield from self.find(cls, [(cls.KEY[0], "in", [key[0] for key in missing])], lock=lock)
        else:
            for key in missing:
                where = [(name, "=", value) for name, value in zip(cls.KEY, key, strict=True)]
                yield from self.find(cls, where, lock=lock)
        for key in missing:
            self._known.setdefault((cls, key), None)

    def find(
        self,
        cls: type[E],
        where: Where,
        *,
        order: Order = (),
        limit: int | None = None,
        lock: Lock = Lock.CHANGE,
    ) -> Steps[list[E]]:
        """The rows that meet the conditions, in the order, locked.

        Without an order it is that of the key, so that transactions that lock the same rows do not wait
        for each other in a ring.
        """
        yield from self._write(cls)
        found: list[E] = yield from call("find_rows", cls, where, order, limit, lock)
        rows = [self._same(row) for row in found]
        if lock is Lock.KEEP:
            self.kept.update(((cls, row.key), row) for row in rows)
        return rows

    def read(self, operation: str, tables: Collection[type[Entity]], *arguments: Any) -> Steps[Any]:
        """The answer of an operation that finds rows of several tables, unlocked: a tuple of lists."""
        for cls in tables:
            yield from self._write(cls)
        found = yield from call(operation, *arguments)
        return type(found)(*([self._same(row) for row in rows] for rows in found))

    def ask(self, operation: str, tables: Collection[type[Entity]], *arguments: Any) -> Steps[Any]:
        """The answer of an operation that looks at the tables and finds no rows."""
        for cls in tables:
            yield from self._write(cls)
        return (yield from call(operation, *arguments))

    def one(self, cls: type[E], where: Where, lock: Lock = Lock.CHANGE) -> Steps[E | None]:
        """The one row that meets the conditions, locked; None: there is none."""
        found = yield from self.find(cls, where, limit=1, lock=lock)
        return found[0] if found else None

    def put(self, row: Entity) -> None:
        """The row will be inserted, or updated."""
        changed = self._changed.setdefault(type(row), {})
        if row.key not in changed:
            changed[row.key] = row
            if hasattr(row, VERSION):
                setattr(row, VERSION, row.stored_version + 1)
        self._known[type(row), row.key] = row

    def delete(self, row: Entity) -> None:
        """The row will be deleted."""
        self._changed.get(type(row), {}).pop(row.key, None)
        self._known[type(row), row.key] = None
        if row.is_stored:
            self._deleted.setdefault(type(row), {})[row.key] = row

    def delete_where(self, cls: type[Entity], where: Where) -> Steps[None]:
        """Delete what meets the conditions, at once. Rows at hand may be among them no more."""
        yield from self._write(cls)
        for known in [known for known in self._known if known[0] is cls]:
            del self._known[known]
        self.has_written = True
        yield from call("delete_rows", cls, where)

    def discard(self, cls: type[Entity], keys: Iterable[Key]) -> None:
        """Forget the rows and what was changed in them: the rest of the transaction writes them."""
        changed = self._changed.get(cls, {})
        for key in keys:
            changed.pop(key, None)
            self._known.pop((cls, key), None)

    def take(self) -> Steps[list[RowWrites]]:
        """What is still to be written, for the one write at the end.

        Where a new row takes the place of a deleted one, that is written at once: one statement has no
        order.
        """
        for cls in list(self._deleted.keys() & self._changed.keys()):
            if not self._deleted[cls].keys().isdisjoint(self._changed[cls]):
                yield from self._write(cls)
        taken = [self._take(cls) for cls in list(self._deleted | self._changed)]
        return [writes for writes in taken if writes is not None]

    def _write(self, cls: type[Entity]) -> Steps[None]:
        writes = self._take(cls)
        if writes is not None:
            yield from call("write_rows", writes)
            writes.note_stored()

    def _take(self, cls: type[Entity]) -> RowWrites | None:
        deleted = self._deleted.pop(cls, {})
        changed = self._changed.pop(cls, {})
        if not deleted and not changed:
            return None
        self.written.add(cls)
        self.has_written = True
        updated = [row for row in changed.values() if row.is_stored]
        inserted = [row for row in changed.values() if not row.is_stored]
        return RowWrites(cls, list(deleted.values()), updated, inserted)

    def _same(self, row: E) -> E:
        """The object that stands for the row in this transaction."""
        known = self._known.get((type(row), row.key))
        if known is not None and known.stored_version == row.stored_version:
            return cast("E", known)
        self._known[type(row), row.key] = row
        return row
