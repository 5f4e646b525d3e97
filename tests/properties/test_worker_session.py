"""A worker's session against a small model of a server, over streams that break and lose what is on them.

The model hands out runs within the credit it was given, takes some back, cancels some, and is asked in the
end whether it has been told how each attempt ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.core.ids import new_id
from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.worker_service_pb2 import (
    CancelAttempt,
    ConnectRequest,
    ConnectResponse,
    HeartbeatAck,
    ServerDrain,
    WorkerHello,
)
from headrace_workers.actions import Attempt, Begin, Cancel, Close, Finish, Kill, Open, Send
from headrace_workers.session import SessionOptions, WorkerSession
from tests.support.worker_bench import assignment_of, welcome

LIMIT = 3


@dataclass
class Pipe:
    """One stream: what is on its way, and what the server knows of it."""

    up: list[ConnectRequest] = field(default_factory=list)
    down: list[ConnectResponse] = field(default_factory=list)
    epoch: int = 0
    granted: int = 0
    assigned: int = 0


class WorkerAgainstServer(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        hello = WorkerHello(worker_id=new_id(), work_pool="pool", type="process")
        self.session = WorkerSession(SessionOptions(hello, limit=LIMIT), lambda: 0.5)
        self.pipes: dict[int, Pipe] = {}
        self.session_id = ""
        self.epoch = 0
        self.owned: dict[str, Attempt] = {}
        """What the server believes the worker to hold."""
        self.cancels: dict[Attempt, int] = {}
        self.acked_cancels: set[Attempt] = set()
        self.report_seq = 0
        self.ended: set[Attempt] = set()
        """Attempts whose end the server was told."""
        self.released: set[Attempt] = set()
        self.alive: dict[Attempt, bool] = {}
        """Infrastructure, and whether it has said that it has started."""
        self.begun: set[Attempt] = set()
        self.killed: set[Attempt] = set()
        self.cancelled: set[Attempt] = set()
        self.is_finished = False
        self.tick()

    # The world around the session.

    def tick(self) -> None:
        self.session.tick(self.now)
        self.act()

    def act(self) -> None:
        for action in self.session.take():
            assert not self.is_finished, f"{action} after the end"
            match action:
                case Open(stream, hello):
                    self.pipes[stream] = Pipe(up=[hello])
                case Send(stream, request) if stream in self.pipes:
                    self.pipes[stream].up.append(request)
                case Close(stream, abort):
                    if abort:
                        self.pipes.pop(stream, None)
                case Begin(attempt, _):
                    assert attempt not in self.begun, "begun twice"
                    assert attempt.run_id not in {a.run_id for a in self.alive}, "two of one run at once"
                    self.begun.add(attempt)
                    self.alive[attempt] = False
                case Kill(attempt, _):
                    self.killed.add(attempt)
                case Cancel(attempt, _, _):
                    assert attempt not in self.cancelled, "cancelled twice"
                    self.cancelled.add(attempt)
                case Finish(error):
                    assert error is None
                    self.is_finished = True
                case _:
                    pass

    def hear(self, stream: int, request: ConnectRequest) -> None:
        """The server takes a message up."""
        pipe = self.pipes[stream]
        match request.WhichOneof("message"):
            case "hello":
                self.greet(pipe, request.hello)
            case _ if pipe.epoch != self.epoch:
                return
            case "credit":
                self.grant(pipe, request.credit.granted_total)
            case "heartbeat":
                beat = request.heartbeat
                self.grant(pipe, beat.credit.granted_total)
                ack = HeartbeatAck(seq=beat.seq, report_seq=self.report_seq)
                ack.lost.extend(self.verdicts([Attempt.of(held.attempt) for held in beat.held]))
                for attempt, seq in self.cancels.items():
                    if attempt not in self.acked_cancels:
                        ack.pending_cancels.add(attempt=attempt.to_message(), cancel_seq=seq)
                pipe.down.append(ConnectResponse(heartbeat_ack=ack))
            case "report":
                report = request.report
                assert report.report_seq <= self.report_seq + 1, "a report was left out"
                self.report_seq = max(self.report_seq, report.report_seq)
                if report.WhichOneof("report") == "exited":
                    self.settle(Attempt.of(report.attempt), self.ended)
            case "reply" if request.reply.WhichOneof("reply") == "refuse":
                pass
            case "cancel_ack":
                self.acked_cancels |= {a for a in self.cancels if a.run_id == request.cancel_ack.run_id}
            case "goodbye":
                for ref in request.goodbye.released:
                    self.settle(Attempt.of(ref), self.released)

    def grant(self, pipe: Pipe, total: int) -> None:
        assert total <= pipe.assigned + LIMIT, "more credit than slots"
        pipe.granted = max(pipe.granted, total)

    def settle(self, attempt: Attempt, how: set[Attempt]) -> None:
        how.add(attempt)
        if self.owned.get(attempt.run_id) == attempt:
            del self.owned[attempt.run_id]

    def greet(self, pipe: Pipe, hello: WorkerHello) -> None:
        if hello.session_id != self.session_id or not self.session_id:
            # A session that the server does not know any more: its attempts are not the worker's.
            self.session_id, self.report_seq = new_id(), 0
            self.owned.clear()
        self.epoch += 1
        pipe.epoch, pipe.granted, pipe.assigned = self.epoch, hello.credit.granted_total, 0
        answer = welcome(self.session_id, self.epoch)
        answer.welcome.verdicts.extend(self.verdicts([Attempt.of(held.attempt) for held in hello.held]))
        pipe.down.append(answer)

    def verdicts(self, held: list[Attempt]) -> list[AttemptVerdict]:
        settled = self.ended | self.released
        return [
            AttemptVerdict(attempt=attempt.to_message(), lost=True)
            for attempt in held
            if self.owned.get(attempt.run_id) != attempt and attempt not in settled
        ]

    def newest(self) -> Pipe | None:
        return next((pipe for pipe in self.pipes.values() if pipe.epoch == self.epoch and self.epoch), None)

    # What may happen.

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 16.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    @rule(data=st.data())
    @precondition(lambda self: any(pipe.up for pipe in self.pipes.values()))
    def server_hears(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([s for s, pipe in self.pipes.items() if pipe.up]))
        for _ in range(data.draw(st.integers(1, 5))):
            if self.pipes[stream].up:
                self.hear(stream, self.pipes[stream].up.pop(0))

    @rule(data=st.data())
    @precondition(lambda self: any(pipe.down for pipe in self.pipes.values()))
    def worker_hears(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([s for s, pipe in self.pipes.items() if pipe.down]))
        self.session.received(stream, self.pipes[stream].down.pop(0), self.now)
        self.act()

    @rule(data=st.data())
    @precondition(lambda self: self.pipes)
    def a_stream_breaks(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.pipes)))
        del self.pipes[stream]
        self.session.ended(stream, None, self.now)
        self.act()

    @rule()
    @precondition(lambda self: (pipe := self.newest()) is not None and pipe.assigned < pipe.granted)
    def a_run_is_handed_out(self) -> None:
        pipe = self.newest()
        assert pipe is not None
        attempt = Attempt(new_id(), 1, 1)
        pipe.assigned += 1
        self.owned[attempt.run_id] = attempt
        pipe.down.append(assignment_of(attempt))

    @rule(data=st.data())
    @precondition(
        lambda self: self.owned and (pipe := self.newest()) is not None and pipe.assigned < pipe.granted
    )
    def a_run_is_taken_away_and_handed_out_again(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.owned)))
        before = self.owned[run_id]
        attempt = self.owned[run_id] = Attempt(run_id, before.number + 1, before.fence + 2)
        pipe = self.newest()
        assert pipe is not None
        pipe.assigned += 1
        pipe.down.append(assignment_of(attempt))

    @rule(data=st.data())
    @precondition(lambda self: self.owned)
    def a_run_is_taken_away(self, data: st.DataObject) -> None:
        del self.owned[data.draw(st.sampled_from(sorted(self.owned)))]

    @rule(data=st.data())
    @precondition(lambda self: self.owned)
    def a_run_is_cancelled(self, data: st.DataObject) -> None:
        attempt = self.owned[data.draw(st.sampled_from(sorted(self.owned)))]
        self.cancels[attempt] = 1
        if (pipe := self.newest()) is not None:
            message = CancelAttempt(attempt=attempt.to_message(), cancel_seq=1)
            pipe.down.append(ConnectResponse(cancel=message))

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def infrastructure_starts_or_ends(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.alive, key=repr)))
        if not self.alive[attempt] and data.draw(st.booleans()):
            self.alive[attempt] = True
            self.session.started(attempt, "x", self.now)
        else:
            del self.alive[attempt]
            self.session.exited(attempt, 0, "", False, self.now)
        self.act()

    @rule()
    @precondition(lambda self: self.newest() is not None)
    def the_server_is_to_be_restarted(self) -> None:
        pipe = self.newest()
        assert pipe is not None
        pipe.down.append(ConnectResponse(drain=ServerDrain()))

    # What must hold.

    @invariant()
    def no_more_than_the_limit_runs(self) -> None:
        assert len(self.alive) <= LIMIT

    @invariant()
    def it_wants_to_act_later_only(self) -> None:
        due = self.session.due()
        if due is not None and due <= self.now:
            self.tick()
            after = self.session.due()
            assert after is None or after > self.now

    def teardown(self) -> None:
        """Nothing breaks any more, everything that runs ends, and the worker is drained."""
        for _ in range(100):
            self.settle_down()
            if not self.alive and self.session.running == 0:
                break
        self.session.drain(self.now, None)
        self.act()
        for _ in range(100):
            if self.is_finished:
                break
            self.settle_down()
        assert self.is_finished, "the worker never leaves"
        for stream in list(self.pipes):
            while stream in self.pipes and self.pipes[stream].up:
                self.hear(stream, self.pipes[stream].up.pop(0))
        untold = [a for a in self.begun if self.owned.get(a.run_id) == a]
        assert not untold, "the server was not told of an end"

    def settle_down(self) -> None:
        for stream in list(self.pipes):
            while stream in self.pipes and (self.pipes[stream].up or self.pipes[stream].down):
                pipe = self.pipes[stream]
                if pipe.up:
                    self.hear(stream, pipe.up.pop(0))
                else:
                    self.session.received(stream, pipe.down.pop(0), self.now)
                    self.act()
        for attempt in list(self.alive):
            del self.alive[attempt]
            self.session.exited(attempt, 0, "", False, self.now)
            self.act()
        self.now += 1.0
        self.tick()


TestWorkerAgainstServer = WorkerAgainstServer.TestCase
# Not shrunk: that takes minutes on a busy machine, and the steps say enough.
TestWorkerAgainstServer.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, phases=[Phase.generate]
)
