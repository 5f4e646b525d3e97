"""What the task runners have in common whose tasks run on a cluster."""

from __future__ import annotations

import pickle
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from weakref import WeakSet

from headrace.exceptions import MissingResult, SerializationError
from headrace.recorder import get_recorder
from headrace.settings import get_current_settings
from headrace.task_runners.base import logger
from headrace.task_runners.elsewhere import ElsewhereTaskRunner, NotTaken

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.engine.tasks import TaskCall
    from headrace.execution.processes.kept import RemoteResult
    from headrace.execution.processes.lines import Lines
    from headrace.execution.processes.messages import Channel, Ended, Job, Refused
    from headrace.execution.submissions import Submission
    from headrace.results import StoredResult

__all__ = ["ClusterTaskRunner", "Placed"]

_IN_FLIGHT_MAX: Final = 1000
"""How many tasks a cluster is given at a time at most; each takes a thread here that waits."""
_AHEAD: Final = 16
"""How many tasks a cluster is given beyond twice as many as it runs, so that no worker has to wait."""


class Placed(Protocol):
    """A job that a cluster has been given."""

    @property
    def reference(self) -> Any:
        """What the cluster knows its result by, as an argument of another job."""
        ...

    def call_when_done(self, fn: Callable[[], object]) -> None:
        """Call `fn` when the cluster has nothing more to do for it; from any thread."""
        ...

    def is_done(self) -> bool:
        """Whether the cluster has nothing more to do for it."""
        ...

    def outcome(self) -> Ended | Refused | None:
        """How it ended; None when that was said on the line.

        Raises:
            Exception: the cluster's error.
        """
        ...

    def result(self) -> bytes:
        """The result that has stayed on the cluster.

        Raises:
            Exception: the cluster's error.
        """
        ...

    def give_up(self) -> None:
        """Have the cluster forget it."""
        ...


