"""Lists of runs that stay quick over millions of them.

A page is merged from ranges, each of which an index has in the wanted order: one per kind and type of
state (and per tag, per flow). However rare or common a filter is, what it asks of an index is a few
dozen rows from the right place, and a planner that guesses wrong has nothing to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from headrace.v1.run_pb2 import RUN_KIND_FLOW, RunFilter
from headrace.v1.run_service_pb2 import (
    RUN_ORDER_CREATE_TIME_ASC,
    RUN_ORDER_CREATE_TIME_DESC,
    RUN_ORDER_EXPECTED_START_ASC,
    RUN_ORDER_NAME_ASC,
    RUN_ORDER_START_TIME_DESC,
)
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.filters import ALL_KINDS, ALL_TYPES, Conditions, has_tag, run_conditions
from headrace_services.storage.pages import Cursor
from headrace_services.storage.rows import WORKSPACE, flow_id_of

__all__ = ["Path", "RunOrdering", "RunQuery", "ordering_of"]

_MOST_RANGES: Final = 64
_MOST_PARAMETERS: Final = 20_000
_TELLING_PREFIX: Final = 8
"""So many digits of an id are a minute's worth of runs."""


@dataclass(frozen=True, slots=True)
class RunOrdering:
    """What a list is ordered by, the id last.

    Attributes:
        column: of runs.
        descending: the largest first.
        type: of the column's values.
        nullable: some runs have no value; they come last.
    """

    column: str
    descending: bool
    type: type
    nullable: bool = False


_ORDERINGS: Final[Mapping[int, RunOrdering]] = {
    RUN_ORDER_CREATE_TIME_DESC: RunOrdering("create_time", True, int),
    RUN_ORDER_CREATE_TIME_ASC: RunOrdering("create_time", False, int),
    RUN_ORDER_EXPECTED_START_ASC: RunOrdering("expected_start_time", False, int, nullable=True),
    RUN_ORDER_START_TIME_DESC: RunOrdering("start_time", True, int, nullable=True),
    RUN_ORDER_NAME_ASC: RunOrdering("name", False, str),
}


def ordering_of(order: int) -> RunOrdering:
    """The ordering with that number on the wire; newest first for one that is not known."""
    return _ORDERINGS.get(order, _ORDERINGS[RUN_ORDER_CREATE_TIME_DESC])


# A join that SQLite does not turn round.
_TAGGED_RUNS: Final = "run_tags AS t CROSS JOIN runs AS r"


@dataclass(frozen=True, slots=True)
class Path:
    """A way to the runs of a filter: along some tags, or along flows, or, with neither, along all runs.

    Attributes:
        tags: runs that have any of them are walked.
        flow_ids: runs of these flows are walked; as parameters.
    """

    tags: tuple[str, ...] = ()
    flow_ids: tuple[Any, ...] = ()


_ALONG_ALL: Final = Path()


@dataclass(frozen=True, slots=True)
class _Range:
    """Rows that one index has in order: the table to walk, and what holds for its rows."""

    source: str
    where: Conditions
    table: str = "r"

    @property
    def id(self) -> str:
        """The run's id in the table that is walked."""
        return "r.id" if self.table == "r" else "t.run_id"


