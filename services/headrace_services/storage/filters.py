"""Filters as conditions in SQL: text with `?` for each parameter, never a value in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, RunFilter, TimeRange
from headrace_services.storage.dialects import Dialect, like
from headrace_services.storage.instants import micros
from headrace_services.storage.log_fields import encode_value
from headrace_services.storage.rows import WORKSPACE, flow_id_of, text

__all__ = ["Conditions", "ALL_KINDS", "ALL_TYPES", "has_tag", "log_conditions", "run_conditions"]

ALL_KINDS: Final = (int(RUN_KIND_FLOW), int(RUN_KIND_TASK))
ALL_TYPES: Final = tuple(range(10))
_TAG_OF_RUN: Final = (
    f"SELECT 1 FROM run_tags AS t WHERE t.workspace_id = {WORKSPACE} AND t.tag = ? AND t.kind = r.kind "
    "AND t.state_type = r.state_type AND t.create_time = r.create_time AND t.run_id = r.id"
)


@dataclass(slots=True)
class Conditions:
    """Conditions that must all hold, and their parameters, in order."""

    parts: list[str] = field(default_factory=list[str])
    parameters: list[Any] = field(default_factory=list[Any])

    def add(self, sql: str, *parameters: Any) -> None:
        """One more."""
        self.parts.append(sql)
        self.parameters.extend(parameters)

    def among(self, column: str, values: Sequence[Any]) -> None:
        """The column has one of the values; no values: no condition."""
        if len(values) == 1:
            self.add(f"{column} = ?", values[0])
        elif values:
            self.add(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def extend(self, others: Conditions) -> None:
        """All of `others` as well."""
        self.parts.extend(others.parts)
        self.parameters.extend(others.parameters)

    def copy(self) -> Conditions:
        """The same, to be added to."""
        return Conditions(list(self.parts), list(self.parameters))

    @property
    def sql(self) -> str:
        """All of them; something true when there are none."""
        return " AND ".join(self.parts) or "1 = 1"


def has_tag(conditions: Conditions, tags: Sequence[str]) -> None:
    """The run `r` has one of the tags."""
    conditions.add(f"({' OR '.join([f'EXISTS ({_TAG_OF_RUN})'] * len(tags))})", *tags)


def run_conditions(filter: RunFilter, dialect: Dialect) -> Conditions:
    """What the row `r` of runs must be, but for its kind, type of state and tags."""
    found = Conditions()
    found.among("r.id", _ids(filter.ids, dialect))
    found.among("r.state_name", list(filter.state_names))
    found.among("r.flow_id", [dialect.id(flow_id_of(name)) for name in filter.flow_names])
    found.among("r.deployment_id", list(filter.deployment_ids))
    found.among("r.root_run_id", _ids(filter.root_run_ids, dialect))
    if filter.parent_run_ids:
        parents = _ids(filter.parent_run_ids, dialect)
        among = ", ".join("?" * len(parents))
        # By way of the roots, whose index is there anyway: one less to keep for every task run.
        roots = f"r.root_run_id IN (SELECT p.root_run_id FROM runs AS p WHERE p.id IN ({among}))"
        found.add(roots, *parents)
        found.among("r.parent_run_id", parents)
    found.among("r.work_pool", list(filter.work_pools))
    found.among("r.work_queue", list(filter.work_queues))
    if filter.name_contains:
        found.add(dialect.contains("r.name"), like(filter.name_contains))
    found.among("r.name", list(filter.names))
    found.among("r.task_name", list(filter.task_names))
    for column in ("start_time", "expected_start_time", "end_time", "create_time"):
        _in_range(found, f"r.{column}", getattr(filter, column) if filter.HasField(column) else None)
    if filter.top_level_only:
        found.add("r.parent_run_id IS NULL")
    if filter.id_prefix:
        _has_prefix(found, filter.id_prefix, dialect)
    return found


def _ids(ids: Iterable[str], dialect: Dialect) -> list[Any]:
    return [dialect.id(id.lower()) for id in ids]


def _in_range(conditions: Conditions, column: str, range: TimeRange | None) -> None:
    if range is None:
        return
    if range.HasField("from"):
        conditions.add(f"{column} >= ?", micros(getattr(range, "from")))
    if range.HasField("until"):
        conditions.add(f"{column} < ?", micros(range.until))


def _has_prefix(conditions: Conditions, prefix: str, dialect: Dialect) -> None:
    digits = prefix.replace("-", "")
    lowest, highest = digits.ljust(32, "0"), digits.ljust(32, "f")
    conditions.add("r.id BETWEEN ? AND ?", *(dialect.id(_hyphenated(text)) for text in (lowest, highest)))


def _hyphenated(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


def log_conditions(filter: LogFilter, dialect: Dialect) -> Conditions:
    """What the row `l` of logs must be, but for its run and root."""
    found = Conditions()
    if filter.min_level:
        found.add("l.level >= ?", filter.min_level)
    if filter.HasField("from"):
        found.add("l.time >= ?", micros(getattr(filter, "from")))
    if filter.HasField("until"):
        found.add("l.time < ?", micros(filter.until))
    if filter.message_contains:
        found.add(dialect.contains("l.message"), like(filter.message_contains))
    found.among("l.logger", list(filter.loggers))
    for wanted in filter.fields:
        found.add(dialect.member("l.fields"), text(wanted.name), encode_value(wanted.value))
    return found
