"""What a process does for another one that runs a job of it: records, and remembers what has not ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.core.states import FINAL, StateType, default_name
from headrace.execution.encoding import state_entry, state_from_proto
from headrace.execution.processes.messages import (
    Channel,
    Directed,
    Ended,
    Interrupt,
    Lost,
    Refused,
    Reply,
    Request,
    Taken,
)
from headrace.execution.processes.shipping import packed_error
from headrace.recorder import get_recorder
from headrace.runs import Owner, TaskRun
from headrace.states import State, StateDetails
from headrace.v1 import run_pb2, state_pb2
from headrace.v1.record_service_pb2 import RecordEntry, RunDirective

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall

__all__ = ["Desk", "RemoteBody", "serve_job"]

_LOOK_SECONDS: Final = 1.0
"""How often a busy process is looked at whose death its socket does not tell, because a process that it has
forked holds the other end."""


class Desk:
    """Answers the requests of one child about one job; every public method but `serve` is one of them.

    Args:
        call: the task run that the child executes; its state follows what the child records.
        send: takes a message to the child; from any thread.

    Attributes:
        was_taken: whether the child has begun with the job.
    """

    def __init__(self, call: TaskCall | None, send: Callable[[object], object]) -> None:
        self._call = call
        self._send = send
        self.was_taken = False
        self._unended: dict[str, run_pb2.Run] = {}
        self._owned: set[str] = set()
        self._attended: set[str] = set()

    def serve(self, request: Request) -> None:
        """Do what is asked; the answer may go out later, from another thread."""
        try:
            method = _METHODS[request.method]
            answer = method(self, *request.arguments)
        except Exception as error:
            self._send(Reply(request.number, error=packed_error(error)))
            return
        if isinstance(answer, Future):
            pending = cast("Future[Any]", answer)
            pending.add_done_callback(lambda done: self._reply_later(request.number, done))
        else:
            self._send(Reply(request.number, answer))

    def _reply_later(self, number: int, done: Future[Any]) -> None:
        error = done.exception()
        reply = Reply(number, done.result()) if error is None else Reply(number, error=packed_error(error))
        self._send_quietly(reply)

    def recorder_id(self) -> str:
        """Of the sequence."""
        return get_recorder().recorder_id

    def post(self, blobs: list[bytes]) -> tuple[int, str | None]:
        """Record; gives the last number, and why the run is not this process's any longer, or None."""
        entries = [RecordEntry.FromString(blob) for blob in blobs]
        seq = get_recorder().post(*entries)
        for entry in entries:
            self._follow(entry)
        return seq, None if self._call is None else self._call.context.outermost.lost

    def propose(self, blob: bytes) -> Future[Any]:
        """Record a state and ask for the verdict."""
        entry = RecordEntry.FromString(blob)
        answer = get_recorder().propose(entry)
        self._follow(entry)
        return answer

    def durable(self) -> Future[None]:
        """Done when everything recorded so far is safe."""
        recorder = get_recorder()
        return recorder.durable(recorder.last_seq)

    def connected(self) -> Future[None]:
        """Done when a server has answered."""
        return get_recorder().connected()

    def begin_owner(self, run_id: str, attempt: int, fence: int) -> None:
        """The child executes a run that is the top of its own tree."""

        def tell(reason: str, *, is_suspended: bool) -> None:
            self._send_quietly(Lost(run_id, reason, is_suspended))

        lost, suspended = partial(tell, is_suspended=False), partial(tell, is_suspended=True)
        get_recorder().begin_owner(run_id, attempt, fence, lost, suspended)
        self._owned.add(run_id)

    def end_owner(self, run_id: str) -> None:
        """That run has ended."""
        get_recorder().end_owner(run_id)
        self._owned.discard(run_id)

    def attend(self, run_id: str) -> None:
        """The child wants to know what others want of the run."""

        def tell(directive: RunDirective) -> None:
            self._send_quietly(Directed(directive.SerializeToString()))

        get_recorder().attend(run_id, tell)
        self._attended.add(run_id)

    def leave(self, run_id: str) -> None:
        """That run has ended."""
        get_recorder().leave(run_id)
        self._attended.discard(run_id)

    def _send_quietly(self, message: object) -> None:
        try:
            self._send(message)
        except OSError:
            pass  # the child has died meanwhile

    def next_key(self, run_id: str, key: str) -> str:
        """What tells the next call of a task apart, in the flow run with that id."""
        flow = None if self._call is None else self._call.context.flow_context
        if flow is None or flow.flow_run.id != run_id:
            raise LookupError(f"Flow run '{run_id}' is not executed by the process that was asked.")
        return flow.next_key(key)

    def _follow(self, entry: RecordEntry) -> None:
        kind = entry.WhichOneof("kind")
        if kind == "run" and entry.run.HasField("state"):
            self._unended[entry.run.id] = entry.run
            self._enter(entry.run.id, entry.run.state)
        elif kind == "state":
            self._enter(entry.state.attempt.run_id, entry.state.state)

    def _enter(self, run_id: str, message: state_pb2.State) -> None:
        if StateType.from_number(message.type) in FINAL:
            self._unended.pop(run_id, None)
        if self._call is None or run_id != self._call.run.id:
            return
        run = self._call.run
        run.state = state_from_proto(message, flow_run_id=run.flow_run_id, task_run_id=run.id)
        if run.state.is_running():
            run.run_count += 1
            run.start_micros = run.start_micros or run.state.micros

    def end_unended(self, message: str) -> None:
        """The child is dead: end CRASHED what it has begun and not ended, the newest first.

        CANCELLED it is when the child was to end because the run is being cancelled.
        """
        reason = None if self._call is None else self._call.context.cancel_reason()
        type, message = (StateType.CRASHED, message) if reason is None else (StateType.CANCELLED, reason)
        recorder = get_recorder()
        for begun in reversed(self._unended.values()):
            owner = Owner(begun.owner_run_id, begun.attempt, begun.fence)
            run = TaskRun(begun.id, begun.name, begun.root_run_id, owner)
            now = time.time_ns() // 1000
            state = State.at(now, type, default_name(type), StateDetails(), message)
            recorder.post(state_entry(run, state))
        for run_id in self._owned:
            recorder.end_owner(run_id)
        for run_id in self._attended:
            recorder.leave(run_id)


