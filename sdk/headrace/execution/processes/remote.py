"""The end of the channel where the job runs, and the recorder there: it records through its parent.

One process, one sequence: what a task in a child records stands between what its flow records before and
after it, and when the child dies, its parent still knows everything that it has said.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from headrace.execution.processes.messages import (
    Cancel,
    Channel,
    Directed,
    Interrupt,
    Lost,
    Reply,
    Request,
    Stop,
)
from headrace.execution.processes.shipping import unpacked

if TYPE_CHECKING:
    from headrace.core.verdicts import Verdict
    from headrace.recorder.api import DirectiveCallback, LostCallback, SuspendedCallback
    from headrace.v1.record_service_pb2 import RecordEntry
    from headrace.v1.state_pb2 import State

__all__ = ["Parent", "RemoteRecorder"]

_GONE: Final = "The process that submitted the task is gone."


class Parent:
    """The process that started this one.

    Args:
        channel: to it.
        on_job: called with each job, and with None when there will be no more.
        on_cancel: called in a thread of its own when waits are to end.
        on_interrupt: called in a thread of its own, with a run id and the reason, when a job is cancelled.
        on_gone: called when the process is no longer there, unless the last word was said before.
    """

    def __init__(
        self,
        channel: Channel,
        on_job: Callable[[Any], object],
        on_cancel: Callable[[], object],
        on_interrupt: Callable[[str, str], object],
        on_gone: Callable[[], object],
    ) -> None:
        self._channel = channel
        self._on_job = on_job
        self._on_cancel = on_cancel
        self._on_interrupt = on_interrupt
        self._on_gone = on_gone
        self._is_leaving = False
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self.owners: dict[str, tuple[LostCallback | None, SuspendedCallback | None]] = {}
        self.attending: dict[str, DirectiveCallback] = {}

    def listen(self) -> None:
        """Read what the parent says, in a thread, until the parent is gone."""
        threading.Thread(target=self._listen, name="headrace-parent", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except (EOFError, OSError):
                return self._is_gone()
            if isinstance(message, Stop):
                self._on_job(None)
            elif isinstance(message, Reply):
                self._answer(message)
            elif isinstance(message, Lost):
                self._tell_owner(message)
            elif isinstance(message, Cancel):
                self._apart(self._on_cancel)
            elif isinstance(message, Interrupt):
                self._apart(self._on_interrupt, message.run_id, message.reason)
            elif isinstance(message, Directed):
                self._apart(self._directed, message.directive)
            else:
                self._on_job(message)

    def _apart(self, call: Callable[..., object], *arguments: object) -> None:
        # Not here: it may ask the parent, and the answer comes here.
        threading.Thread(target=call, args=arguments, name="headrace-told", daemon=True).start()

    def _directed(self, blob: bytes) -> None:
        from headrace.v1.record_service_pb2 import RunDirective

        directive = RunDirective.FromString(blob)
        on_directive = self.attending.get(directive.run_id)
        if on_directive is not None:
            on_directive(directive)

    def _is_gone(self) -> None:
        if not self._is_leaving:
            self._on_gone()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._is_leaving = True
        for answer in waiting.values():
            answer.set_exception(ConnectionError(_GONE))
        self._channel.close()

    def _tell_owner(self, message: Lost) -> None:
        on_lost, on_suspended = self.owners.get(message.run_id, (None, None))
        callback = on_suspended if message.is_suspended else on_lost
        if callback is not None:
            callback(message.reason)

    def _answer(self, reply: Reply) -> None:
        future = self._waiting.pop(reply.number)
        if reply.error is None:
            future.set_result(reply.value)
        else:
            future.set_exception(unpacked(reply.error))

    def send(self, message: object) -> None:
        """Say something that needs no answer."""
        self._channel.send(message)

    def send_last(self, message: object) -> None:
        """Say the last word: the parent may close its end."""
        with self._lock:
            self._is_leaving = True
        self._channel.send(message)

    def ask(self, method: str, *arguments: Any) -> Future[Any]:
        """Call a method of the parent's `Desk`; fails with `ConnectionError` when the parent is gone."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()
        with self._lock:
            if self._is_leaving:
                raise ConnectionError(_GONE)
            self._waiting[number] = answer
        self._channel.send(Request(number, method, arguments))
        return answer


class RemoteRecorder:
    """A `Recorder` whose entries go to the recorder of the parent.

    Args:
        parent: records.
        on_lost: called with the reason when the run that the child executes is not its own any longer.
    """

    def __init__(self, parent: Parent, on_lost: Callable[[str], object]) -> None:
        self._parent = parent
        self._on_lost = on_lost
        self._last_seq = 0

    @property
    def recorder_id(self) -> str:
        recorder_id: str = self._parent.ask("recorder_id").result()
        return recorder_id

    @property
    def last_seq(self) -> int:
        return self._last_seq

    def post(self, *entries: RecordEntry) -> int:
        blobs = [entry.SerializeToString() for entry in entries]
        seq, lost = self._parent.ask("post", blobs).result()
        self._last_seq = max(self._last_seq, seq)
        if lost is not None:
            self._on_lost(lost)
        return self._last_seq

    def propose(self, entry: RecordEntry) -> Future[Verdict[State]]:
        return self._parent.ask("propose", entry.SerializeToString())

    def durable(self, seq: int) -> Future[None]:
        # The parent's newest entry, since a proposal is not in `last_seq` here.
        return self._parent.ask("durable")

    def connected(self) -> Future[None]:
        return self._parent.ask("connected")

    def begin_owner(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        on_lost: LostCallback | None = None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        self._parent.owners[run_id] = (on_lost, on_suspended)
        self._parent.ask("begin_owner", run_id, attempt, fence).result()

    def end_owner(self, run_id: str) -> None:
        self._parent.owners.pop(run_id, None)
        self._parent.ask("end_owner", run_id).result()

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        self._parent.attending[run_id] = on_directive
        self._parent.ask("attend", run_id).result()

    def leave(self, run_id: str) -> None:
        self._parent.attending.pop(run_id, None)
        self._parent.ask("leave", run_id).result()

    def flush(self, timeout_seconds: float) -> bool:
        try:
            self.durable(self._last_seq).result(timeout_seconds)
        except TimeoutError:
            return False
        return True
