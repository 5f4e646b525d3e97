"""Queries. Nothing in here writes."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.v1.flow_pb2 import Flow
from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.log_service_pb2 import LOG_ORDER_UNSPECIFIED, LogOrder
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import (
    RUN_ORDER_UNSPECIFIED,
    Attempt,
    RunBucket,
    RunGraphNode,
    RunOrder,
    StateCount,
)
from headrace.v1.span_pb2 import Span
from headrace.v1.span_service_pb2 import SpanFilter
from headrace.v1.state_pb2 import State
from headrace_services.storage.values import Changes, RecorderInfo

__all__ = ["Reader"]


class Reader:
    """Queries over one database.

    Page sizes: 0 means 100, more than 1000 is taken as 1000. Every list method returns the items and
    the token of the next page, empty on the last.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer.
    """

    async def get_run(self, run_id: str, *, full: bool = True) -> Run:
        """One run.

        Raises:
            ObjectNotFound: there is none with that id.
        """
        raise NotImplementedError

    async def get_runs(
        self, run_ids: Sequence[str], filter: RunFilter | None = None, *, full: bool = False
    ) -> list[Run]:
        """Those of the runs that exist and match `filter`, in no order. At most 1000 ids."""
        raise NotImplementedError

    async def list_runs(
        self,
        filter: RunFilter,
        order: RunOrder = RUN_ORDER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
        *,
        full: bool = False,
    ) -> tuple[list[Run], str]:
        """A page of the runs that match `filter`.

        Raises:
            PageTokenInvalid: the token was not made by this list with this filter and order.
        """
        raise NotImplementedError

    async def count_runs(self, filter: RunFilter) -> list[StateCount]:
        """How many runs match, by type of state; types without runs are left out."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def list_states(
        self, run_id: str, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[State], str]:
        """A page of a run's history, oldest first.

        Raises:
            ObjectNotFound: there is no such run.
            PageTokenInvalid: the token belongs to another list.
        """
        raise NotImplementedError

    async def list_attempts(self, run_id: str) -> list[Attempt]:
        """The tries of a run's body, from the first.

        Raises:
            ObjectNotFound: there is no such run.
        """
        raise NotImplementedError

    async def run_graph(self, run_id: str, max_nodes: int = 0) -> tuple[list[RunGraphNode], bool]:
        """The run and the runs below it, by create time, and whether there are more than `max_nodes`.

        Args:
            run_id: the run at the top.
            max_nodes: 0 means 1000; more than 10000 is taken as 10000.

        Raises:
            ObjectNotFound: there is no such run.
        """
        raise NotImplementedError

    async def get_flow(
        self, *, id: str | None = None, name: str | None = None
    ) -> tuple[Flow, list[StateCount]]:
        """A flow, its last run, and how many runs it has in which state.

        Raises:
            ObjectNotFound: there is no such flow.
        """
        raise NotImplementedError

    async def list_flows(
        self, name_contains: str = "", page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Flow], str]:
        """A page of the flows, by name.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        raise NotImplementedError

    async def list_logs(
        self,
        filter: LogFilter,
        order: LogOrder = LOG_ORDER_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[LogEntry], str]:
        """A page of log lines.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        raise NotImplementedError

    async def list_spans(
        self, filter: SpanFilter, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Span], str]:
        """A page of spans, by start time.

        Raises:
            PageTokenInvalid: the token belongs to another list.
        """
        raise NotImplementedError

    async def expired_recorders(self, now: int) -> list[RecorderInfo]:
        """Recorders, not sealed, whose lease ended before `now` (see `Database.now`) and was not acted on."""
        raise NotImplementedError

    async def live_recorders(self, now: int) -> list[RecorderInfo]:
        """Recorders, not sealed, whose lease has not ended at `now` (see `Database.now`)."""
        raise NotImplementedError

    async def latest_token(self) -> str:
        """The resume token of this instant: every change that a query does not show yet comes after it."""
        raise NotImplementedError

    async def changes_since(self, token: str, limit: int = 1000) -> Changes:
        """Runs that changed after `token`; about `limit` of them, and never none when there are some.

        Raises:
            ResumeTokenInvalid: the token was not made here.
            ResumeTokenExpired: what came after it is no longer kept.
        """
        raise NotImplementedError

    async def latest_log_token(self) -> str:
        """The resume token of this instant for log lines."""
        raise NotImplementedError

    async def logs_since(
        self, filter: LogFilter, token: str, limit: int = 1000
    ) -> tuple[list[LogEntry], str]:
        """Log lines that were committed after `token`, in the order of their commit, and where to go on.

        Raises:
            ResumeTokenInvalid: the token was not made here.
        """
        raise NotImplementedError
