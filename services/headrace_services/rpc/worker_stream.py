"""One `Connect` call: what a worker says is taken in, what it is to know is sent, by one writer.

Two parties share the stream, as with records: the reader takes messages in and passes on what must become
durable; the handler's own generator is the only one that sends, control before assignments. A completed
write proves nothing, so an assignment counts only when the worker answers for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol

from headrace.core import limits
from headrace.core.clock import Clock
from headrace.core.errors import FieldsInvalid
from headrace.core.ids import new_id
from headrace.v1 import worker_service_pb2 as pb
from headrace.v1.record_service_pb2 import AttemptVerdict, GoAway
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_pb2 import WORKER_CAPABILITY_TEARDOWN
from headrace_services.domain.attempt_rules import Mirrored, Phase, reconcile
from headrace_services.domain.claims import Offer
from headrace_services.rpc.validation import rules
from headrace_services.rpc.worker_messages import assignment_of, identity_of, pool_snapshot, set_seconds
from headrace_services.storage.adopting import Found
from headrace_services.storage.attempt_news import News, NewsKind, NewsOutcome, Standing
from headrace_services.storage.claiming import Claimed
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.worker_commands import OpenedSession, WorkerIdentity

__all__ = ["Dispatch", "WorkerPolicy", "WorkerStream"]

_BACKLOG: Final = 10_000


class WorkerPolicy(Protocol):
    """What the server tells a worker: this server process, how often it is to be heard, how long it may be
    silent, and how long it may leave an assignment unanswered."""

    @property
    def replica_id(self) -> str: ...

    @property
    def heartbeat_seconds(self) -> float: ...

    @property
    def lease_seconds(self) -> float: ...

    @property
    def reply_seconds(self) -> float: ...


class Dispatch(Protocol):
    """Who hands out runs, and takes in what workers say of them."""

    def terms(self) -> WorkerPolicy:
        """For one more worker."""
        ...

    async def open(self, identity: WorkerIdentity, lease_seconds: float) -> OpenedSession:
        """A worker's session begins, or goes on, durably."""
        ...

    def credits(self) -> Mapping[str, int]:
        """How many more runs each worker takes, by session."""
        ...

    def add(self, link: WorkerStream) -> None:
        """The stream can be given work."""
        ...

    def remove(self, link: WorkerStream) -> None:
        """The stream has ended."""
        ...

    def changed(self, link: WorkerStream) -> None:
        """Its credit is another."""
        ...

    def heard(self, link: WorkerStream) -> None:
        """A heartbeat has come: renew its session, then call `renewed`."""
        ...

    def tell(self, news: Sequence[News]) -> None:
        """Make it durable, then call `settled` on the stream of each."""
        ...

    async def found(self, link: WorkerStream, found: Sequence[Found]) -> None:
        """Decide what becomes of infrastructure: `take_over`, `tear_down`, or nothing of it is called."""
        ...

    async def torn_down(self, attempt: AttemptRef, removed: bool) -> None:
        """What became of a teardown."""
        ...

    async def goodbye(self, link: WorkerStream, released: Sequence[AttemptRef]) -> None:
        """The worker leaves and gives these back, durably."""
        ...


