"""Queries. Nothing in here writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.core.clock import Clock
from headrace.core.errors import FieldsInvalid, ObjectNotFound, PageTokenInvalid
from headrace.core.ids import is_id
from headrace.core.states import StateType
from headrace.v1.event_pb2 import Event, EventFilter
from headrace.v1.event_service_pb2 import EVENT_ORDER_UNSPECIFIED, EventOrder
from headrace.v1.flow_pb2 import Flow
from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_UNSPECIFIED, LogOrder
from headrace.v1.record_service_pb2 import RunDirective
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from headrace.v1.run_service_pb2 import (
    RUN_ORDER_UNSPECIFIED,
    Attempt,
    RunBucket,
    RunGraphNode,
    RunInput,
    RunOrder,
    RunStep,
    StateCount,
)
from headrace.v1.span_pb2 import Span
from headrace.v1.span_service_pb2 import SpanFilter
from headrace.v1.state_pb2 import State
from headrace_services.domain.attempts import fold_attempts
from headrace_services.storage.backends import Backend
from headrace_services.storage.backfill_queries import BackfillQueries
from headrace_services.storage.cache_queries import CacheQueries
from headrace_services.storage.change_queries import ChangeQueries
from headrace_services.storage.deployment_queries import DeploymentQueries
from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.directive_queries import directives
from headrace_services.storage.dispatch_queries import DispatchQueries
from headrace_services.storage.events import EventQueries
from headrace_services.storage.fairness_queries import FairnessQueries
from headrace_services.storage.flow_queries import FlowQueries
from headrace_services.storage.graph import graph_nodes
from headrace_services.storage.input_queries import InputQueries
from headrace_services.storage.instants import micros, set_micros
from headrace_services.storage.lock_queries import LockQueries
from headrace_services.storage.log_queries import LogQueries
from headrace_services.storage.pages import PageKey, page_limit
from headrace_services.storage.run_codec import run_message
from headrace_services.storage.run_queries import Path, RunOrdering, RunQuery, ordering_of
from headrace_services.storage.schedule_queries import ScheduleQueries
from headrace_services.storage.step_queries import run_steps
from headrace_services.storage.steps import Row
from headrace_services.storage.values import Changes, RecorderInfo
from headrace_services.storage.work import run_from_row
from headrace_services.storage.work_pool_queries import WorkPoolQueries

__all__ = ["Reader"]

_COUNTED: Final = 1000
_MOST_BUCKETS: Final = 1000
_GRAPH_NODES: Final = 1000
_MOST_GRAPH_NODES: Final = 10_000


class Reader(DispatchQueries):
    """Queries over one database.

    Page sizes: 0 means 100, more than 1000 is taken as 1000. Every list method returns the items and
    the token of the next page, empty on the last.

    Attributes:
        work_pools: pools and queues.
        fairness: rules of fairness keys.
        schedules: schedules of deployments.
        backfills: of schedules.
        deployments: deployments and their versions.
        cache: the index of cached results.
        locks: who has which.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._dialect = SQLITE if backend.dialect == "sqlite" else POSTGRESQL
        self._logs = LogQueries(backend, self._dialect)
        self._changes = ChangeQueries(backend, self._dialect)
        self._flows = FlowQueries(backend, self._dialect)
        self._events = EventQueries(backend, self._dialect)
        self._inputs = InputQueries(backend, self._dialect)
        self.work_pools = WorkPoolQueries(backend, self._dialect, clock)
        self.fairness = FairnessQueries(backend, self._dialect, clock)
        self.schedules = ScheduleQueries(backend, self._dialect)
        self.backfills = BackfillQueries(backend, self._dialect)
        self.deployments = DeploymentQueries(backend, self._dialect)
        self.cache = CacheQueries(backend, self._dialect)
        self.locks = LockQueries(backend, self._dialect)

    # Runs

    async def get_run(self, run_id: str, *, full: bool = True) -> Run:
        """One run.

        Raises:
            ObjectNotFound: there is none with that id.
        """
        found = await self._runs_by_id([run_id], full)
        if not found:
            raise ObjectNotFound.of("run", run_id)
        return found[0]

    async def get_runs(
        self, run_ids: Sequence[str], filter: RunFilter | None = None, *, full: bool = False
    ) -> list[Run]:
        """Those of the runs that exist and match `filter`, in no order. At most 1000 ids."""
        if not run_ids:
            return []
        if filter is None or not filter.ByteSize():
            return await self._runs_by_id(run_ids, full)
        within = RunFilter()
        within.CopyFrom(filter)
        wanted = {id.lower() for id in run_ids}
        if within.ids:
            wanted &= {id.lower() for id in within.ids}
        if not wanted:
            return []
        within.ClearField("ids")
        within.ids.extend(sorted(wanted))
        runs, _ = await self.list_runs(within, page_size=len(wanted), full=full)
        return runs

    async def _runs_by_id(self, run_ids: Sequence[str], full: bool) -> list[Run]:
        ids = [self._dialect.id(id.lower()) for id in run_ids]
        sql = (
            f"SELECT {self._dialect.run_columns('r')}, s.body FROM runs AS r "
            "LEFT JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
            f"WHERE r.id IN ({', '.join('?' * len(ids))})"
        )
        rows = await self._backend.fetch(sql, ids)
        return await self._run_messages([tuple(row) for row in rows], full)

    async def _run_messages(self, rows: Sequence[Row], full: bool) -> list[Run]:
        """Messages of rows that are the columns of a run and its state."""
        now = self._clock.now()
        runs = [run_from_row(self._dialect.run_row(row[:-1])) for row in rows]
        if full and runs:
            sql = (
                f"SELECT {self._dialect.column('id')}, full_spec FROM runs "
                f"WHERE full_spec IS NOT NULL AND id IN ({', '.join('?' * len(runs))})"
            )
            found = await self._backend.fetch(sql, [self._dialect.id(run.id) for run in runs])
            full_specs = {self._dialect.read_id(id): spec for id, spec in found}
            for run in runs:
                run.full_spec = full_specs.get(run.id)
        return [run_message(run, row[-1], now, full=full) for run, row in zip(runs, rows, strict=True)]

    async def list_runs(
        self,
        filter: RunFilter,
        order: RunOrder.ValueType = RUN_ORDER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
        *,
        full: bool = False,
    ) -> tuple[list[Run], str]:
        """A page of the runs that match `filter`.

        Raises:
            PageTokenInvalid: the token was not made by this list with this filter and order.
        """
        ordering, limit = ordering_of(order), page_limit(page_size)
        key = PageKey.of("runs", filter, order)
        cursor = key.cursor(page_token, ordering.type, str)
        if cursor is not None and not is_id(str(cursor[1])):
            raise PageTokenInvalid()
        query = RunQuery(filter, self._dialect)
        if query.is_empty:
            return [], ""
        sql, parameters = query.page(ordering, cursor, limit + 1, await self._shortest_path(query, ordering))
        rows = [tuple(row) for row in await self._backend.fetch(sql, parameters)]
        runs = await self._run_messages([row[:-1] for row in rows[:limit]], full)
        if len(rows) <= limit:
            return runs, ""
        return runs, key.token([rows[limit - 1][-1], runs[-1].id])

    async def _shortest_path(self, query: RunQuery, ordering: RunOrdering | None = None) -> Path:
        """The way along which the fewest runs lie, as far as a short count tells."""
        paths = query.paths(ordering)
        if len(paths) < 2:
            return paths[0] if paths else Path()
        sizes = await self._backend.fetch(*query.sizes(paths, _COUNTED))
        place: int = min(sizes, key=lambda size: int(size[1]))[0]
        return paths[place]

    async def count_runs(self, filter: RunFilter) -> list[StateCount]:
        """How many runs match, by type of state; types without runs are left out."""
        query = RunQuery(filter, self._dialect)
        if query.is_empty:
            return []
        rows = await self._backend.fetch(*query.counted(path=await self._shortest_path(query)))
        return [StateCount(state_type=type, count=count) for _, type, count in rows]

    async def aggregate_runs(
        self, filter: RunFilter, start: int, until: int, bucket_width: int
    ) -> list[RunBucket]:
        """Counts by type of state in buckets of equal width over create times.

        Args:
            filter: which runs.
            start: inclusive, microseconds.
            until: exclusive, microseconds.
            bucket_width: microseconds; the last bucket may be cut off by `until`.

        Raises:
            FieldsInvalid: the range is empty, or makes more than 1000 buckets.
        """
        if bucket_width <= 0 or start >= until:
            raise FieldsInvalid.of("until", "must be later than `from`, and `bucket_width` more than 0")
        number = -(-(until - start) // bucket_width)
        if number > _MOST_BUCKETS:
            raise FieldsInvalid.of("bucket_width", f"makes {number} buckets; there may be {_MOST_BUCKETS}")
        buckets = [RunBucket() for _ in range(number)]
        for place, bucket in enumerate(buckets):
            set_micros(getattr(bucket, "from"), start + place * bucket_width)
        query = RunQuery(_within(filter, start, until), self._dialect)
        if not query.is_empty:
            bucket_number = f"({{0}}.create_time - {int(start)}) / {int(bucket_width)}"
            sql, parameters = query.counted(bucket_number, await self._shortest_path(query))
            for place, type, count in await self._backend.fetch(sql, parameters):
                buckets[int(place)].counts.append(StateCount(state_type=type, count=count))
        return buckets

    # One run

    async def list_states(
        self, run_id: str, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[State], str]:
        """A page of a run's history, oldest first.

        Raises:
            ObjectNotFound: there is no such run.
            PageTokenInvalid: the token belongs to another list.
        """
        key, limit = PageKey.of("states", run_id.lower()), page_limit(page_size)
        cursor = key.cursor(page_token, int)
        rows = await self._backend.fetch(
            "SELECT seq, body FROM run_states WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (self._dialect.id(run_id.lower()), cursor[0] if cursor else 0, limit + 1),
        )
        if not rows:
            await self._require_run(run_id)
        states = [State.FromString(body) for _, body in rows[:limit]]
        return states, key.token([rows[limit - 1][0]]) if len(rows) > limit else ""

    async def _require_run(self, run_id: str) -> None:
        sql = "SELECT 1 FROM runs WHERE id = ?"
        if not await self._backend.fetch(sql, (self._dialect.id(run_id.lower()),)):
            raise ObjectNotFound.of("run", run_id)

    async def list_attempts(self, run_id: str) -> list[Attempt]:
        """The tries of a run's body, from the first.

        Raises:
            ObjectNotFound: there is no such run.
        """
        rows = await self._backend.fetch(
            "SELECT type, name, event_time, body FROM run_states WHERE run_id = ? ORDER BY seq",
            (self._dialect.id(run_id.lower()),),
        )
        if not rows:
            await self._require_run(run_id)
        attempts: list[Attempt] = []
        history = [(StateType.from_number(type), name, time) for type, name, time, _ in rows]
        for span in fold_attempts(history):
            attempt = Attempt(number=span.number)
            set_micros(attempt.start_time, span.start_time)
            if span.end_index is not None:
                attempt.end_state.ParseFromString(rows[span.end_index][3])
                set_micros(attempt.end_time, micros(attempt.end_state.event_time))
            attempts.append(attempt)
        return attempts

    async def run_graph(self, run_id: str, max_nodes: int = 0) -> tuple[list[RunGraphNode], bool]:
        """The run and the runs below it, by create time, and whether there are more than `max_nodes`.

        Args:
            run_id: the run at the top.
            max_nodes: 0 means 1000; more than 10000 is taken as 10000.

        Raises:
            ObjectNotFound: there is no such run.
        """
        limit = min(max_nodes or _GRAPH_NODES, _MOST_GRAPH_NODES)
        return await graph_nodes(self._backend, self._dialect, run_id.lower(), limit)

    async def run_steps(
        self, run_id: str, page_size: int = 0, page_token: str = "", max_data_bytes: int = 0
    ) -> tuple[list[RunStep], str]:
        """The steps that the run owns, oldest first: those with a step key, and those that never ran.

        Args:
            run_id: a run that was started on its own.
            page_size: 0, and more than 1000, mean 1000; a page also ends where it would grow over 1 MiB.
            page_token: of the page before.
            max_data_bytes: larger results are left out.

        Raises:
            ObjectNotFound: there is no such run.
            PageTokenInvalid: the token belongs to another list.
        """
        run_id = run_id.lower()
        return await run_steps(self._backend, self._dialect, run_id, page_size, page_token, max_data_bytes)

    # Flows

    async def get_flow(
        self, *, id: str | None = None, name: str | None = None
    ) -> tuple[Flow, list[StateCount]]:
        """A flow, its last run, and how many runs it has in which state.

        Raises:
            ObjectNotFound: there is no such flow.
        """
        flow = await self._flows.get(id, name)
        await self._add_last_runs([flow])
        filter = RunFilter(flow_names=[flow.name], kinds=[RUN_KIND_FLOW])
        return flow, await self.count_runs(filter)

    async def list_flows(
        self, name_contains: str = "", page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Flow], str]:
        """A page of the flows, by name.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        flows, token = await self._flows.page(name_contains, page_size, page_token)
        await self._add_last_runs(flows)
        return flows, token

    async def _add_last_runs(self, flows: Sequence[Flow]) -> None:
        newest = await self._flows.newest_runs([flow.id for flow in flows])
        runs = {run.flow_id: run for run in await self._runs_by_id(newest, False)} if newest else {}
        for flow in flows:
            if flow.id in runs:
                flow.last_run.CopyFrom(runs[flow.id])

    # Logs and spans

    async def list_logs(
        self,
        filter: LogFilter,
        order: LogOrder.ValueType = LOG_ORDER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[LogEntry], str]:
        """A page of log lines.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        return await self._logs.page(filter, order, page_size, page_token)

    async def list_spans(
        self, filter: SpanFilter, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Span], str]:
        """A page of spans, by start time.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        return await self._logs.list_spans(filter, page_size, page_token)

    async def latest_log_token(self) -> str:
        """The resume token of this instant for log lines."""
        return await self._logs.latest_token()

    async def logs_since(
        self, filter: LogFilter, token: str, limit: int = 1000
    ) -> tuple[list[LogEntry], str]:
        """Log lines that were committed after `token`, in the order of their commit, and where to go on.

        Raises:
            ResumeTokenInvalid: the token was not made here.
        """
        return await self._logs.since(filter, token, limit)

    async def list_events(
        self,
        filter: EventFilter,
        order: EventOrder.ValueType = EVENT_ORDER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[Event], str]:
        """A page of events, by the time when they occurred, newest first unless told otherwise.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        return await self._events.page(filter, order, page_size, page_token)

    # Run inputs and timers

    async def list_inputs(
        self,
        run_id: str,
        prefix: str = "",
        keys: Sequence[str] = (),
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[RunInput], str]:
        """A page of what the run was told, oldest first.

        Args:
            run_id: the run.
            prefix: that the keys begin with.
            keys: only these; none: all.
            page_size: 0, and more than 40, mean 40.
            page_token: of the page before.

        Raises:
            ObjectNotFound: there is no such run.
            PageTokenInvalid: the token belongs to another list.
        """
        inputs, token = await self._inputs.page(run_id, prefix, keys, page_size, page_token)
        if not inputs:
            await self._require_run(run_id)
        return inputs, token

    async def inputs_since(
        self, run_id: str, prefix: str, token: str, limit: int = 100
    ) -> tuple[list[RunInput], str]:
        """What the run was told after `token`, or ever for an empty one, and where to go on.

        Raises:
            ObjectNotFound: there is no such run.
            ResumeTokenInvalid: the token was not made here.
        """
        inputs, after = await self._inputs.since(run_id, prefix, token, limit)
        if not inputs:
            await self._require_run(run_id)
        return inputs, after

    async def due_timers(self, kind: int, until: int, limit: int = 200) -> list[tuple[str, str, int]]:
        """Run id, state id and due time (microseconds) of the timers due at `until`, the earliest first."""
        return await self._inputs.due(kind, until, limit)

    # Recorders and changes

    async def directives(self) -> list[tuple[str, RunDirective]]:
        """What is wanted of runs that processes execute: the recorder's id, and the directive for it.

        Told for as long as the run's state asks for it: CANCELLING, or PAUSED with its process staying.
        """
        return await directives(self._backend, self._dialect)

    async def expired_recorders(self, now: int) -> list[RecorderInfo]:
        """Recorders, not sealed, whose lease ended before `now` (see `Database.now`) and was not acted on."""
        return await self._recorders("expires_at < ?", now)

    async def live_recorders(self, now: int) -> list[RecorderInfo]:
        """Recorders, not sealed, whose lease has not ended at `now` (see `Database.now`)."""
        return await self._recorders("expires_at >= ?", now)

    async def _recorders(self, condition: str, now: int) -> list[RecorderInfo]:
        columns = f"{self._dialect.column('id')}, replica_id, host, pid, durable_seq, expires_at"
        rows: Sequence[Any] = await self._backend.fetch(
            f"SELECT {columns} FROM recorders WHERE expires_at IS NOT NULL AND {condition} "
            "ORDER BY expires_at",
            (now,),
        )
        return [RecorderInfo(self._dialect.read_id(row[0]), *row[1:]) for row in rows]

    async def latest_token(self) -> str:
        """The resume token of this instant: every change that a query does not show yet comes after it."""
        return await self._changes.latest_token()

    async def changes_since(self, token: str, limit: int = 1000) -> Changes:
        """Runs that changed after `token`; about `limit` of them, and never none when there are some.

        Raises:
            ResumeTokenInvalid: the token was not made here.
            ResumeTokenExpired: what came after it is no longer kept.
        """
        return await self._changes.since(token, limit)


def _within(filter: RunFilter, start: int, until: int) -> RunFilter:
    """`filter`, over the create times of a range at most."""
    narrowed = RunFilter()
    narrowed.CopyFrom(filter)
    times = narrowed.create_time
    if times.HasField("from"):
        start = max(start, micros(getattr(times, "from")))
    if times.HasField("until"):
        until = min(until, micros(times.until))
    set_micros(getattr(times, "from"), start)
    set_micros(times.until, until)
    return narrowed
