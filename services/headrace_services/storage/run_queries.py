"""Lists of runs that stay quick over millions of them.

A page is merged from ranges, each of which an index has in the wanted order: one per kind and type of
state (and per tag, per flow). However rare or common a filter is, what it asks of an index is a few
dozen rows from the right place, and a planner that guesses wrong has nothing to choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from headrace_services.storage.rows import WORKSPACE

__all__ = ["RunOrdering", "RunQuery", "ordering_of"]

_MOST_RANGES: Final = 64


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


_ORDERINGS: Final = {
    RUN_ORDER_CREATE_TIME_DESC: RunOrdering("create_time", True, int),
    RUN_ORDER_CREATE_TIME_ASC: RunOrdering("create_time", False, int),
    RUN_ORDER_EXPECTED_START_ASC: RunOrdering("expected_start_time", False, int, nullable=True),
    RUN_ORDER_START_TIME_DESC: RunOrdering("start_time", True, int, nullable=True),
    RUN_ORDER_NAME_ASC: RunOrdering("name", False, str),
}


def ordering_of(order: int) -> RunOrdering:
    """The ordering with that number on the wire; newest first for one that is not known."""
    return _ORDERINGS.get(order, _ORDERINGS[RUN_ORDER_CREATE_TIME_DESC])  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class _Range:
    """Rows that one index has in order: the table to walk, and what holds for its rows."""

    source: str
    where: Conditions
    sort: str = "r"


class RunQuery:
    """The statements for one filter."""

    def __init__(self, filter: RunFilter, dialect: Dialect) -> None:
        self._filter = filter
        self._dialect = dialect
        self._conditions = run_conditions(filter, dialect)
        self._kinds = tuple(sorted({int(k) for k in filter.kinds} & set(ALL_KINDS))) or ALL_KINDS
        self._types = tuple(sorted({int(t) for t in filter.state_types})) or ALL_TYPES
        self.is_empty = bool(filter.kinds) and not {int(k) for k in filter.kinds} & set(ALL_KINDS)

    @property
    def tags(self) -> list[str]:
        """Tags that every run must have, when choosing among them pays."""
        return list(self._filter.tags_all)

    def tag_sizes(self, most: int) -> tuple[str, list[Any]]:
        """How many runs each of `tags` has, counted up to `most`: (place of the tag, count)."""
        parts: list[str] = []
        parameters: list[Any] = []
        for place, tag in enumerate(self.tags):
            where = self._tag_range(tag)
            counted = f"SELECT 1 FROM run_tags AS t WHERE {where.sql} LIMIT {most}"
            parts.append(f"SELECT {place}, count(*) FROM ({counted}) AS c{place}")
            parameters.extend(where.parameters)
        return " UNION ALL ".join(parts), parameters

    def _tag_range(self, tag: str) -> Conditions:
        where = Conditions()
        where.add(f"t.workspace_id = {WORKSPACE} AND t.tag = ?", tag)
        where.among("t.kind", self._kinds)
        where.among("t.state_type", self._types)
        return where

    def page(
        self, ordering: RunOrdering, cursor: Cursor | None, limit: int, rarest: str | None
    ) -> tuple[str, list[Any]]:
        """The rows of a page: the columns of `RunRow`, then the current state.

        Args:
            ordering: of the list.
            cursor: the last run of the page before: its value and its id.
            limit: how many rows.
            rarest: the tag of `tags` that the fewest runs have.
        """
        found: list[str] = []
        parameters: list[Any] = []
        for part in self._ranges(ordering, rarest):
            for where in self._after(part, ordering, cursor):
                sort = self._sort(ordering, part.sort)
                id = "r.id" if part.sort == "r" else "t.run_id"
                found.append(
                    f"SELECT * FROM (SELECT {id} AS id, {part.sort}.{ordering.column} AS value "
                    f"FROM {part.source} WHERE {where.sql} ORDER BY {sort} LIMIT {limit}) AS p{len(found)}"
                )
                parameters.extend(where.parameters)
        direction = "DESC" if ordering.descending else "ASC"
        empty = "value IS NULL, " if ordering.nullable else ""
        order = f"{empty}value {direction}, id {direction}"
        sql = (
            f"WITH page AS (SELECT id, value FROM ({' UNION ALL '.join(found)}) AS merged "
            f"ORDER BY {order} LIMIT {limit}) "
            f"SELECT {self._dialect.run_columns('r')}, s.body, page.value "
            "FROM page JOIN runs AS r ON r.id = page.id "
            "LEFT JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
            f"ORDER BY {order.replace('value', 'page.value').replace(', id', ', page.id')}"
        )
        return sql, parameters

    def _sort(self, ordering: RunOrdering, table: str) -> str:
        direction = "DESC" if ordering.descending else "ASC"
        id = "id" if table == "r" else "run_id"
        return f"{table}.{ordering.column} {direction}, {table}.{id} {direction}"

    def _ranges(self, ordering: RunOrdering, rarest: str | None) -> list[_Range]:
        conditions = self._conditions.copy()
        others = [tag for tag in self._filter.tags_all if tag != rarest]
        for tag in others:
            has_tag(conditions, [tag])
        if self._filter.tags_any:
            has_tag(conditions, list(self._filter.tags_any))
        if rarest is not None and ordering.column == "create_time":
            return self._tag_ranges(rarest, conditions)
        if rarest is not None:
            has_tag(conditions, [rarest])
        return self._run_ranges(ordering, conditions)

    def _tag_ranges(self, tag: str, conditions: Conditions) -> list[_Range]:
        """Along the index of tags; the run itself is looked at only if something else is asked of it."""
        ranges: list[_Range] = []
        source = "run_tags AS t"
        if conditions.parts:
            source += " JOIN runs AS r ON r.id = t.run_id"
        for kind in self._kinds:
            for type in self._types:
                where = Conditions()
                where.add(f"t.workspace_id = {WORKSPACE} AND t.tag = ?", tag)
                where.add(f"t.kind = {kind} AND t.state_type = {type}")
                where.parts.extend(conditions.parts)
                where.parameters.extend(conditions.parameters)
                ranges.append(_Range(source, where, "t"))
        return ranges

    def _run_ranges(self, ordering: RunOrdering, conditions: Conditions) -> list[_Range]:
        """Along an index of runs."""
        filter = self._filter
        is_bounded = bool(filter.ids or filter.root_run_ids or filter.parent_run_ids)
        walks_types = ordering.column == "create_time" and not is_bounded
        flows = self._flow_ids() if walks_types else []
        if len(self._kinds) * len(self._types) * max(1, len(flows)) > _MOST_RANGES:
            flows = []
        ranges: list[_Range] = []
        for kind in self._kinds:
            for types in [(t,) for t in self._types] if walks_types else [self._types]:
                for flow in flows or [None]:
                    where = Conditions()
                    where.add(f"r.workspace_id = {WORKSPACE} AND r.kind = {kind}")
                    if flow is not None:
                        where.add("r.flow_id = ?", flow)
                    if len(types) < len(ALL_TYPES):
                        where.add(f"r.state_type IN ({', '.join(map(str, types))})")
                    where.parts.extend(conditions.parts)
                    where.parameters.extend(conditions.parameters)
                    ranges.append(_Range("runs AS r", where))
        return ranges

    def _flow_ids(self) -> list[Any]:
        """The flows, when each has an index range of its own: that is so for flow runs."""
        if self._kinds != (int(RUN_KIND_FLOW),):
            return []
        from headrace_services.storage.rows import flow_id_of

        return [self._dialect.id(flow_id_of(name)) for name in self._filter.flow_names]

    def _after(self, part: _Range, ordering: RunOrdering, cursor: Cursor | None) -> list[Conditions]:
        """The part after the cursor: where values are, and, for nullable orderings, where none are."""
        column = f"{part.sort}.{ordering.column}"
        id = "r.id" if part.sort == "r" else "t.run_id"
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

    def counted(self, bucket: str = "0", *parameters: Any) -> tuple[str, list[Any]]:
        """How many runs there are by type of state: (bucket, type, count)."""
        where = Conditions()
        where.add(f"r.workspace_id = {WORKSPACE}")
        where.among("r.kind", self._kinds)
        if len(self._types) < len(ALL_TYPES):
            where.among("r.state_type", self._types)
        where.parts.extend(self._conditions.parts)
        where.parameters.extend(self._conditions.parameters)
        for tag in self._filter.tags_all:
            has_tag(where, [tag])
        if self._filter.tags_any:
            has_tag(where, list(self._filter.tags_any))
        sql = (
            f"SELECT {bucket} AS bucket, r.state_type, count(*) FROM runs AS r WHERE {where.sql} "
            "GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return sql, [*parameters, *where.parameters]


def rarest_of(tags: Sequence[str], sizes: Sequence[tuple[int, int]]) -> str:
    """The tag with the smallest count; `sizes` are (place of the tag, count)."""
    return tags[min(sizes, key=lambda size: size[1])[0]]