class RunQuery:
    """The statements for one filter."""

    def __init__(self, filter: RunFilter, dialect: Dialect) -> None:
        self._filter = filter
        self._dialect = dialect
        self._conditions = run_conditions(filter, dialect)
        kinds = {int(kind) for kind in filter.kinds}
        self._kinds = tuple(sorted(kinds & set(ALL_KINDS))) or ALL_KINDS
        self._types = tuple(sorted({int(type) for type in filter.state_types})) or ALL_TYPES
        self.is_empty = bool(kinds) and not kinds & set(ALL_KINDS)
        named = filter.ids or filter.root_run_ids or filter.parent_run_ids
        self._is_bounded = bool(named) or len(filter.id_prefix) >= _TELLING_PREFIX

    # Ways

    def paths(self, ordering: RunOrdering | None = None) -> list[Path]:
        """Ways to the runs that may be much shorter than the one along all of them.

        Args:
            ordering: of the list; None: no order is needed.
        """
        if self._is_bounded or (ordering is not None and ordering.column != "create_time"):
            return []
        found = [Path(tags=(tag,)) for tag in self._filter.tags_all]
        if self._filter.tags_any:
            found.append(Path(tags=tuple(dict.fromkeys(self._filter.tags_any))))
        # The index of flows holds flow runs only.
        if self._filter.flow_names and self._kinds == (int(RUN_KIND_FLOW),):
            ids = (self._dialect.id(flow_id_of(name)) for name in dict.fromkeys(self._filter.flow_names))
            found.append(Path(flow_ids=tuple(ids)))
        ranges = len(self._kinds) * len(self._types)
        return [p for p in found if ranges * max(len(p.tags), len(p.flow_ids)) <= _MOST_RANGES]

    def sizes(self, paths: Sequence[Path], most: int) -> tuple[str, list[Any]]:
        """How many runs lie on each way, counted up to `most`: (place of the way, count)."""
        parts: list[str] = []
        parameters: list[Any] = []
        for place, path in enumerate(paths):
            where = self._tag_range(path.tags) if path.tags else self._flow_scope(path.flow_ids, self._types)
            source = "run_tags AS t" if path.tags else "runs AS r"
            counted = f"SELECT 1 FROM {source} WHERE {where.sql} LIMIT {most}"
            parts.append(f"SELECT {place}, count(*) FROM ({counted}) AS c{place}")
            parameters.extend(where.parameters)
        return " UNION ALL ".join(parts), parameters

    def _tag_range(self, tags: Sequence[str]) -> Conditions:
        """The rows of the tags, for the kinds and types of the filter."""
        where = Conditions()
        where.add(f"t.workspace_id = {WORKSPACE}")
        where.among("t.tag", tags)
        where.among("t.kind", self._kinds)
        where.among("t.state_type", self._types)
        return where

    # Pages

    def page(
        self, ordering: RunOrdering, cursor: Cursor | None, limit: int, path: Path
    ) -> tuple[str, list[Any]]:
        """The rows of a page: the columns of `RunRow`, the current state, the value ordered by.

        Args:
            ordering: of the list.
            cursor: the last run of the page before: its value and its id.
            limit: how many rows.
            path: the way to take, from `paths`, or the one along all runs.
        """
        found: list[str] = []
        parameters: list[Any] = []
        for part in self._ranges(ordering, path):
            for where in self._after(part, ordering, cursor):
                found.append(
                    f"SELECT * FROM (SELECT {part.id} AS id, {part.table}.{ordering.column} AS value "
                    f"FROM {part.source} WHERE {where.sql} ORDER BY {self._sort(ordering, part.table)} "
                    f"LIMIT {limit}) AS p{len(found)}"
                )
                parameters.extend(where.parameters)
        # A run with several of the tags lies on several ranges.
        union = " UNION " if len(path.tags) > 1 else " UNION ALL "
        direction = "DESC" if ordering.descending else "ASC"
        empty_last = "{0}value IS NULL, " if ordering.nullable else ""
        order = f"{empty_last}{{0}}value {direction}, {{0}}id {direction}"
        sql = (
            f"WITH page AS (SELECT id, value FROM ({union.join(found)}) AS merged "
            f"ORDER BY {order.format('')} LIMIT {limit}) "
            f"SELECT {self._dialect.run_columns('r')}, s.body, page.value "
            "FROM page JOIN runs AS r ON r.id = page.id "
            "LEFT JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
            f"ORDER BY {order.format('page.')}"
        )
        return sql, parameters

    def _sort(self, ordering: RunOrdering, table: str) -> str:
        direction = "DESC" if ordering.descending else "ASC"
        id = "id" if table == "r" else "run_id"
        return f"{table}.{ordering.column} {direction}, {table}.{id} {direction}"

    def _besides(self, path: Path) -> Conditions:
        """What the runs on the way must be besides being on it, but for their kind and type of state."""
        conditions = self._conditions.copy()
        for tag in self._filter.tags_all:
            if path.tags != (tag,):
                has_tag(conditions, [tag])
        any_of = tuple(dict.fromkeys(self._filter.tags_any))
        if any_of and path.tags != any_of:
            has_tag(conditions, any_of)
        return conditions

    def _ranges(self, ordering: RunOrdering, path: Path) -> list[_Range]:
        conditions = self._besides(path)
        if path.tags:
            ranges = self._tag_ranges(path.tags, conditions)
        else:
            ranges = self._run_ranges(ordering, path.flow_ids, conditions)
        # Each range repeats the parameters, and statements can have only so many.
        if sum(len(part.where.parameters) for part in ranges) <= _MOST_PARAMETERS:
            return ranges
        return [_Range("runs AS r", self._everything())]

    def _everything(self) -> Conditions:
        """The whole filter."""
        where = self._scope(self._kinds, self._types)
        where.extend(self._conditions)
        for tag in self._filter.tags_all:
            has_tag(where, [tag])
        if self._filter.tags_any:
            has_tag(where, list(self._filter.tags_any))
        return where

    def _scope(self, kinds: Sequence[int], types: Sequence[int]) -> Conditions:
        """The workspace, kinds and types of state.

        A filter that names ids, roots or parents has an index that leads there at once. A sign before
        the other columns keeps them out of the choice: without statistics, which SQLite does not have,
        the index with the most columns would be taken, and all runs of a kind be walked.
        """
        sign = "+" if self._is_bounded else ""
        where = Conditions()
        where.add(f"{sign}r.workspace_id = {WORKSPACE}")
        if len(kinds) < len(ALL_KINDS):
            where.add(f"{sign}r.kind = {kinds[0]}")
        if len(types) < len(ALL_TYPES):
            where.add(f"{sign}r.state_type IN ({', '.join(map(str, types))})")
        return where

    def _tag_ranges(self, tags: Sequence[str], conditions: Conditions) -> list[_Range]:
        """Along the index of tags; the run itself is looked at only if something else is asked of it."""
        source = _TAGGED_RUNS if conditions.parts else "run_tags AS t"
        ranges: list[_Range] = []
        for tag, kind, type in product(tags, self._kinds, self._types):
            where = Conditions()
            where.add(f"t.workspace_id = {WORKSPACE} AND t.tag = ?", tag)
            where.add(f"t.kind = {kind} AND t.state_type = {type}")
            if conditions.parts:
                where.add("r.id = t.run_id")
            where.extend(conditions)
            ranges.append(_Range(source, where, "t"))
        return ranges

    def _run_ranges(
        self, ordering: RunOrdering, flow_ids: Sequence[Any], conditions: Conditions
    ) -> list[_Range]:
        """Along an index of runs: one that begins with the type of state, if that is the order's."""
        by_type = ordering.column == "create_time" and not self._is_bounded
        types = [(type,) for type in self._types] if by_type else [self._types]
        ranges: list[_Range] = []
        for kind, some, flow_id in product(self._kinds, types, flow_ids or (None,)):
            if flow_id is None:
                where = self._scope((kind,), some)
            else:
                where = self._flow_scope((flow_id,), some)
            where.extend(conditions)
            ranges.append(_Range("runs AS r", where))
        return ranges

    def _flow_scope(self, flow_ids: Sequence[Any], types: Sequence[int]) -> Conditions:
        """Flow runs of the flows. A flow is of one workspace; naming it would lead to all runs."""
        where = Conditions()
        where.among("r.flow_id", flow_ids)
        where.add("r.kind = 1")
        if len(types) < len(ALL_TYPES):
            where.add(f"r.state_type IN ({', '.join(map(str, types))})")
        return where

    def _after(self, part: _Range, ordering: RunOrdering, cursor: Cursor | None) -> list[Conditions]:
        """The part after the cursor: where values are, and, for nullable orderings, where none are."""
        column, id = f"{part.table}.{ordering.column}", part.id
        if not ordering.nullable:
            where = part.where.copy()
            if cursor is not None:
                self._beyond(where, column, id, ordering, cursor)
            return [where]
        with_value, without = part.where.copy(), part.where.copy()
        with_value.add(f"{column} IS NOT NULL")
        without.add(f"{column} IS NULL")
        if cursor is None:
            return [with_value, without]
        if cursor[0] is None:
            sign = "<" if ordering.descending else ">"
            without.add(f"{id} {sign} ?", self._dialect.id(str(cursor[1])))
            return [without]
        self._beyond(with_value, column, id, ordering, cursor)
        return [with_value, without]

    def _beyond(self, where: Conditions, column: str, id: str, ordering: RunOrdering, cursor: Cursor) -> None:
        sign = "<" if ordering.descending else ">"
        value, last = cursor[0], self._dialect.id(str(cursor[1]))
        where.add(f"{column} {sign}= ?", value)
        where.add(f"({column}, {id}) {sign} (?, ?)", value, last)

    # Counts

    def counted(self, bucket: str = "0", path: Path = _ALONG_ALL) -> tuple[str, list[Any]]:
        """How many runs there are by type of state: (bucket, type, count).

        Args:
            bucket: an expression, in which `{0}` is the table with the create time.
            path: the way to take, from `paths`, or the one along all runs.
        """
        table, source = "r", "runs AS r"
        if len(path.tags) == 1:
            table, source, where = "t", *self._tagged(path.tags[0])
        elif path.flow_ids:
            where = self._flow_scope(path.flow_ids, self._types)
            where.extend(self._besides(path))
        else:
            where = self._everything()
        sql = (
            f"SELECT {bucket.format(table)} AS bucket, {table}.state_type, count(*) FROM {source} "
            f"WHERE {where.sql} GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return sql, where.parameters

    def _tagged(self, tag: str) -> tuple[str, Conditions]:
        """The runs of one tag: the tables, and the whole filter."""
        besides = self._besides(Path(tags=(tag,)))
        where = self._tag_range((tag,))
        if not besides.parts:
            return "run_tags AS t", where
        where.add("r.id = t.run_id")
        where.extend(besides)
        return _TAGGED_RUNS, where
