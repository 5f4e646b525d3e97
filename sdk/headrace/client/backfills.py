"""Calls of `BackfillService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from headrace.client.service_calls import ServiceCalls
from headrace.core.ids import new_id
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import backfill_service_pb2 as backfills
from headrace.v1.backfill_pb2 import Backfill, BackfillRun, BackfillState

__all__ = ["BackfillCalls"]


class BackfillCalls(ServiceCalls):
    """Ranges of the past of schedules, made up for."""

    async def create_backfill(
        self, backfill: Backfill, *, dry_run: bool = False, timeout: float | None = None
    ) -> backfills.CreateBackfillResponse:
        """Have the runs of a range of time made.

        Args:
            backfill: `schedule_id`, `from` and `until` must be set. With an `id` that it was called with
                before, there is no second one; without, one is made up.
            dry_run: say what would be done, do nothing.
            timeout: seconds for this call.

        Returns:
            The backfill; with `dry_run`, also what would become of its first 1000 instants.

        Raises:
            ObjectNotFound: there is no such schedule.
            FieldsInvalid: the range is none, or has more than 50,000 instants.
            ParametersInvalid: the flow does not take the parameters.
            RequestIdReused: there is a backfill of the id that says something else.
        """
        request = backfills.CreateBackfillRequest(backfill=backfill, dry_run=dry_run)
        request.backfill.id = backfill.id or new_id()
        answer = backfills.CreateBackfillResponse.FromString
        return await self._call("BackfillService/CreateBackfill", request, answer, timeout)

    async def get_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """The backfill with that id, and how far it is."""
        request = backfills.GetBackfillRequest(backfill_id=backfill_id)
        answer = backfills.GetBackfillResponse.FromString
        return (await self._call("BackfillService/GetBackfill", request, answer, timeout)).backfill

    async def list_backfills(
        self, request: backfills.ListBackfillsRequest, *, timeout: float | None = None
    ) -> backfills.ListBackfillsResponse:
        """One page of backfills, newest first."""
        answer = backfills.ListBackfillsResponse.FromString
        return await self._call("BackfillService/ListBackfills", request, answer, timeout)

    async def iter_backfills(
        self,
        deployment_ids: Sequence[str] = (),
        *,
        states: Sequence[BackfillState.ValueType] = (),
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> AsyncIterator[Backfill]:
        """Every backfill of the deployments, or of all, newest first.

        Args:
            deployment_ids: of the deployments; none: of all.
            states: only in one of these; none: in any.
            page_size: how many are asked for at once.
        """
        request = backfills.ListBackfillsRequest(
            deployment_ids=deployment_ids, states=states, page_size=page_size
        )
        while True:
            page = await self.list_backfills(request)
            for backfill in page.backfills:
                yield backfill
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_backfill_runs(
        self, request: backfills.ListBackfillRunsRequest, *, timeout: float | None = None
    ) -> backfills.ListBackfillRunsResponse:
        """One page of the instants that a backfill has come to, oldest first."""
        answer = backfills.ListBackfillRunsResponse.FromString
        return await self._call("BackfillService/ListBackfillRuns", request, answer, timeout)

    async def iter_backfill_runs(
        self, backfill_id: str, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[BackfillRun]:
        """Every instant that the backfill has come to, oldest first, and how its run has ended."""
        request = backfills.ListBackfillRunsRequest(backfill_id=backfill_id, page_size=page_size)
        while True:
            page = await self.list_backfill_runs(request)
            for run in page.runs:
                yield run
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def pause_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make no more runs for now; those that were made go on.

        Raises:
            PreconditionFailed: it has ended, or is being cancelled.
        """
        request = backfills.PauseBackfillRequest(backfill_id=backfill_id)
        answer = backfills.PauseBackfillResponse.FromString
        return (await self._call("BackfillService/PauseBackfill", request, answer, timeout)).backfill

    async def resume_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make runs again.

        Raises:
            PreconditionFailed: it has ended, or is being cancelled.
        """
        request = backfills.ResumeBackfillRequest(backfill_id=backfill_id)
        answer = backfills.ResumeBackfillResponse.FromString
        return (await self._call("BackfillService/ResumeBackfill", request, answer, timeout)).backfill

    async def cancel_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make no more runs, and cancel those that have not started.

        Raises:
            PreconditionFailed: it has ended.
        """
        request = backfills.CancelBackfillRequest(backfill_id=backfill_id)
        answer = backfills.CancelBackfillResponse.FromString
        return (await self._call("BackfillService/CancelBackfill", request, answer, timeout)).backfill