class WorkerStream:
    """The state of one stream.

    Attributes:
        session_id: of the worker's process; empty until its hello.
        epoch: of the stream within the session.
        worker_id: the worker.
        name: of the worker, for people.
        work_pool: whose runs it takes; empty: those of tasks or deployments.
        pool_updated: when the pool was changed last, as far as it was told.
        tears_down: it can remove infrastructure of runs that it does not hold.
        policy: what it was told.
        is_draining: it takes nothing new.
        has_left: it has said goodbye.
    """

    def __init__(self, dispatch: Dispatch, clock: Clock) -> None:
        self._dispatch = dispatch
        self._clock = clock
        self.session_id = ""
        self.worker_id = ""
        self.name = ""
        self.work_pool = ""
        self.pool_updated = 0
        self.host, self.pid = "", 0
        self.epoch = 0
        self.policy = dispatch.terms()
        self.is_draining = self.has_left = self.tears_down = False
        self._offer: Offer | None = None
        self._max_bytes = limits.MESSAGE_BYTES
        self._granted = self._assigned = 0
        self._mirror: dict[str, Mirrored] = {}
        self._over: set[tuple[str, int]] = set()
        self._asked: set[tuple[str, int]] = set()
        self._lost: dict[tuple[str, int], AttemptVerdict] = {}
        self._cancels: dict[str, pb.CancelAttempt] = {}
        self._acked_cancels: dict[str, int] = {}
        self._offers: dict[str, tuple[str, int]] = {}
        self._reports = _Reports()
        self._beats: list[int] = []
        self._control: deque[pb.ConnectResponse] = deque()
        self._assignments: deque[pb.ConnectResponse] = deque()
        self._wake = asyncio.Event()
        self._ends = False
        self._end_at: asyncio.TimerHandle | None = None

    # The two sides

    async def responses(
        self, requests: AsyncIterator[pb.ConnectRequest]
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        """Everything to send.

        Raises:
            FieldsInvalid, ProtocolUnsupported, ObjectNotFound, PreconditionFailed: the hello is no good.
            ServerDraining, DatabaseUnavailable: connect again later.
        """
        reader = asyncio.ensure_future(self._read(requests))
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                while self._control or self._assignments:
                    response = (self._control or self._assignments).popleft()
                    if response.HasField("assignment"):
                        self._sent(response.assignment)
                    yield response
                if reader.done():
                    reader.result()
                    return
                if self._ends:
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            reader.cancel()
            if self._end_at is not None:
                self._end_at.cancel()

    async def _read(self, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        handlers: dict[str | None, Callable[[pb.ConnectRequest], None]] = {
            "credit": lambda request: self._credit(request.credit),
            "heartbeat": lambda request: self._heartbeat(request.heartbeat),
            "reply": lambda request: self._reply(request.reply),
            "report": lambda request: self._report(request.report),
            "cancel_ack": lambda request: self._cancel_acked(request.cancel_ack),
            "drain": lambda request: self._drain(),
        }
        async for request in requests:
            kind = request.WhichOneof("message")
            _check(request, kind)
            if not self.session_id:
                if kind != "hello":
                    raise FieldsInvalid.of("message", "the first message of a stream must be `hello`")
                await self._hello(request.hello)
            elif kind == "hello":
                raise FieldsInvalid.of("hello", "may be sent once per stream")
            elif kind == "goodbye":
                self.has_left = True
                await self._dispatch.goodbye(self, request.goodbye.released)
                return
            elif kind == "found":
                await self._dispatch.found(self, [_found(item) for item in request.found.items])
            elif kind == "teardown_reply":
                reply = request.teardown_reply
                await self._dispatch.torn_down(reply.attempt, reply.removed)
            elif kind in handlers:
                handlers[kind](request)
            # Anything else comes from a newer worker, which knows that we may not know it.

    def _send(self, **message: object) -> None:
        self._control.append(pb.ConnectResponse(**message))  # type: ignore[arg-type]  # one of its fields
        self._wake.set()

    # The beginning and the end

    async def _hello(self, hello: pb.WorkerHello) -> None:
        identity = identity_of(hello, hello.session_id.lower() or new_id())
        opened = await self._dispatch.open(identity, self.policy.lease_seconds)
        self.worker_id, self.name = identity.worker.id, identity.worker.name
        self.work_pool = hello.work_pool
        self.tears_down = WORKER_CAPABILITY_TEARDOWN in hello.capabilities
        self.host, self.pid = hello.sdk.host, hello.sdk.pid
        self.epoch = opened.epoch
        self._max_bytes = min(
            hello.max_message_bytes or limits.MESSAGE_BYTES, limits.TRANSPORT_MESSAGE_BYTES // 2
        )
        self._offer = Offer(
            session_id=identity.session_id,
            worker_id=self.worker_id,
            kind=identity.kind,
            subjects=frozenset(
                [hello.work_pool] if hello.work_pool else hello.task_keys or hello.deployment_ids
            ),
            queues=frozenset(hello.work_queues),
            labels=dict(hello.labels),
            credit=0,
            prefetch=hello.prefetch.ToMicroseconds(),
        )
        now = self._clock.monotonic()
        self._mirror = {
            id: Mirrored(number, fence, phase, now) for id, number, fence, phase in opened.attempts
        }
        self.session_id = identity.session_id
        self._welcome(opened)
        self._granted = hello.credit.granted_total
        self._dispatch.add(self)

    def _welcome(self, opened: OpenedSession) -> None:
        welcome = pb.ServerWelcome(
            protocol=limits.PROTOCOL_MAX,
            session_id=self.session_id,
            session_epoch=self.epoch,
            replica_id=self.policy.replica_id,
            verdicts=opened.verdicts,
        )
        set_seconds(welcome.heartbeat_interval, self.policy.heartbeat_seconds)
        set_seconds(welcome.lease_ttl, self.policy.lease_seconds)
        set_seconds(welcome.reply_timeout, self.policy.reply_seconds)
        if opened.pool is not None:
            welcome.pool.CopyFrom(pool_snapshot(opened.pool))
            self.pool_updated = opened.pool.update_time
        self._send(welcome=welcome)

    def pool_changed(self, pool: WorkPoolRow) -> None:
        """Tells the worker what its pool says now: what it is assigned next is started as that says."""
        self.pool_updated = pool.update_time
        self._send(pool=pool_snapshot(pool))

    def go_away(self, reason: str, reconnect_after_seconds: float = 0.0) -> None:
        """Ends the stream; the worker is told why."""
        notice = GoAway(reason=reason)
        set_seconds(notice.reconnect_after, reconnect_after_seconds)
        self._ends = True
        self._send(go_away=notice)

    def server_drains(self, reason: str, reconnect_after_seconds: float, end_after_seconds: float) -> None:
        """Asks the worker to connect elsewhere, or anew, while this stream goes on for a while."""
        drain = pb.ServerDrain(reason=reason)
        set_seconds(drain.reconnect_after, reconnect_after_seconds)
        self._send(drain=drain)
        self.is_draining = True
        self._dispatch.changed(self)
        self._end_at = asyncio.get_running_loop().call_later(end_after_seconds, self._end)

    def _end(self) -> None:
        self._ends = True
        self._wake.set()

    def ask_to_drain(self, deadline_seconds: float | None) -> None:
        """Passes on that an administrator wants the worker to drain."""
        request = pb.WorkerDrain()
        if deadline_seconds is not None:
            set_seconds(request.deadline, max(0.0, deadline_seconds))
        self._send(drain_request=request)

    # Work

    @property
    def lease_seconds(self) -> float:
        """How long it may be silent."""
        return self.policy.lease_seconds

    @property
    def credit(self) -> int:
        """How many more runs it takes now."""
        if self.is_draining or self._ends or self.has_left or len(self._assignments) > _BACKLOG:
            return 0
        return max(0, self._granted - self._assigned)

    def offer(self) -> Offer:
        """What it takes now."""
        offer = self._offer
        assert offer is not None
        offer.credit = self.credit
        return offer

    def assign(self, claimed: Claimed) -> None:
        """Hands a run over that was claimed for it."""
        run = claimed.run
        now = self._clock.monotonic()
        self._assigned += 1
        self._mirror[run.id] = Mirrored(run.attempt, run.fence, Phase.OFFERED, now)
        assignment = assignment_of(claimed, self._clock.now())
        size = assignment.ByteSize()
        if size > self._max_bytes:
            words = (
                f"The assignment has {size} bytes, and its worker takes up to {self._max_bytes}. Pass less "
                "in the parameters and job variables of the run: keep large values in a result store."
            )
            self._tell(NewsKind.TOO_LARGE, (run.id, run.attempt, run.fence), message=words)
            return
        self._offers[claimed.assignment_id] = (run.id, run.fence)
        self._assignments.append(pb.ConnectResponse(assignment=assignment))
        self._wake.set()

    def _sent(self, assignment: pb.Assignment) -> None:
        """From now on it is the worker that has to answer; until now it was this server that was busy."""
        believed = self._mirror.get(assignment.run.id)
        if believed is not None and believed.fence == assignment.attempt.fence:
            believed.since, believed.missing = self._clock.monotonic(), 0

    def take_over(self, claimed: Claimed) -> None:
        """Hands a run over that goes on in infrastructure which the worker has found. It takes no credit."""
        run = claimed.run
        self._mirror[run.id] = Mirrored(run.attempt, run.fence, Phase.ACCEPTED, self._clock.monotonic())
        self._assignments.append(pb.ConnectResponse(assignment=assignment_of(claimed, self._clock.now())))
        self._wake.set()

    def tear_down(self, attempt: AttemptRef, infrastructure_id: str) -> None:
        """Has the worker remove what is left of an attempt that is over."""
        self._send(teardown=pb.Teardown(attempt=attempt, infrastructure_id=infrastructure_id))

    def _tell(self, kind: NewsKind, attempt: tuple[str, int, int], **more: object) -> None:
        news = News(kind, self.session_id, self.worker_id, *attempt, **more)  # type: ignore[arg-type]
        self._dispatch.tell([news])

    def _credit(self, credit: pb.WorkerCredit) -> None:
        if credit.granted_total > self._granted:
            self._granted = credit.granted_total
            self._dispatch.changed(self)

    def _reply(self, reply: pb.AssignmentReply) -> None:
        offered = self._offers.pop(reply.assignment_id.lower(), None)
        if offered is None:
            return  # answered before, or taken back
        run_id, fence = offered
        believed = self._mirror.get(run_id)
        if believed is None or believed.fence != fence:
            return
        if reply.WhichOneof("reply") == "accept":
            believed.phase, believed.missing = Phase.ACCEPTED, 0
            self._tell(NewsKind.ACCEPTED, (run_id, believed.attempt, fence))
            return
        refusal = reply.refuse
        self._mirror.pop(run_id)
        self._tell(
            NewsKind.REFUSED,
            (run_id, believed.attempt, fence),
            message=refusal.reason,
            retry_seconds=refusal.retry_after.ToMicroseconds() / 1e6,
            not_this_worker=refusal.not_this_worker,
        )

    def _report(self, report: pb.AttemptReport) -> None:
        run_id, fence = report.attempt.run_id.lower(), report.attempt.fence
        attempt = (run_id, report.attempt.attempt, fence)
        if not self._reports.came(report.report_seq, (run_id, fence, report.WhichOneof("report") or "")):
            return
        if report.WhichOneof("report") == "started":
            self._tell(NewsKind.STARTED, attempt, infrastructure_id=report.started.infrastructure_id)
            return
        exited = report.exited
        self._tell(
            NewsKind.EXITED,
            attempt,
            message=exited.message,
            exit_code=exited.exit_code if exited.HasField("exit_code") else None,
            never_started=exited.never_started,
        )

    def settled(self, outcome: NewsOutcome) -> None:
        """What was told of an attempt is durable."""
        news = outcome.news
        key = (news.run_id, news.fence)
        self._asked.discard(key)
        if news.kind in (NewsKind.STARTED, NewsKind.EXITED):
            word = "started" if news.kind is NewsKind.STARTED else "exited"
            self._reports.settled((news.run_id, news.fence, word))
        believed = self._mirror.get(news.run_id)
        is_same = believed is not None and believed.fence == news.fence
        if outcome.standing is Standing.HELD:
            if not is_same:
                now = self._clock.monotonic()
                self._mirror[news.run_id] = Mirrored(news.attempt, news.fence, Phase.ACCEPTED, now)
            elif believed is not None:
                believed.phase = Phase.ACCEPTED
            return
        if is_same:
            del self._mirror[news.run_id]
        if outcome.standing is Standing.OVER:
            self._over.add(key)
        else:
            attempt = AttemptRef(run_id=news.run_id, attempt=news.attempt, fence=news.fence)
            self._lost[key] = AttemptVerdict(attempt=attempt, lost=True, reason=outcome.reason)

    # Heartbeats

    def _heartbeat(self, beat: pb.WorkerHeartbeat) -> None:
        held = {(h.attempt.run_id.lower(), h.attempt.fence): h.attempt for h in beat.held}
        if held or self._mirror or self._over or self._lost:
            self._compare(held)
        if beat.HasField("credit"):
            self._credit(beat.credit)
        self._beats.append(beat.seq)
        self._dispatch.heard(self)

    def _compare(self, held: dict[tuple[str, int], AttemptRef]) -> None:
        self._over &= held.keys()
        self._lost = {key: verdict for key, verdict in self._lost.items() if key in held}
        unsettled = (key for key in held if key not in self._over and key not in self._lost)
        found = reconcile(self._mirror, unsettled, self._clock.monotonic(), self.policy.reply_seconds)
        for run_id in found.accepted:
            believed = self._mirror[run_id]
            believed.phase = Phase.ACCEPTED
            self._tell(NewsKind.ACCEPTED, (run_id, believed.attempt, believed.fence))
        for run_id, fence in found.unknown:
            if (run_id, fence) not in self._asked:
                self._asked.add((run_id, fence))
                self._tell(NewsKind.HELD, (run_id, held[run_id, fence].attempt, fence))
        self._miss(found.unanswered, NewsKind.UNANSWERED)
        self._miss(found.missing, NewsKind.NOT_HELD)

    def _miss(self, run_ids: Sequence[str], kind: NewsKind) -> None:
        for run_id in run_ids:
            believed = self._mirror.pop(run_id)
            self._tell(kind, (run_id, believed.attempt, believed.fence))

    def recall(self, offer: AttemptRef) -> None:
        """Note an offer of which the database knows; the worker may never have been told of it."""
        believed = self._mirror.get(offer.run_id)
        if believed is None or believed.fence < offer.fence:
            now = self._clock.monotonic()
            self._mirror[offer.run_id] = Mirrored(offer.attempt, offer.fence, Phase.OFFERED, now)

    def renewed(self, server_time: int) -> None:
        """The session is renewed, durably: the heartbeats until now are answered."""
        if not self._beats:
            return
        ack = pb.HeartbeatAck(
            seq=max(self._beats),
            lost=self._lost.values(),
            pending_cancels=self._due_cancels(),
            report_seq=self._reports.durable,
        )
        self._beats.clear()
        ack.server_time.FromMicroseconds(server_time)
        self._send(heartbeat_ack=ack)

    # Cancellations

    def cancel(self, cancels: Sequence[pb.CancelAttempt]) -> None:
        """All of its runs that are being cancelled now; what is new among them is told at once."""
        before, self._cancels = self._cancels, {c.attempt.run_id: c for c in cancels}
        for run_id in list(self._acked_cancels):
            if run_id not in self._cancels:
                del self._acked_cancels[run_id]
        for run_id, cancel in self._cancels.items():
            known = before.get(run_id)
            if known is None or known.cancel_seq != cancel.cancel_seq:
                self._send(cancel=cancel)

    def _cancel_acked(self, ack: pb.CancelAck) -> None:
        self._acked_cancels[ack.run_id.lower()] = ack.cancel_seq

    def _due_cancels(self) -> list[pb.CancelAttempt]:
        acked = self._acked_cancels
        return [c for id, c in self._cancels.items() if acked.get(id, 0) < c.cancel_seq]

    def _drain(self) -> None:
        self.is_draining = True
        self._dispatch.changed(self)
        self._dispatch.heard(self)  # so that others see that it drains


def _found(item: pb.FoundInfrastructure.Item) -> Found:
    ref = item.attempt
    return Found(ref.run_id.lower(), ref.attempt, ref.fence, item.infrastructure_id)


class _Reports:
    """Which reports of a stream are durable.

    Attributes:
        durable: every report up to this number is.
    """

    def __init__(self) -> None:
        self.durable = 0
        self._waiting: dict[tuple[str, int, str], int] = {}
        self._highest = 0

    def came(self, seq: int, key: tuple[str, int, str]) -> bool:
        """Whether the report is to be applied: it was not, on this stream."""
        if seq and seq <= self.durable:
            return False
        if key in self._waiting:
            return False
        self._highest = max(self._highest, seq)
        self._waiting[key] = seq
        return True

    def settled(self, key: tuple[str, int, str]) -> None:
        self._waiting.pop(key, None)
        open_ones = self._waiting.values()
        self.durable = min(open_ones) - 1 if open_ones else self._highest


def _check(request: pb.ConnectRequest, kind: str | None) -> None:
    """Check what is not checked by being taken apart.

    Raises:
        FieldsInvalid: a field breaks a rule.
    """
    if kind in ("credit", None):
        return
    if kind == "heartbeat" and not request.heartbeat.held:
        return
    error = rules().check("headrace.v1.ConnectRequest", request.SerializeToString())
    if error is not None:
        raise error
