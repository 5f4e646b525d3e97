"""A worker's session with a clock that is moved by hand, and the other end of its stream."""

from __future__ import annotations

from typing import Any, TypeVar

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import AttemptVerdict, GoAway
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.worker_service_pb2 import (
    Assignment,
    AttemptReport,
    CancelAttempt,
    ConnectRequest,
    ConnectResponse,
    HeartbeatAck,
    ServerWelcome,
    WorkerHello,
)
from headrace_workers.actions import Action, Attempt, Begin, Close, FoundInfrastructure, Kill, Open, Send
from headrace_workers.session import SessionOptions, WorkerSession

__all__ = ["Bench", "assignment_of", "welcome"]

INTERVAL_SECONDS = 5.0
TTL_SECONDS = 30.0
_MAX_TICKS = 1000

Kind = TypeVar("Kind", bound=Action)


def welcome(session_id: str, epoch: int, **more: Any) -> ConnectResponse:
    """What a server answers a hello with."""
    message = ServerWelcome(protocol=1, session_id=session_id, session_epoch=epoch, **more)
    message.heartbeat_interval.FromSeconds(int(INTERVAL_SECONDS))
    message.lease_ttl.FromSeconds(int(TTL_SECONDS))
    return ConnectResponse(welcome=message)


def assignment_of(attempt: Attempt, **more: Any) -> ConnectResponse:
    """An assignment of a run."""
    return ConnectResponse(
        assignment=Assignment(
            assignment_id=new_id(), attempt=attempt.to_message(), run=Run(id=attempt.run_id), **more
        )
    )


class Bench:
    """Does what the session asks for, and answers as it is told to.

    Attributes:
        now: the time.
        actions: everything that was asked for and not looked at yet.
        session_id: what the server calls the session.
        epoch: welcomes given so far.
    """

    def __init__(
        self,
        *,
        limit: int | None = 2,
        is_strict: bool = False,
        keeps_infrastructure: bool = False,
        random: float = 1.0,
    ) -> None:
        hello = WorkerHello(worker_id=new_id(), name="bench", work_pool="pool", type="process")
        options = SessionOptions(
            hello, limit=limit, is_strict=is_strict, keeps_infrastructure=keeps_infrastructure
        )
        self.now = 100.0
        self.session = WorkerSession(options, lambda: random)
        self.actions: list[Action] = []
        self.session_id = new_id()
        self.epoch = 0
        self._newest = 0
        self.advance(0)

    # Time, and what the session wants.

    def advance(self, seconds: float) -> None:
        """Let time pass, and the session act whenever it wants to."""
        end = self.now + seconds
        for _ in range(_MAX_TICKS):
            due = self.session.due()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.session.tick(self.now)
            self._collect()
        else:
            raise AssertionError("the session wants to act again and again without time passing")
        self.now = end
        self.session.tick(self.now)
        self._collect()

    def _collect(self) -> None:
        actions = self.session.take()
        self.actions += actions
        for action in actions:
            if isinstance(action, Open):
                self._newest = action.stream

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The actions of one kind that were asked for since the last `seen`."""
        return [action for action in self.actions if isinstance(action, kind)]

    def sent(self, field: str) -> list[Any]:
        """The messages of one kind that were written since the last `seen`."""
        requests: list[ConnectRequest] = [action.request for action in self.of(Send)]
        return [getattr(r, field) for r in requests if r.WhichOneof("message") == field]

    def seen(self) -> None:
        """What was asked for so far is of no more interest."""
        self.actions.clear()

    @property
    def begun(self) -> list[Attempt]:
        return [action.attempt for action in self.of(Begin)]

    @property
    def killed(self) -> list[Attempt]:
        return [action.attempt for action in self.of(Kill)]

    @property
    def closed(self) -> list[int]:
        return [action.stream for action in self.of(Close)]

    @property
    def opened(self) -> list[int]:
        return [action.stream for action in self.of(Open)]

    @property
    def granted(self) -> int:
        """The highest credit given since the last `seen`, hellos included."""
        totals = [credit.granted_total for credit in self.sent("credit")]
        totals += [beat.credit.granted_total for beat in self.sent("heartbeat")]
        totals += [action.hello.hello.credit.granted_total for action in self.of(Open)]
        return max(totals, default=0)

    # What the server and the infrastructure do.

    def say(self, message: ConnectResponse, stream: int | None = None) -> None:
        """The server says something on a stream, by default the newest."""
        self.session.received(stream or self._newest, message, self.now)
        self._collect()

    def connect(self, **more: Any) -> None:
        """Welcome the newest stream."""
        self.epoch += 1
        self.say(welcome(self.session_id, self.epoch, **more))

    def assign(self, attempt: Attempt, stream: int | None = None, **more: Any) -> ConnectResponse:
        message = assignment_of(attempt, **more)
        self.say(message, stream)
        return message

    def find(self, *infrastructure: FoundInfrastructure) -> None:
        """The search has found this."""
        self.session.found(infrastructure)
        self._collect()

    def removed(self, attempt: Attempt, removed: bool) -> None:
        """What a removal came to."""
        self.session.removed(attempt, removed)
        self._collect()

    def answer_beat(self, **more: Any) -> None:
        """Answer the newest heartbeat."""
        beats = self.sent("heartbeat")
        self.say(ConnectResponse(heartbeat_ack=HeartbeatAck(seq=beats[-1].seq, **more)))

    def beat(self, **more: Any) -> None:
        """Wait for the next heartbeat, and answer it."""
        self.advance(INTERVAL_SECONDS)
        self.answer_beat(**more)

    def lose(self, attempt: Attempt) -> None:
        self.beat(lost=[AttemptVerdict(attempt=attempt.to_message(), lost=True, reason="taken away")])

    def cancel(self, attempt: Attempt, seq: int = 1) -> None:
        self.say(ConnectResponse(cancel=CancelAttempt(attempt=attempt.to_message(), cancel_seq=seq)))

    def send_away(self, reason: str, stream: int | None = None) -> None:
        self.say(ConnectResponse(go_away=GoAway(reason=reason)), stream)

    def started(self, attempt: Attempt) -> None:
        self.session.started(attempt, f"host:{attempt.fence}", self.now)
        self._collect()

    def exited(self, attempt: Attempt, code: int = 0) -> None:
        self.session.exited(attempt, code, "", False, self.now)
        self._collect()

    def broken(self, stream: int | None = None, error: Any = None) -> None:
        """A stream ends."""
        self.session.ended(stream or self._newest, error, self.now)
        self._collect()

    def reports(self) -> list[AttemptReport]:
        return self.sent("report")


def run_attempt(number: int = 1, fence: int = 1, run_id: str = "") -> Attempt:
    """An attempt of a run of its own."""
    return Attempt(run_id or new_id(), number, fence)


def held_ids(messages: list[Any]) -> set[str]:
    """The runs in a held set."""
    refs: list[AttemptRef] = [held.attempt for held in messages]
    return {ref.run_id for ref in refs}
