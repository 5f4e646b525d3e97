"""A worker's side of `WorkerService.Connect`, without I/O and without a clock of its own.

It is fed with what happened, each time with the time at which it did, and answers with `Action`s:

- streams: `received`, `ended`, and `tick` when `due` says so;
- work: `started`, `exited`, as a `Begin` goes its way; `found`, what there is of a worker before it;
- wishes: `drain`.

The rules:

- The session owns the attempts, not the stream: while the server is away, work goes on, and what there is to
  report waits. Only a verdict of the server (`lost`) takes an attempt away. With a strict lease the worker
  ends its work itself before the lease runs out.
- Heartbeats carry every attempt that the worker answers for; one whose infrastructure is gone stays among
  them until the report of it is durable. Slots are free from the moment the infrastructure is gone.
- An attempt that has ended under the fence it was handed out with is not lost: a server says `lost` only of
  attempts whose run has another owner, or was taken away.
- A session that the server has ended because nothing was heard of it is followed by a new one.
- Credit is what the worker could take in all since the server's welcome. It counts free slots, and no more
  starts at once than the machine bears.
- Cancellations may come any number of times; each is acted upon once and acknowledged each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from headrace.core.errors import ProtocolUnsupported, ServiceError
from headrace.core.limits import MESSAGE_BYTES
from headrace.v1.record_service_pb2 import GoAway
from headrace.v1.worker_service_pb2 import (
    ConnectRequest,
    ConnectResponse,
    HeartbeatAck,
    PoolSnapshot,
    ServerWelcome,
    TeardownReply,
    WorkerCredit,
    WorkerDrain,
    WorkerGoodbye,
    WorkerHeartbeat,
    WorkerHello,
)
from headrace.v1.worker_service_pb2 import FoundInfrastructure as Found
from headrace_workers.actions import Action, Attempt, Close, Finish, FoundInfrastructure, Notice, Open, Send
from headrace_workers.beats import Beats
from headrace_workers.links import Links
from headrace_workers.work import Work

__all__ = ["PROTOCOL", "SessionOptions", "SessionSuperseded", "WorkerSession"]

PROTOCOL: Final = 1
"""Version of the worker stream that this code speaks."""
FAREWELL_SECONDS: Final = 10.0
"""How long a drained worker tries to tell the server the last it knows."""
_FAREWELL_BEAT_SECONDS: Final = 0.2


class SessionSuperseded(ServiceError):
    """Another process has taken over this worker's session: two processes have the same identity."""

    code = "ABORTED"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a worker behaves.

    Attributes:
        hello: who it is and what it serves; the session fills in the rest.
        limit: runs at once; None: as many as the server has.
        max_starting: runs whose infrastructure may be starting at once.
        is_strict: end work before the lease runs out, instead of going on until the server says so.
        keeps_infrastructure: when the worker leaves, what runs goes on, for another worker to see it through.
    """

    hello: WorkerHello
    limit: int | None = None
    max_starting: int = 16
    is_strict: bool = False
    keeps_infrastructure: bool = False


class WorkerSession:
    """One worker process, over all its streams.

    Args:
        options: who it is and how it behaves.
        random: numbers from 0 to 1, for the pauses between tries to connect.

    Attributes:
        pool: what the server last said of the pool.
        is_draining: nothing new is taken.
        is_finished: the session is over.
    """

    def __init__(self, options: SessionOptions, random: Callable[[], float]) -> None:
        self._options = options
        self._links = Links(random)
        self._beats = Beats()
        self._work = Work(
            *(options.limit, options.max_starting, self._do, self._send), keeps=options.keeps_infrastructure
        )
        self._actions: list[Action] = []
        self._session_id = ""
        self._hello_at = 0.0
        self._granted = 0
        self._drain_until: float | None = None
        self._idle_since: float | None = None
        self.pool = PoolSnapshot()
        self.is_draining = False
        self.is_finished = False

    # What others ask.

    @property
    def is_connected(self) -> bool:
        """Whether a server has welcomed the present stream."""
        return self._links.current is not None

    @property
    def heard_at(self) -> float | None:
        """When the server has answered last; None: never."""
        return self._links.heard_at

    @property
    def running(self) -> int:
        """Attempts that have infrastructure or are to have some."""
        return self._work.running

    def take(self) -> list[Action]:
        """What is to be done, in this order; nothing is told twice."""
        actions, self._actions = self._actions, []
        return actions

    def due(self) -> float | None:
        """When `tick` is to be called at the latest; None: not before something else happens."""
        if self.is_finished:
            return None
        times = [self._work.next_begin(), self._links.due(), self._strict_end()]
        if self.is_connected:
            times.append(self._beats.next_at)
        if self._work.keeps_some:
            times.append(self._drain_until)
        if self._idle_since is not None:
            times.append(self._idle_since + FAREWELL_SECONDS)
        return min((time for time in times if time is not None), default=None)

    # What happens.

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.is_finished:
            return
        for stream in self._links.silent(now):
            self._do(Close(stream, abort=True))
            self._lost_stream(stream, None, now)
        if self._links.should_dial(now):
            self._dial(now)
        if (end := self._strict_end()) is not None and now >= end:
            self._work.stop("its lease ran out while no server answered")
        if self.is_connected and now >= self._beats.next_at:
            self._send_beat(now)
        if self._drain_until is not None and now >= self._drain_until:
            self._work.give_back("the worker leaves")
        self._move(now)

    def ended(self, stream: int, error: ServiceError | None, now: float) -> None:
        """A stream has ended, by whatever cause; `error` is None for an end without one."""
        if self.is_finished:
            return
        if stream in (self._links.current, self._links.pending) and self._links.is_final(error):
            self._finish(error)
            return
        self._lost_stream(stream, error, now)
        self._move(now)

    def received(self, stream: int, message: ConnectResponse, now: float) -> None:
        """The server has said something. What is not known here is passed over."""
        if self.is_finished:
            return
        kind = message.WhichOneof("message")
        if kind == "welcome":
            self._welcomed(stream, message.welcome, now)
        elif kind == "assignment":
            self._work.take(message.assignment, now, uses_credit=stream == self._links.current)
        elif kind == "heartbeat_ack":
            self._answered(stream, message.heartbeat_ack, now)
        elif kind == "cancel":
            self._work.cancel(message.cancel)
        elif kind == "pool":
            self.pool = message.pool
        elif kind == "drain" and stream == self._links.current:
            self._links.replace_in(_seconds(message.drain.reconnect_after), now)
        elif kind == "go_away":
            self._sent_away(stream, message.go_away, now)
        elif kind == "teardown":
            self._work.tear_down(message.teardown)
        elif kind == "drain_request":
            wish = message.drain_request
            self.drain(now, _seconds(wish.deadline) if wish.HasField("deadline") else None)
        self._move(now)

    def started(self, attempt: Attempt, infrastructure_id: str, now: float) -> None:
        """An attempt that was begun has infrastructure.

        Args:
            attempt: which.
            infrastructure_id: by which it can be found again.
            now: the time.
        """
        self._work.started(attempt, infrastructure_id)
        self._move(now)

    def exited(
        self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool, now: float
    ) -> None:
        """The infrastructure of an attempt is gone, or could not be made.

        Args:
            attempt: which.
            exit_code: of its process, if that is known.
            message: in words, what is known of the end.
            never_started: no code of the user has run.
            now: the time.
        """
        self._work.exited(attempt, exit_code, message, never_started)
        self._move(now)

    def removed(self, attempt: Attempt, removed: bool) -> None:
        """What a `Remove` came to: whether it was here, and nothing of it runs any more."""
        self._send(teardown_reply=TeardownReply(attempt=attempt.to_message(), removed=removed))

    def found(self, infrastructure: Iterable[FoundInfrastructure]) -> None:
        """There is this infrastructure, its own included: the server says what becomes of the rest."""
        items = [
            Found.Item(attempt=one.attempt.to_message(), infrastructure_id=one.infrastructure_id)
            for one in infrastructure
            if not self._work.holds(one.attempt)
        ]
        if items and not self.is_draining:
            self._send(found=Found(items=items))

    def drain(self, now: float, deadline_seconds: float | None) -> None:
        """Take nothing new; leave when everything has ended.

        What was taken and not begun is given back. A second call can only make the deadline earlier.

        Args:
            now: the time.
            deadline_seconds: what still runs then is ended and given back; None: it may take as long as it
                likes.
        """
        if self.is_finished:
            return
        if deadline_seconds is not None:
            until = now + deadline_seconds
            self._drain_until = until if self._drain_until is None else min(until, self._drain_until)
        if not self.is_draining:
            self.is_draining = self._work.is_closed = True
            self._work.give_back_waiting()
            self._do(Notice(f"Draining: nothing new is taken; runs that go on: {self.running}."))
        self._say_drain(now)
        self.tick(now)

    # Streams.

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _send(self, **message: Any) -> None:
        """Write on the present stream; without one, what matters is said again on the next."""
        if self._links.current is not None:
            self._do(Send(self._links.current, ConnectRequest(**message)))

    def _dial(self, now: float) -> None:
        hello = WorkerHello()
        hello.CopyFrom(self._options.hello)
        hello.protocol_min = hello.protocol_max = PROTOCOL
        hello.session_id = self._session_id
        hello.held.extend(self._work.messages())
        hello.max_message_bytes = MESSAGE_BYTES
        if self._options.limit is not None:
            hello.slots.add(kind="run", total=self._options.limit)
        # Credit of an epoch that nothing has been assigned in yet.
        hello.credit.granted_total = self._work.free_slots()
        self._hello_at = now
        self._do(Open(self._links.dialled(now), ConnectRequest(hello=hello)))

    def _lost_stream(self, stream: int, error: ServiceError | None, now: float) -> None:
        is_first = not (self._links.has_been_welcome or self._links.has_failed)
        is_news = is_first or stream == self._links.current
        if self._links.failed(stream, error, now) is not None and is_news:
            why = error.message if error is not None else "The connection to the server has ended."
            self._do(Notice(f"{why} Trying again; what runs goes on.", is_warning=True))

    def _welcomed(self, stream: int, welcome: ServerWelcome, now: float) -> None:
        if stream != self._links.pending:
            return
        if welcome.protocol != PROTOCOL:
            self._finish(
                ProtocolUnsupported(
                    f"The server speaks version {welcome.protocol} of the worker stream, this program "
                    f"{PROTOCOL}. Upgrade the older of the two."
                )
            )
            return
        self._beats.welcomed(welcome, self._hello_at, now)
        replaced = self._links.welcomed(stream, self._beats.interval_seconds, now)
        if replaced is not None:
            self._do(Close(replaced, abort=False))
        if welcome.session_id != self._session_id:
            self._session_id = welcome.session_id
            self._work.reports.renumber()
        self._work.reports.send_again()
        self._work.assigned = self._granted = 0
        self._do(Notice(f"Connected to the server{f' {welcome.replica_id}' if welcome.replica_id else ''}."))
        if welcome.HasField("pool"):
            self.pool = welcome.pool
        self._work.judge(welcome.verdicts)
        if self.is_draining:
            self._say_drain(now)

    def _sent_away(self, stream: int, notice: GoAway, now: float) -> None:
        if notice.reason == "SESSION_SUPERSEDED":
            # The older of two streams of ours is told so too, once the newer one is known.
            if stream != self._links.newest:
                return
            if not self._beats.has_lapsed(now):
                self._finish(SessionSuperseded())
                return
            # Silent for too long, e.g. frozen: what became of the runs, a new session is told.
            self._session_id = ""
            self._links.replace_in(0.0, now)
        elif stream == self._links.current:
            self._links.replace_in(_seconds(notice.reconnect_after), now)

    # Heartbeats and credit.

    def _send_beat(self, now: float) -> None:
        credit = WorkerCredit(granted_total=self._grant())
        held = self._work.messages()
        self._send(heartbeat=WorkerHeartbeat(seq=self._beats.sent(now), held=held, credit=credit))

    def _answered(self, stream: int, ack: HeartbeatAck, now: float) -> None:
        if stream != self._links.current or not self._beats.answered(ack.seq):
            return
        self._links.answered(now)
        self._work.reports.acknowledged(ack.report_seq, ack.seq)
        self._work.judge(ack.lost)
        for cancel in ack.pending_cancels:
            self._work.cancel(cancel)

    def _strict_end(self) -> float | None:
        """When work must be at its end, by the strict rule; None: there is none, or no work."""
        if not self._options.is_strict or not self._work.has_infrastructure:
            return None
        return self._beats.lease_end()

    def _grant(self) -> int:
        self._granted = max(self._granted, self._work.assigned + self._work.free_slots())
        return self._granted

    def _move(self, now: float) -> None:
        """Do what has become possible."""
        if self.is_finished:
            return
        self._work.begin_due(now)
        if self.is_connected:
            for report in self._work.reports.unsent(self._beats.seq):
                self._send(report=report)
            before = self._granted
            if not self.is_draining and self._grant() > before:
                self._send(credit=WorkerCredit(granted_total=self._granted))
        if self.is_draining and not self.running:
            self._leave(now)

    # Leaving.

    def _say_drain(self, now: float) -> None:
        drain = WorkerDrain()
        if self._drain_until is not None:
            drain.deadline.FromMicroseconds(round(max(0.0, self._drain_until - now) * 1e6))
        self._send(drain=drain)

    def _leave(self, now: float) -> None:
        """Nothing runs any more: say so, once everything else is said."""
        if self._idle_since is None:
            self._idle_since = now
        has_news = len(self._work.reports) if self.is_connected else self._work.has_news
        if has_news and now < self._idle_since + FAREWELL_SECONDS:
            # The answer to a heartbeat says what is durable.
            self._beats.next_at = min(self._beats.next_at, now + _FAREWELL_BEAT_SECONDS)
            return
        self._send(goodbye=WorkerGoodbye(released=self._work.given_back()))
        self._finish(None)

    def _finish(self, error: ServiceError | None) -> None:
        self.is_finished = True
        self._work.abandon()
        for stream in (self._links.current, self._links.pending):
            if stream is not None:
                self._do(Close(stream, abort=error is not None))
        self._do(Finish(error))


def _seconds(duration: Any) -> float:
    return float(duration.seconds) + float(duration.nanos) / 1e9
