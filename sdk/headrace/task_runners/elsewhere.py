"""What those task runners have in common whose tasks run in other processes."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from headrace.exceptions import SerializationError
from headrace.execution import api
from headrace.execution.submissions import NOT_STARTED
from headrace.task_runners.base import PoolTaskRunner, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.context_transfer import Describer
    from headrace.engine.tasks import TaskCall
    from headrace.execution.processes.messages import Ended, Job, Refused
    from headrace.results import StoredResult

__all__ = ["ElsewhereTaskRunner", "NotTaken"]


class NotTaken(Exception):
    """A job was withdrawn before any process had begun with it."""


class ElsewhereTaskRunner(PoolTaskRunner):
    """A thread of this process prepares each task run, has another process execute it, and takes it over."""

    _carries_environment: ClassVar[bool]
    """Whether tasks see the environment of their submission."""

    def __init__(self, max_workers: int | None) -> None:
        super().__init__(max_workers)
        self._describer: Describer | None = None

    @abstractmethod
    def _run(
        self, call: TaskCall, make_job: Callable[[bool], Job], references: Sequence[Any]
    ) -> Ended | Refused:
        """Have another process execute a job.

        Args:
            call: the run; its state follows what the process records.
            make_job: makes the job; told whether everything has been cancelled.
            references: to the results that the arguments only name; there are none unless results stay there.

        Returns:
            How it ended; a result that has stayed there is a `RemoteResult`.

        Raises:
            ChildDied: the process did not live to say how the job ended.
            NotTaken: the job was withdrawn.
            Exception: the job cannot be sent, or there is no process for it.
        """

    def _stays(self, result: StoredResult) -> bool:
        """Whether a result that is stored elsewhere need not come here to get to its next task."""
        return False

    def __enter__(self) -> Self:
        # Not with the module: flows that run in threads have no use for it.
        from headrace.context_transfer import Describer

        super().__enter__()
        self._describer = Describer()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        self._leave()

    @abstractmethod
    def _leave(self) -> None:
        """Let the other processes go: nothing runs there any more."""

    def _execute(self, call: TaskCall) -> None:
        from headrace.execution.processes.children import ChildDied
        from headrace.execution.processes.messages import Refused
        from headrace.execution.processes.shipping import packed_call, unpacked

        if api.prepare_task_run(call, self._stays) is not None:
            return
        references: list[Any] = []
        try:
            blob = packed_call(call.context.task, call.context.parameters, references)
            ended = self._run(call, lambda is_cancelled: self._job(call, blob, is_cancelled), references)
        except NotTaken:
            api.cancel_task_run(call, NOT_STARTED)
        except ChildDied as death:
            if call.run.state is None or not call.run.state.is_final():
                reason = call.context.cancel_reason()
                if reason is None:
                    api.crash_task_run(call, str(death))
                else:
                    api.cancel_task_run(call, reason)
        except Exception as error:
            # It cannot be pickled, there is no such process, or the cluster does not take it.
            api.fail_task_run(call, error)
        else:
            if isinstance(ended, Refused):
                api.fail_task_run(call, unpacked(ended.error))
            else:
                self._take_over(call, ended)

    def _job(self, call: TaskCall, blob: bytes, is_cancelled: bool) -> Job:
        from headrace.context_transfer import portable_run, serialized
        from headrace.execution.processes.messages import Job

        context = call.context
        run: Any = portable_run(call.run)
        environment: Mapping[str, str] = dict(os.environ) if self._carries_environment else {}
        return Job(
            call=blob,
            run=run,
            log_prints=context.log_prints,
            persist_result=context.persist_result,
            context=serialized(self._describer),
            environment=environment,
            is_cancelled=is_cancelled,
            upstream_assets=() if context.assets is None else context.assets.upstream or (),
        )

    def _take_over(self, call: TaskCall, ended: Ended) -> None:
        """The run as its process has left it."""
        from headrace.execution.processes.kept import RemoteResult
        from headrace.execution.processes.shipping import unpacked

        run, flow = call.run, call.context.flow_context
        for name, value in ended.changes.items():
            setattr(run, name, value)
        run.state = ended.state
        if isinstance(ended.data, RemoteResult):
            run.state = ended.state.with_data(ended.data)
        elif isinstance(ended.data, bytes):
            try:
                data = unpacked(ended.data)
            except SerializationError as error:
                logger.error("The result of task run '%s' cannot be read here: %s", run.name, error)
            else:
                run.state = ended.state.with_data(data)
                if run.state.is_completed() and flow is not None:
                    flow.origins.remember(data, run.id)
        api.note_task_run(call)
        if ended.error is not None:
            raise unpacked(ended.error)
