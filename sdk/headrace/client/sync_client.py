"""The blocking client, written by `tools/clientgen.py` from `headrace.client.api`: change that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from headrace.client.blocking import BlockingClient
from headrace.core.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from headrace.v1 import admin_service_pb2 as admin
from headrace.v1 import backfill_service_pb2 as backfills
from headrace.v1 import cache_service_pb2 as cache
from headrace.v1 import deployment_service_pb2 as deployments
from headrace.v1 import event_service_pb2 as events
from headrace.v1 import flow_service_pb2 as flows
from headrace.v1 import lock_service_pb2 as locks
from headrace.v1 import log_service_pb2 as logs
from headrace.v1 import record_service_pb2 as record
from headrace.v1 import run_service_pb2 as runs
from headrace.v1 import schedule_service_pb2 as schedules
from headrace.v1 import span_service_pb2 as spans
from headrace.v1 import work_pool_service_pb2 as pools
from headrace.v1 import worker_service_pb2 as workers
from headrace.v1.backfill_pb2 import Backfill, BackfillRun, BackfillState
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter
from headrace.v1.deployment_pb2 import Deployment, DeploymentVersion
from headrace.v1.event_pb2 import Event, EventFilter
from headrace.v1.flow_pb2 import Flow
from headrace.v1.lock_pb2 import Lock, LockRef
from headrace.v1.log_pb2 import LogEntry, LogFilter
from headrace.v1.run_pb2 import Run, RunFilter, RunView
from headrace.v1.schedule_pb2 import Schedule
from headrace.v1.span_pb2 import Span
from headrace.v1.state_pb2 import State
from headrace.v1.work_pool_pb2 import FairnessRule, WorkPool, WorkQueue
from headrace.v1.worker_pb2 import Worker, WorkerStatus

__all__ = ["SyncHeadraceClient"]


class SyncHeadraceClient(BlockingClient):
    """`HeadraceClient` for code without an event loop: a context manager whose methods block.

    The calls run on an event loop in a thread of the client's own; any thread may use it.
    """

    def create_run(
        self, request: runs.CreateRunRequest, *, timeout: float | None = None
    ) -> runs.CreateRunResponse:
        """Create a run, once per id and per idempotency key."""
        return self._run(self._client.create_run(request, timeout=timeout))

    def get_run(
        self,
        run_id: str,
        *,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        timeout: float | None = None,
    ) -> Run:
        """The run with that id."""
        return self._run(self._client.get_run(run_id, view=view, timeout=timeout))

    def list_runs(
        self, request: runs.ListRunsRequest, *, timeout: float | None = None
    ) -> runs.ListRunsResponse:
        """One page of runs."""
        return self._run(self._client.list_runs(request, timeout=timeout))

    def iter_runs(
        self,
        filter: RunFilter | None = None,
        *,
        order: runs.RunOrder.ValueType = runs.RunOrder.RUN_ORDER_UNSPECIFIED,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[Run]:
        """Every run that passes `filter`, fetched page by page."""
        return self._iterate(self._client.iter_runs(filter, order=order, view=view, page_size=page_size))

    def count_runs(
        self, filter: RunFilter | None = None, *, timeout: float | None = None
    ) -> runs.CountRunsResponse:
        """How many runs pass `filter`, by state type."""
        return self._run(self._client.count_runs(filter, timeout=timeout))

    def aggregate_runs(
        self, request: runs.AggregateRunsRequest, *, timeout: float | None = None
    ) -> runs.AggregateRunsResponse:
        """Counts by state in equal buckets of time."""
        return self._run(self._client.aggregate_runs(request, timeout=timeout))

    def update_run(self, request: runs.UpdateRunRequest, *, timeout: float | None = None) -> Run:
        """Change the fields in the request's mask; the run as it is then."""
        return self._run(self._client.update_run(request, timeout=timeout))

    def delete_run(
        self, run_id: str, *, force: bool = False, timeout: float | None = None
    ) -> runs.DeleteRunResponse:
        """Delete the run and every run below it; `force`: even while a process may be executing it."""
        return self._run(self._client.delete_run(run_id, force=force, timeout=timeout))

    def propose_state(
        self, request: runs.ProposeStateRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Ask whether a run may enter a state; the verdict is data."""
        return self._run(self._client.propose_state(request, timeout=timeout))

    def list_states(
        self, request: runs.ListStatesRequest, *, timeout: float | None = None
    ) -> runs.ListStatesResponse:
        """One page of a run's states, oldest first."""
        return self._run(self._client.list_states(request, timeout=timeout))

    def iter_states(self, run_id: str, *, page_size: int = PAGE_SIZE_DEFAULT) -> Iterator[State]:
        """Every state of a run, oldest first."""
        return self._iterate(self._client.iter_states(run_id, page_size=page_size))

    def list_attempts(self, run_id: str, *, timeout: float | None = None) -> runs.ListAttemptsResponse:
        """The tries of a run's body."""
        return self._run(self._client.list_attempts(run_id, timeout=timeout))

    def get_run_graph(
        self, run_id: str, *, max_nodes: int = 0, timeout: float | None = None
    ) -> runs.GetRunGraphResponse:
        """The runs below one run, and what each waited for; 0 nodes means the server's default."""
        return self._run(self._client.get_run_graph(run_id, max_nodes=max_nodes, timeout=timeout))

    def take_over_run(self, run_id: str, *, force: bool = False, timeout: float | None = None) -> Run:
        """Become the next attempt of a flow run, which `headrace.execution.attempts` can then execute.

        Args:
            run_id: a flow run that was started on its own, and has not completed.
            force: also take it from a process that may be executing it.
            timeout: seconds for this call.

        Returns:
            The run: its `attempt` and `fence` are the caller's from now on.

        Raises:
            RunActive: a process may be executing it.
            TransitionNotAllowed: it has completed, is paused, or is being cancelled.
        """
        return self._run(self._client.take_over_run(run_id, force=force, timeout=timeout))

    def list_run_steps(
        self, request: runs.ListRunStepsRequest, *, timeout: float | None = None
    ) -> runs.ListRunStepsResponse:
        """One page of the steps that a run has called, oldest first."""
        return self._run(self._client.list_run_steps(request, timeout=timeout))

    def iter_run_steps(
        self, run_id: str, *, max_data_bytes: int = 0, page_size: int = PAGE_SIZE_MAX
    ) -> Iterator[runs.RunStep]:
        """Every step that the run owns, oldest first, without results that are larger."""
        return self._iterate(
            self._client.iter_run_steps(run_id, max_data_bytes=max_data_bytes, page_size=page_size)
        )

    def watch_runs(
        self,
        filter: RunFilter | None = None,
        *,
        view: RunView.ValueType = RunView.RUN_VIEW_UNSPECIFIED,
        resume_token: str = "",
    ) -> Iterator[runs.WatchRunsResponse]:
        """The current set, a bookmark, then every change, over any number of connections.

        A run can come twice. After a break that the server's memory of changes does not cover, the current
        set comes again, ended by a bookmark with `initial_sync_done`: runs that are not in it are gone.

        Raises:
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        return self._iterate(self._client.watch_runs(filter, view=view, resume_token=resume_token))

    def cancel_run(
        self,
        run_id: str,
        *,
        reason: str = "",
        grace_seconds: float | None = None,
        timeout: float | None = None,
    ) -> runs.ProposeStateResponse:
        """End a run before its body does; the verdict is data.

        Args:
            run_id: a flow run, or a task run at the top of its own tree.
            reason: why; the message of the run's last state.
            grace_seconds: how long its process may take before the server ends the run itself; None: 30.
            timeout: seconds for this call.

        Returns:
            Accepted: the run is being cancelled. Rejected: no process held it, and it is CANCELLED. Aborted:
            it had ended before.
        """
        return self._run(
            self._client.cancel_run(run_id, reason=reason, grace_seconds=grace_seconds, timeout=timeout)
        )

    def pause_run(
        self, request: runs.PauseRunRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Pause or suspend a running run from outside; the verdict is data."""
        return self._run(self._client.pause_run(request, timeout=timeout))

    def resume_run(
        self, request: runs.ResumeRunRequest, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Let a paused run go on.

        Returns:
            The verdict: aborted when the run is not paused, rejected when its pause was over.

        Raises:
            FieldsInvalid: the input does not fit; the run stays paused.
        """
        return self._run(self._client.resume_run(request, timeout=timeout))

    def send_run_input(self, said: runs.RunInput, *, timeout: float | None = None) -> runs.RunInput:
        """Tell a run something, once per key.

        Raises:
            ObjectAlreadyExists: it was told something else under the key.
        """
        return self._run(self._client.send_run_input(said, timeout=timeout))

    def list_run_inputs(
        self, request: runs.ListRunInputsRequest, *, timeout: float | None = None
    ) -> runs.ListRunInputsResponse:
        """One page of what a run was told, oldest first."""
        return self._run(self._client.list_run_inputs(request, timeout=timeout))

    def delete_run_input(self, run_id: str, key: str, *, timeout: float | None = None) -> None:
        """Forget what a run was told under the key."""
        return self._run(self._client.delete_run_input(run_id, key, timeout=timeout))

    def watch_run_inputs(
        self, run_id: str, key_prefix: str = "", *, resume_token: str = ""
    ) -> Iterator[runs.WatchRunInputsResponse]:
        """What a run was told, a bookmark, then everything new, over any number of connections.

        Raises:
            ObjectNotFound: there is no such run.
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        return self._iterate(self._client.watch_run_inputs(run_id, key_prefix, resume_token=resume_token))

    def get_flow(
        self, *, id: str = "", name: str = "", timeout: float | None = None
    ) -> flows.GetFlowResponse:
        """The flow with that id, or that name, and its runs by state."""
        return self._run(self._client.get_flow(id=id, name=name, timeout=timeout))

    def list_flows(
        self, request: flows.ListFlowsRequest, *, timeout: float | None = None
    ) -> flows.ListFlowsResponse:
        """One page of flows, by name."""
        return self._run(self._client.list_flows(request, timeout=timeout))

    def iter_flows(self, name_contains: str = "", *, page_size: int = PAGE_SIZE_DEFAULT) -> Iterator[Flow]:
        """Every flow whose name contains the text, by name."""
        return self._iterate(self._client.iter_flows(name_contains, page_size=page_size))

    def delete_flow(
        self, *, id: str = "", name: str = "", force: bool = False, timeout: float | None = None
    ) -> flows.DeleteFlowResponse:
        """Delete a flow and all its runs; `force`: even while processes may be executing some."""
        return self._run(self._client.delete_flow(id=id, name=name, force=force, timeout=timeout))

    def list_logs(
        self, request: logs.ListLogsRequest, *, timeout: float | None = None
    ) -> logs.ListLogsResponse:
        """One page of log lines."""
        return self._run(self._client.list_logs(request, timeout=timeout))

    def iter_logs(
        self,
        filter: LogFilter | None = None,
        *,
        order: logs.LogOrder.ValueType = logs.LogOrder.LOG_ORDER_UNSPECIFIED,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[LogEntry]:
        """Every log line that passes `filter`."""
        return self._iterate(self._client.iter_logs(filter, order=order, page_size=page_size))

    def tail_logs(
        self, filter: LogFilter | None = None, *, backfill: int = 0, resume_token: str = ""
    ) -> Iterator[logs.TailLogsResponse]:
        """The last `backfill` lines, then every new one, over any number of connections.

        Raises:
            ServerUnavailable: the server has been away for the time limit of a call.
        """
        return self._iterate(self._client.tail_logs(filter, backfill=backfill, resume_token=resume_token))

    def list_spans(
        self, request: spans.ListSpansRequest, *, timeout: float | None = None
    ) -> spans.ListSpansResponse:
        """One page of spans, by start time."""
        return self._run(self._client.list_spans(request, timeout=timeout))

    def iter_spans(self, filter: spans.SpanFilter, *, page_size: int = PAGE_SIZE_DEFAULT) -> Iterator[Span]:
        """Every span that passes `filter`."""
        return self._iterate(self._client.iter_spans(filter, page_size=page_size))

    def record_batch(
        self, request: record.RecordBatchRequest, *, timeout: float | None = None
    ) -> record.RecordBatchResponse:
        """Record one batch; the call to repeat when it is not known whether it arrived."""
        return self._run(self._client.record_batch(request, timeout=timeout))

    def get_server_info(self, *, timeout: float | None = None) -> admin.GetServerInfoResponse:
        """Version, protocol, limits and database of the server."""
        return self._run(self._client.get_server_info(timeout=timeout))

    def create_backfill(
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
        return self._run(self._client.create_backfill(backfill, dry_run=dry_run, timeout=timeout))

    def get_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """The backfill with that id, and how far it is."""
        return self._run(self._client.get_backfill(backfill_id, timeout=timeout))

    def list_backfills(
        self, request: backfills.ListBackfillsRequest, *, timeout: float | None = None
    ) -> backfills.ListBackfillsResponse:
        """One page of backfills, newest first."""
        return self._run(self._client.list_backfills(request, timeout=timeout))

    def iter_backfills(
        self,
        deployment_ids: Sequence[str] = (),
        *,
        states: Sequence[BackfillState.ValueType] = (),
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[Backfill]:
        """Every backfill of the deployments, or of all, newest first.

        Args:
            deployment_ids: of the deployments; none: of all.
            states: only in one of these; none: in any.
            page_size: how many are asked for at once.
        """
        return self._iterate(self._client.iter_backfills(deployment_ids, states=states, page_size=page_size))

    def list_backfill_runs(
        self, request: backfills.ListBackfillRunsRequest, *, timeout: float | None = None
    ) -> backfills.ListBackfillRunsResponse:
        """One page of the instants that a backfill has come to, oldest first."""
        return self._run(self._client.list_backfill_runs(request, timeout=timeout))

    def iter_backfill_runs(
        self, backfill_id: str, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[BackfillRun]:
        """Every instant that the backfill has come to, oldest first, and how its run has ended."""
        return self._iterate(self._client.iter_backfill_runs(backfill_id, page_size=page_size))

    def pause_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make no more runs for now; those that were made go on.

        Raises:
            PreconditionFailed: it has ended, or is being cancelled.
        """
        return self._run(self._client.pause_backfill(backfill_id, timeout=timeout))

    def resume_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make runs again.

        Raises:
            PreconditionFailed: it has ended, or is being cancelled.
        """
        return self._run(self._client.resume_backfill(backfill_id, timeout=timeout))

    def cancel_backfill(self, backfill_id: str, *, timeout: float | None = None) -> Backfill:
        """Make no more runs, and cancel those that have not started.

        Raises:
            PreconditionFailed: it has ended.
        """
        return self._run(self._client.cancel_backfill(backfill_id, timeout=timeout))

    def look_up_cache_entry(self, key: str, *, timeout: float | None = None) -> CacheEntry | None:
        """What a call with the key may use; None: nothing."""
        return self._run(self._client.look_up_cache_entry(key, timeout=timeout))

    def put_cache_entry(
        self,
        entry: CacheEntry,
        *,
        lifetime: timedelta | None = None,
        fence: int = 0,
        timeout: float | None = None,
    ) -> CacheEntry:
        """Say where the result of a key is, in place of what was said before.

        Args:
            entry: its `result` is a reference.
            lifetime: how long it may be used; None: always.
            fence: of the lock that the caller has of the key; 0: none.
            timeout: seconds for this call.

        Raises:
            LockLost: somebody else has had the lock since.
            FieldsInvalid: the result is a value.
        """
        return self._run(self._client.put_cache_entry(entry, lifetime=lifetime, fence=fence, timeout=timeout))

    def list_cache_entries(
        self, request: cache.ListCacheEntriesRequest, *, timeout: float | None = None
    ) -> cache.ListCacheEntriesResponse:
        """One page of entries, by key."""
        return self._run(self._client.list_cache_entries(request, timeout=timeout))

    def iter_cache_entries(
        self, filter: CacheFilter | None = None, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[CacheEntry]:
        """Every entry that matches, by key."""
        return self._iterate(self._client.iter_cache_entries(filter, page_size=page_size))

    def invalidate_cache_entries(
        self, filter: CacheFilter | None = None, *, all: bool = False, timeout: float | None = None
    ) -> int:
        """Have the next calls compute anew; gives how many entries went.

        Args:
            filter: which.
            all: every one; without a filter.
            timeout: seconds for this call.

        Raises:
            FieldsInvalid: neither or both are given.
        """
        return self._run(self._client.invalidate_cache_entries(filter, all=all, timeout=timeout))

    def apply_deployment(
        self,
        deployment: Deployment,
        paths: Sequence[str] = (),
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> deployments.ApplyDeploymentResponse:
        """Make a deployment what the message says; applying the same again changes nothing.

        Args:
            deployment: `flow_name`, `name`, the fields in `paths`, and an `etag` if it must still be that.
            paths: the fields that count; none: all of them.
            dry_run: only say what would change.
            timeout: seconds for this call.

        Raises:
            FieldsInvalid: it makes no sense; every problem has its path.
            ObjectNotFound: there is no such work pool.
            EtagMismatch: it has changed.
        """
        return self._run(self._client.apply_deployment(deployment, paths, dry_run=dry_run, timeout=timeout))

    def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """The deployment."""
        return self._run(self._client.get_deployment(deployment, timeout=timeout))

    def list_deployments(
        self, request: deployments.ListDeploymentsRequest, *, timeout: float | None = None
    ) -> deployments.ListDeploymentsResponse:
        """One page of deployments, by flow and name."""
        return self._run(self._client.list_deployments(request, timeout=timeout))

    def iter_deployments(
        self, filter: deployments.DeploymentFilter | None = None, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[Deployment]:
        """Every deployment that passes `filter`, by flow and name."""
        return self._iterate(self._client.iter_deployments(filter, page_size=page_size))

    def list_deployment_versions(
        self, request: deployments.ListDeploymentVersionsRequest, *, timeout: float | None = None
    ) -> deployments.ListDeploymentVersionsResponse:
        """One page of a deployment's versions, newest first."""
        return self._run(self._client.list_deployment_versions(request, timeout=timeout))

    def iter_deployment_versions(
        self, deployment: str, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[DeploymentVersion]:
        """Every version of a deployment, newest first."""
        return self._iterate(self._client.iter_deployment_versions(deployment, page_size=page_size))

    def rollback_deployment(
        self, deployment: str, number: int = 0, *, timeout: float | None = None
    ) -> deployments.RollbackDeploymentResponse:
        """Make a new version that equals an older one; 0: the one before the current.

        Raises:
            ObjectNotFound: there is no such version.
            PreconditionFailed: there is only one.
        """
        return self._run(self._client.rollback_deployment(deployment, number, timeout=timeout))

    def pause_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Let no schedule make a run; runs made by hand still start."""
        return self._run(self._client.pause_deployment(deployment, timeout=timeout))

    def resume_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Let the schedules make runs again."""
        return self._run(self._client.resume_deployment(deployment, timeout=timeout))

    def delete_deployment(
        self, deployment: str, *, timeout: float | None = None
    ) -> deployments.DeleteDeploymentResponse:
        """Delete a deployment with its schedules, versions, and every run that never started."""
        return self._run(self._client.delete_deployment(deployment, timeout=timeout))

    def create_deployment_run(
        self, request: deployments.CreateDeploymentRunRequest, *, timeout: float | None = None
    ) -> deployments.CreateDeploymentRunResponse:
        """Ask for one run, once per run id and per idempotency key.

        Raises:
            ParametersInvalid: the parameters do not fit the deployment's schema; every problem has its path.
            ObjectNotFound: there is no such deployment.
        """
        return self._run(self._client.create_deployment_run(request, timeout=timeout))

    def list_events(
        self, request: events.ListEventsRequest, *, timeout: float | None = None
    ) -> events.ListEventsResponse:
        """One page of events, newest first unless the request says otherwise."""
        return self._run(self._client.list_events(request, timeout=timeout))

    def iter_events(
        self,
        filter: EventFilter | None = None,
        *,
        oldest_first: bool = False,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[Event]:
        """Every event that matches, newest first unless told otherwise."""
        return self._iterate(self._client.iter_events(filter, oldest_first=oldest_first, page_size=page_size))

    def acquire_lock(
        self,
        key: str,
        holder: str,
        *,
        lease_seconds: float,
        wait_seconds: float = 0.0,
        hold_timeout_seconds: float | None = None,
        client: str = "",
        timeout: float | None = None,
    ) -> locks.AcquireLockResponse:
        """Acquire a lock, unless somebody else has it.

        Args:
            key: what is locked.
            holder: for whom; who has it gets it again.
            lease_seconds: for how long, unless it is renewed.
            wait_seconds: how long to wait for it, at most 60.
            hold_timeout_seconds: for how long at most; None: as long as it is renewed.
            client: which process asks, for people.
            timeout: seconds for this call, which the waiting is part of.
        """
        return self._run(
            self._client.acquire_lock(
                key,
                holder,
                lease_seconds=lease_seconds,
                wait_seconds=wait_seconds,
                hold_timeout_seconds=hold_timeout_seconds,
                client=client,
                timeout=timeout,
            )
        )

    def renew_locks(
        self, held: Sequence[LockRef], lease_seconds: float, *, timeout: float | None = None
    ) -> list[LockRef]:
        """Have leases begin anew; gives those that were lost."""
        return self._run(self._client.renew_locks(held, lease_seconds, timeout=timeout))

    def release_lock(self, key: str, holder: str, *, fence: int = 0, timeout: float | None = None) -> bool:
        """Give a lock back; gives whether the holder had it.

        Args:
            key: of the lock.
            holder: as it was acquired.
            fence: which holding of it; 0: whichever it is.
            timeout: seconds for this call.
        """
        return self._run(self._client.release_lock(key, holder, fence=fence, timeout=timeout))

    def get_lock(self, key: str, *, timeout: float | None = None) -> Lock:
        """Who has the lock.

        Raises:
            ObjectNotFound: nobody.
        """
        return self._run(self._client.get_lock(key, timeout=timeout))

    def wait_for_lock(self, key: str, *, wait_seconds: float = 0.0, timeout: float | None = None) -> bool:
        """Wait until nobody has the lock, at most 60 s; gives whether that came about."""
        return self._run(self._client.wait_for_lock(key, wait_seconds=wait_seconds, timeout=timeout))

    def list_locks(
        self, request: locks.ListLocksRequest, *, timeout: float | None = None
    ) -> locks.ListLocksResponse:
        """One page of locks, by key."""
        return self._run(self._client.list_locks(request, timeout=timeout))

    def iter_locks(self, key_prefix: str = "", *, page_size: int = PAGE_SIZE_DEFAULT) -> Iterator[Lock]:
        """Every lock whose key begins so, by key; also those of holders that are silent."""
        return self._iterate(self._client.iter_locks(key_prefix, page_size=page_size))

    def retry_run(
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
        return self._run(self._client.retry_run(run_id, scheduled_time=scheduled_time, timeout=timeout))

    def reschedule_run(
        self, run_id: str, scheduled_time: datetime, *, timeout: float | None = None
    ) -> runs.ProposeStateResponse:
        """Give a run that nobody executes another time to start, with a time zone; the verdict is data."""
        return self._run(self._client.reschedule_run(run_id, scheduled_time, timeout=timeout))

    def explain_run(self, run_id: str, *, timeout: float | None = None) -> runs.ExplainRunResponse:
        """Why a run does not run: the one thing that it waits for."""
        return self._run(self._client.explain_run(run_id, timeout=timeout))

    def create_schedule(
        self, schedule: Schedule, *, request_id: str = "", timeout: float | None = None
    ) -> Schedule:
        """Make a schedule.

        Args:
            schedule: `deployment_id` and one of `cron`, `interval` and `rrule` must be set.
            request_id: repeating the call with it makes no second one; empty: one is made up.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such deployment.
            ObjectAlreadyExists: the deployment has another schedule of the slug.
            FieldsInvalid: it cannot be kept; the violation names the field.
        """
        return self._run(self._client.create_schedule(schedule, request_id=request_id, timeout=timeout))

    def get_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """The schedule with that id."""
        return self._run(self._client.get_schedule(schedule_id, timeout=timeout))

    def list_schedules(
        self, request: schedules.ListSchedulesRequest, *, timeout: float | None = None
    ) -> schedules.ListSchedulesResponse:
        """One page of schedules, oldest first."""
        return self._run(self._client.list_schedules(request, timeout=timeout))

    def iter_schedules(
        self,
        deployment_ids: Sequence[str] = (),
        *,
        active_only: bool = False,
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[Schedule]:
        """Every schedule of the deployments, or of all, oldest first."""
        return self._iterate(
            self._client.iter_schedules(deployment_ids, active_only=active_only, page_size=page_size)
        )

    def update_schedule(
        self, schedule: Schedule, paths: Sequence[str], *, timeout: float | None = None
    ) -> Schedule:
        """Change the fields in `paths`, such as `cron`, `parameters` or `overlap`.

        Raises:
            EtagMismatch: `schedule.etag` is set, and the schedule has changed.
        """
        return self._run(self._client.update_schedule(schedule, paths, timeout=timeout))

    def delete_schedule(self, schedule_id: str, *, timeout: float | None = None) -> None:
        """Delete a schedule, and the runs that it made for later."""
        return self._run(self._client.delete_schedule(schedule_id, timeout=timeout))

    def pause_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """Make no more runs; those that it made and nobody has begun with go."""
        return self._run(self._client.pause_schedule(schedule_id, timeout=timeout))

    def resume_schedule(self, schedule_id: str, *, timeout: float | None = None) -> Schedule:
        """Make runs again, from now on."""
        return self._run(self._client.resume_schedule(schedule_id, timeout=timeout))

    def preview_schedule(
        self,
        schedule: Schedule | str,
        count: int = 10,
        *,
        start: datetime | None = None,
        until: datetime | None = None,
        timeout: float | None = None,
    ) -> list[datetime]:
        """The next fires of a schedule, those that are skipped too: see `preview_fires`.

        Args:
            schedule: the id of one that exists, or one that is only thought of.
            count: how many, at most 1000.
            start: from this instant on, itself included; None: from now on.
            until: only before this instant.
            timeout: seconds for this call.

        Returns:
            Aware datetimes in UTC.
        """
        return self._run(
            self._client.preview_schedule(schedule, count, start=start, until=until, timeout=timeout)
        )

    def preview_fires(
        self,
        schedule: Schedule | str,
        count: int = 10,
        *,
        start: datetime | None = None,
        until: datetime | None = None,
        timeout: float | None = None,
    ) -> list[schedules.ScheduleFire]:
        """The next fires of a schedule, each with the id of its run, to be or not, and whether it is skipped.

        Args:
            schedule: the id of one that exists, or one that is only thought of; that has no runs.
            count: how many, at most 1000.
            start: from this instant on, itself included; None: from now on.
            until: only before this instant.
            timeout: seconds for this call.
        """
        return self._run(
            self._client.preview_fires(schedule, count, start=start, until=until, timeout=timeout)
        )

    def skip_fire(self, schedule_id: str, fire_time: datetime, *, timeout: float | None = None) -> Schedule:
        """Have no run made for one instant to come. Skipping it again changes nothing.

        A run that was made a moment before the instant goes, unless somebody has begun with it.

        Args:
            schedule_id: of the schedule.
            fire_time: an instant at which it fires, aware.
            timeout: seconds for this call.

        Returns:
            The schedule; `skipped_times` has all that are skipped.

        Raises:
            ObjectNotFound: there is no such schedule.
            FieldsInvalid: it does not fire then, the instant is past, or a hundred are skipped already.
            PreconditionFailed: the run of the instant has begun.
        """
        return self._run(self._client.skip_fire(schedule_id, fire_time, timeout=timeout))

    def unskip_fire(self, schedule_id: str, fire_time: datetime, *, timeout: float | None = None) -> Schedule:
        """Have a run made for an instant after all, if it is still to come; one that is not skipped stays so.

        Args:
            schedule_id: of the schedule.
            fire_time: the instant, aware.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such schedule.
        """
        return self._run(self._client.unskip_fire(schedule_id, fire_time, timeout=timeout))

    def trigger_schedule(
        self, schedule_id: str, *, request_id: str = "", timeout: float | None = None
    ) -> Run:
        """Make one run now, with the schedule's parameters.

        Args:
            schedule_id: of the schedule, which may be paused.
            request_id: repeating the call with it makes no second run; empty: one is made up.
            timeout: seconds for this call.
        """
        return self._run(self._client.trigger_schedule(schedule_id, request_id=request_id, timeout=timeout))

    def backfill_schedule(
        self, request: schedules.BackfillScheduleRequest, *, timeout: float | None = None
    ) -> list[schedules.BackfillFire]:
        """Make the runs of a range of time, those that exist already excepted; at most 1000 at once.

        Returns:
            Every fire of the range, with its run.
        """
        return self._run(self._client.backfill_schedule(request, timeout=timeout))

    def create_work_pool(
        self, work_pool: WorkPool, *, return_existing: bool = False, timeout: float | None = None
    ) -> pools.CreateWorkPoolResponse:
        """Make a pool, with its default queue.

        Args:
            work_pool: `name` and `type` must be set. Without a base job template it gets its type's.
            return_existing: a pool of that name and type is fine, whatever else it says.
            timeout: seconds for this call.

        Raises:
            ObjectAlreadyExists: there is another pool of the name.
            FieldsInvalid: a field breaks a rule, or the template is not sound.
        """
        return self._run(
            self._client.create_work_pool(work_pool, return_existing=return_existing, timeout=timeout)
        )

    def get_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """The pool with that name."""
        return self._run(self._client.get_work_pool(name, timeout=timeout))

    def list_work_pools(
        self, request: pools.ListWorkPoolsRequest, *, timeout: float | None = None
    ) -> pools.ListWorkPoolsResponse:
        """One page of pools, by name."""
        return self._run(self._client.list_work_pools(request, timeout=timeout))

    def iter_work_pools(
        self, name_contains: str = "", *, types: Sequence[str] = (), page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[WorkPool]:
        """Every pool whose name contains the text, of one of the types if any are given."""
        return self._iterate(self._client.iter_work_pools(name_contains, types=types, page_size=page_size))

    def update_work_pool(
        self, work_pool: WorkPool, paths: Sequence[str], *, timeout: float | None = None
    ) -> WorkPool:
        """Change the fields in `paths`: `description`, `base_job_template`, `concurrency_limit`, `paused`.

        Raises:
            EtagMismatch: `work_pool.etag` is set, and the pool has changed.
        """
        return self._run(self._client.update_work_pool(work_pool, paths, timeout=timeout))

    def delete_work_pool(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a pool with its queues; deployments and runs keep its name, and wait."""
        return self._run(self._client.delete_work_pool(name, timeout=timeout))

    def pause_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """Hand out no more runs of the pool; what runs goes on."""
        return self._run(self._client.pause_work_pool(name, timeout=timeout))

    def resume_work_pool(self, name: str, *, timeout: float | None = None) -> WorkPool:
        """Hand out runs of the pool again."""
        return self._run(self._client.resume_work_pool(name, timeout=timeout))

    def create_work_queue(
        self, work_queue: WorkQueue, *, return_existing: bool = False, timeout: float | None = None
    ) -> pools.CreateWorkQueueResponse:
        """Make a queue. Priority 0 is the first that is free; who has the one asked for makes room.

        Raises:
            ObjectNotFound: there is no such pool.
            ObjectAlreadyExists: the pool has another queue of the name.
        """
        return self._run(
            self._client.create_work_queue(work_queue, return_existing=return_existing, timeout=timeout)
        )

    def get_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> WorkQueue:
        """The queue of the pool with that name."""
        return self._run(self._client.get_work_queue(work_pool, name, timeout=timeout))

    def list_work_queues(
        self, request: pools.ListWorkQueuesRequest, *, timeout: float | None = None
    ) -> pools.ListWorkQueuesResponse:
        """One page of queues, by pool and priority."""
        return self._run(self._client.list_work_queues(request, timeout=timeout))

    def iter_work_queues(
        self, work_pool: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[WorkQueue]:
        """Every queue of the pool, or of all pools, by pool and priority."""
        return self._iterate(self._client.iter_work_queues(work_pool, page_size=page_size))

    def update_work_queue(
        self,
        work_queue: WorkQueue,
        paths: Sequence[str] = (),
        *,
        new_name: str = "",
        timeout: float | None = None,
    ) -> WorkQueue:
        """Change `description`, `priority`, `concurrency_limit` or `paused`, as `paths` says, or the name.

        Raises:
            EtagMismatch: `work_queue.etag` is set, and the queue has changed.
            ObjectAlreadyExists: another queue of the pool has the new name.
        """
        return self._run(
            self._client.update_work_queue(work_queue, paths, new_name=new_name, timeout=timeout)
        )

    def delete_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> None:
        """Delete a queue; the runs that wait in it wait in the pool's default one.

        Raises:
            PreconditionFailed: it is the default one.
        """
        return self._run(self._client.delete_work_queue(work_pool, name, timeout=timeout))

    def pause_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> WorkQueue:
        """Hand out no more runs of the queue; what runs goes on."""
        return self._run(self._client.pause_work_queue(work_pool, name, timeout=timeout))

    def resume_work_queue(self, work_pool: str, name: str, *, timeout: float | None = None) -> WorkQueue:
        """Hand out runs of the queue again."""
        return self._run(self._client.resume_work_queue(work_pool, name, timeout=timeout))

    def set_fairness_rule(self, rule: FairnessRule, *, timeout: float | None = None) -> FairnessRule:
        """Make the rule of a fairness key what is said.

        Args:
            rule: `work_pool` and `fairness_key` must be set; without `weight` it is 1, without
                `concurrency_limit` there is none.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such work pool.
            FieldsInvalid: the weight is not between 0.01 and 100.
        """
        return self._run(self._client.set_fairness_rule(rule, timeout=timeout))

    def list_fairness_rules(
        self, request: pools.ListFairnessRulesRequest, *, timeout: float | None = None
    ) -> pools.ListFairnessRulesResponse:
        """One page of rules of fairness keys, by work pool and key."""
        return self._run(self._client.list_fairness_rules(request, timeout=timeout))

    def iter_fairness_rules(
        self, work_pool: str = "", *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> Iterator[FairnessRule]:
        """Every rule of the work pool, or of all, with what waits and runs under each."""
        return self._iterate(self._client.iter_fairness_rules(work_pool, page_size=page_size))

    def delete_fairness_rule(
        self, work_pool: str, fairness_key: str, *, timeout: float | None = None
    ) -> None:
        """Give a fairness key weight 1 and no limit again.

        Raises:
            ObjectNotFound: there is no such work pool, or it has no rule for the key.
        """
        return self._run(self._client.delete_fairness_rule(work_pool, fairness_key, timeout=timeout))

    def get_worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """The worker with that id, with the attempts it holds."""
        return self._run(self._client.get_worker(worker_id, timeout=timeout))

    def list_workers(
        self, request: workers.ListWorkersRequest, *, timeout: float | None = None
    ) -> workers.ListWorkersResponse:
        """One page of workers, by name."""
        return self._run(self._client.list_workers(request, timeout=timeout))

    def iter_workers(
        self,
        work_pool: str = "",
        *,
        statuses: Sequence[WorkerStatus.ValueType] = (),
        page_size: int = PAGE_SIZE_DEFAULT,
    ) -> Iterator[Worker]:
        """Every worker, of the pool and in one of the statuses if any are given."""
        return self._iterate(self._client.iter_workers(work_pool, statuses=statuses, page_size=page_size))

    def drain_worker(
        self, worker_id: str, *, deadline_seconds: float | None = None, timeout: float | None = None
    ) -> Worker:
        """Have the worker take nothing new, finish what it holds, and leave.

        Args:
            worker_id: the worker.
            deadline_seconds: what still runs then is given back; None: it may take as long as it likes.
            timeout: seconds for this call.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is offline.
        """
        return self._run(
            self._client.drain_worker(worker_id, deadline_seconds=deadline_seconds, timeout=timeout)
        )

    def delete_worker(self, worker_id: str, *, timeout: float | None = None) -> None:
        """Forget a worker that is offline.

        Raises:
            ObjectNotFound: there is no such worker.
            PreconditionFailed: it is online.
        """
        return self._run(self._client.delete_worker(worker_id, timeout=timeout))