class RemoteBody:
    """A body that runs in another process, as what can be interrupted.

    Args:
        call: its task run.
        send: takes a message there; from any thread.
    """

    def __init__(self, call: TaskCall, send: Callable[[object], object]) -> None:
        self._call = call
        self._send = send

    def interrupt(self) -> None:
        reason = self._call.context.cancel_reason() or "The run was cancelled."
        self._send(Interrupt(self._call.run.id, reason))


def serve_job(channel: Channel, desk: Desk, is_alive: Callable[[], bool]) -> Ended | Refused:
    """Serve the process at the other end until it says how its job ended.

    Args:
        channel: to it.
        desk: answers its requests.
        is_alive: whether it can still say anything.

    Raises:
        EOFError: it is gone.
        OSError: it is gone.
    """
    while True:
        while not channel.has_message(_LOOK_SECONDS):
            if not is_alive() and not channel.has_message(0):
                raise EOFError
        message = channel.receive()
        if isinstance(message, (Ended, Refused)):
            return message
        if isinstance(message, Taken):
            desk.was_taken = True
        else:
            desk.serve(message)


_METHODS: dict[str, Callable[..., Any]] = {
    "recorder_id": Desk.recorder_id,
    "post": Desk.post,
    "propose": Desk.propose,
    "durable": Desk.durable,
    "connected": Desk.connected,
    "begin_owner": Desk.begin_owner,
    "end_owner": Desk.end_owner,
    "attend": Desk.attend,
    "leave": Desk.leave,
    "next_key": Desk.next_key,
}