class ClusterTaskRunner(ElsewhereTaskRunner):
    """A thread of this process waits for each task run that the cluster has been given.

    Args:
        max_workers: how many tasks run at once; None: as many as the cluster can run.
    """

    _carries_environment = False

    def __init__(self, max_workers: int | None) -> None:
        super().__init__(max_workers)
        self._capacity: int | None = None
        self._lines: Lines | None = None
        self._channels: set[Channel] = set()
        self._is_cancelled = False
        self._left: WeakSet[RemoteResult] = WeakSet()

    @abstractmethod
    def _open(self) -> int | None:
        """Connect to the cluster, or start one.

        Returns:
            How many tasks it can run at once, if that is for ever and all its workers are on this machine.
        """

    @abstractmethod
    def _close(self) -> None:
        """Leave the cluster, and stop it if it was started here."""

    @abstractmethod
    def _place(self, call: TaskCall, packed_job: bytes, parts: Sequence[Any]) -> Placed:
        """Have the cluster call `work`; called in the context of the submission.

        Args:
            call: the task run.
            packed_job: the job.
            parts: references to further arguments.
        """

    def _limit(self) -> int | None:
        return (
            self._max_workers
            if self._capacity is None
            else min(self._max_workers or _IN_FLIGHT_MAX, self._capacity)
        )

    def _thread_count(self) -> int:
        if self._max_workers is not None:
            return min(self._max_workers, _IN_FLIGHT_MAX)
        return min(_IN_FLIGHT_MAX if self._capacity is None else 2 * self._capacity + _AHEAD, _IN_FLIGHT_MAX)

    def _has_begun(self, submission: Submission) -> bool:
        waits = self._lines is not None and self._lines.is_expected(submission.future.task_run_id)
        return super()._has_begun(submission) and not waits

    def _cancel(self, submissions: list[Submission]) -> None:
        super()._cancel(submissions)
        # A worker that asks nobody cannot be stopped any more.
        if self._capacity is not None and self._lines is not None:
            for submission in reversed(submissions):
                self._lines.revoke(submission.future.task_run_id)

    def __enter__(self) -> Self:
        # Not with the module: flows that run in threads have no use for it.
        from headrace.execution.processes.lines import Lines

        if self._is_started:
            raise RuntimeError("This task runner is already started")
        self._capacity = self._open()
        self._lines = Lines()
        self._is_cancelled = False
        return super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(exc_type, exc, traceback)
        finally:
            if self._lines is not None:
                self._lines.close()
            self._close()

    def cancel_all(self) -> None:
        super().cancel_all()
        with self._lock:
            self._is_cancelled = True
            channels = list(self._channels)
        for channel in channels:
            _cancel(channel)

    def _leave(self) -> None:
        # The cluster may be gone after this, and futures and states may be asked for ever.
        for result in list(self._left):
            try:
                result.load()
            except (MissingResult, SerializationError) as error:
                logger.error("%s", error)

    def _stays(self, result: StoredResult) -> bool:
        from headrace.execution.processes.kept import RemoteResult

        return isinstance(result, RemoteResult) and result.holder is self

    def _run(
        self, call: TaskCall, make_job: Callable[[bool], Job], references: Sequence[Any]
    ) -> Ended | Refused:
        from headrace.execution.processes.messages import Ended, Left
        from headrace.task_runners.cluster_worker import ClusterJob

        assert self._lines is not None
        job = ClusterJob(make_job(self._is_cancelled), self._lines.address, sys.path)
        self._see_recorded()
        with self._lines.expect(call.run.id) as events:
            placed = self._place(call, pickle.dumps(job), references)
            placed.call_when_done(lambda: events.put("done"))
            event = events.get()
        if event == "revoked":
            placed.give_up()
            raise NotTaken
        outcome = self._collect(placed) if event == "done" else self._serve(call, placed, event)
        if isinstance(outcome, Ended) and isinstance(outcome.data, Left):
            return replace(outcome, data=self._value_left(call, placed, outcome.data.size_bytes))
        return outcome

    def _see_recorded(self) -> None:
        """A worker on another machine must not be the first that the server hears of the run from."""
        if self._capacity is None and get_current_settings().api_url not in ("auto", "off"):
            recorder = get_recorder()
            recorder.durable(recorder.last_seq).result()

    def _serve(self, call: TaskCall, placed: Placed, channel: Channel) -> Ended | Refused:
        from headrace.execution.processes.children import ChildDied
        from headrace.execution.processes.desk import Desk, RemoteBody, serve_job

        desk = Desk(call, channel.send)
        call.context.scope = RemoteBody(call, lambda message: _send_quietly(channel, message))
        with self._lock:
            self._channels.add(channel)
        if self._is_cancelled:
            _cancel(channel)
        if call.context.cancel_reason() is not None:
            call.context.scope.interrupt()
        try:
            return serve_job(channel, desk, lambda: not placed.is_done())
        except (EOFError, OSError):
            reason = "Execution was ended by the death of the worker that ran it."
            desk.end_unended(reason)
            placed.give_up()
            raise ChildDied(reason, was_taken=True) from None
        finally:
            call.context.scope = None
            with self._lock:
                self._channels.discard(channel)
            channel.close()

    def _collect(self, placed: Placed) -> Ended | Refused:
        """What the cluster says of a job for which there was no line."""
        from headrace.execution.processes.children import ChildDied

        try:
            outcome = placed.outcome()
        except Exception as error:
            raise ChildDied(f"Execution was ended by the cluster: {error}", was_taken=True) from error
        assert outcome is not None, "what was said on a line has been heard"
        return outcome

    def _value_left(self, call: TaskCall, placed: Placed, size_bytes: int) -> RemoteResult:
        from headrace.execution.processes.kept import RemoteResult
        from headrace.execution.processes.shipping import unpacked

        flow, run_id, name = call.context.flow_context, call.run.id, call.run.name

        def fetch() -> Any:
            try:
                blob = placed.result()
            except Exception as error:
                raise MissingResult(
                    f"The result of task run '{name}' was lost by its cluster: {error}"
                ) from error
            value = unpacked(blob)
            if flow is not None:
                flow.origins.remember(value, run_id)
            return value

        result = RemoteResult(self, placed.reference, size_bytes, fetch)
        self._left.add(result)
        return result


def _cancel(channel: Channel) -> None:
    from headrace.execution.processes.messages import Cancel

    _send_quietly(channel, Cancel())


def _send_quietly(channel: Channel, message: object) -> None:
    try:
        channel.send(message)
    except OSError:
        pass  # whoever waits for its answers sees that it is gone
