"""Log lines and spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_NEWEST_FIRST
from headrace.v1.span_pb2 import Span
from headrace.v1.span_service_pb2 import SpanFilter
from headrace_services.storage.backends import Backend
from headrace_services.storage.change_queries import after_position, commit_order, latest_position
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.filters import Conditions, log_conditions
from headrace_services.storage.instants import set_micros
from headrace_services.storage.outbox import format_position, parse_position
from headrace_services.storage.pages import Cursor, PageKey, page_limit
from headrace_services.storage.steps import Row

__all__ = ["LogQueries"]


class LogQueries:
    """Logs and spans, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect
        ids = ", ".join(dialect.column(f"l.{name}") for name in ("run_id", "root_run_id"))
        self._columns = f"{ids}, l.time, l.level, l.logger, l.message, l.rest"

    async def page(
        self, filter: LogFilter, order: int, page_size: int, page_token: str
    ) -> tuple[list[LogEntry], str]:
        """See `Reader.list_logs`."""
        key, limit = PageKey.of("logs", filter, order), page_limit(page_size)
        cursor = key.cursor(page_token, int, int)
        ranges = self._ranges("l", filter.run_ids, filter.root_run_ids, log_conditions(filter, self._dialect))
        descending = order == LOG_ORDER_NEWEST_FIRST
        sql, parameters = _merged(
            "logs AS l", f"{self._columns}, l.seq", "l.time", ranges, cursor, limit + 1, descending
        )
        rows = await self._backend.fetch(sql, parameters)
        logs = [self._log(row) for row in rows[:limit]]
        return logs, key.token([rows[limit - 1][2], rows[limit - 1][7]]) if len(rows) > limit else ""

    async def list_spans(self, filter: SpanFilter, page_size: int, page_token: str) -> tuple[list[Span], str]:
        """See `Reader.list_spans`."""
        key, limit = PageKey.of("spans", filter), page_limit(page_size)
        cursor = key.cursor(page_token, int, int)
        conditions = Conditions()
        if filter.trace_id:
            conditions.add("s.trace_id = ?", filter.trace_id)
        ranges = self._ranges("s", filter.run_ids, filter.root_run_ids, conditions)
        columns = f"s.body, {self._dialect.column('s.root_run_id')}, s.start_time, s.seq"
        sql, parameters = _merged("spans AS s", columns, "s.start_time", ranges, cursor, limit + 1, False)
        rows = await self._backend.fetch(sql, parameters)
        spans = [self._span(row) for row in rows[:limit]]
        return spans, key.token([rows[limit - 1][2], rows[limit - 1][3]]) if len(rows) > limit else ""

    async def latest_token(self) -> str:
        """See `Reader.latest_log_token`."""
        return format_position(await latest_position(self._backend, self._dialect, "logs"), "logs")

    async def since(self, filter: LogFilter, token: str, limit: int) -> tuple[list[LogEntry], str]:
        """See `Reader.logs_since`."""
        position = parse_position(token, "logs")
        where = log_conditions(filter, self._dialect)
        where.among("l.run_id", [self._dialect.id(id.lower()) for id in filter.run_ids])
        where.among("l.root_run_id", [self._dialect.id(id.lower()) for id in filter.root_run_ids])
        sql = (
            f"SELECT {self._columns}, l.xid, l.seq FROM logs AS l "
            f"WHERE {after_position(self._dialect, 'l')} AND {where.sql} "
            f"ORDER BY {commit_order(self._dialect, 'l')} LIMIT {limit}"
        )
        # Asked before: what is committed in between then comes again, instead of never.
        latest = await latest_position(self._backend, self._dialect, "logs")
        rows = await self._backend.fetch(sql, [*position, *where.parameters])
        logs = [self._log(row) for row in rows]
        if len(rows) >= limit:
            return logs, format_position((rows[-1][7], rows[-1][8]), "logs")
        last = (rows[-1][7], rows[-1][8]) if rows else position
        return logs, format_position(max(position, last, latest), "logs")

    def _ranges(
        self, table: str, run_ids: Sequence[str], root_run_ids: Sequence[str], conditions: Conditions
    ) -> list[Conditions]:
        """One part per run or per root, each in the order of an index."""
        column, ids = ("run_id", run_ids) if run_ids else ("root_run_id", root_run_ids)
        if run_ids and root_run_ids:
            among = [self._dialect.id(id.lower()) for id in root_run_ids]
            conditions.among(f"{table}.root_run_id", among)
        if not ids:
            return [conditions]
        ranges: list[Conditions] = []
        for id in dict.fromkeys(id.lower() for id in ids):
            part = Conditions()
            part.add(f"{table}.{column} = ?", self._dialect.id(id))
            part.extend(conditions)
            ranges.append(part)
        return ranges

    def _log(self, row: Row) -> LogEntry:
        log = LogEntry() if row[6] is None else LogEntry.FromString(row[6])
        log.run_id = self._dialect.read_id(row[0])
        log.root_run_id = self._dialect.read_id(row[1])
        set_micros(log.time, row[2])
        log.level, log.logger, log.message = row[3], row[4], row[5]
        return log

    def _span(self, row: Row) -> Span:
        span = Span.FromString(row[0])
        span.root_run_id = self._dialect.read_id(row[1])
        return span


def _merged(
    source: str,
    columns: str,
    time: str,
    ranges: Sequence[Conditions],
    cursor: Cursor | None,
    limit: int,
    descending: bool,
) -> tuple[str, list[Any]]:
    """The first rows of all ranges together, by time and sequence."""
    direction, sign = ("DESC", "<") if descending else ("ASC", ">")
    table = source.rsplit(" ", 1)[1]
    seq = f"{table}.seq"
    parts: list[str] = []
    parameters: list[Any] = []
    for range in ranges:
        where = range.copy()
        if cursor is not None:
            where.add(f"{time} {sign}= ?", cursor[0])
            where.add(f"({time}, {seq}) {sign} (?, ?)", *cursor)
        parts.append(
            f"SELECT * FROM (SELECT {time} AS sort_time, {seq} AS sort_seq FROM {source} WHERE {where.sql} "
            f"ORDER BY {time} {direction}, {seq} {direction} LIMIT {limit}) AS p{len(parts)}"
        )
        parameters.extend(where.parameters)
    sql = (
        f"WITH page AS (SELECT sort_time, sort_seq FROM ({' UNION ALL '.join(parts)}) AS merged "
        f"ORDER BY sort_time {direction}, sort_seq {direction} LIMIT {limit}) "
        f"SELECT {columns} FROM page JOIN {source} ON {seq} = page.sort_seq "
        f"ORDER BY page.sort_time {direction}, page.sort_seq {direction}"
    )
    return sql, parameters
