"""Calls of `RunService` about runs that workers execute: again, at another time, or not yet."""

from __future__ import annotations

from datetime import datetime

from headrace.client.service_calls import ServiceCalls
from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2 as runs

__all__ = ["RerunCalls"]


class RerunCalls(ServiceCalls):
    """Runs again, at another time, or not yet."""

    async def retry_run(
        self, run_id: str, *, scheduled_time: datetime | None = None, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Run a run of a deployment again that has ended; the verdict is data.

        Args:
            run_id: the run.
            scheduled_time: not before; None: now. With a time zone.
            timeout: seconds for this call.

        Returns:
            Accepted: it waits for a worker. Rejected: it has completed, and its result is kept. Aborted: it
            has not ended, or has no deployment.
        """
        request = runs.RetryRunRequest(run_id=run_id, state_id=new_id())
        if scheduled_time is not None:
            request.scheduled_time.FromDatetime(scheduled_time)
        answer = runs.RetryRunResponse.FromString
        return (await self._call("RunService/RetryRun", request, answer, timeout)).verdict

    async def reschedule_run(
        self, run_id: str, scheduled_time: datetime, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Give a run that nobody executes another time to start, with a time zone; the verdict is data."""
        request = runs.RescheduleRunRequest(run_id=run_id, state_id=new_id())
        request.scheduled_time.FromDatetime(scheduled_time)
        answer = runs.RescheduleRunResponse.FromString
        return (await self._call("RunService/RescheduleRun", request, answer, timeout)).verdict

    async def explain_run(self, run_id: str, *, timeout: float | None = None) -> runs.ExplainRunResponse:
        """Why a run does not run: the one thing that it waits for."""
        request = runs.ExplainRunRequest(run_id=run_id)
        answer = runs.ExplainRunResponse.FromString
        return await self._call("RunService/ExplainRun", request, answer, timeout)
