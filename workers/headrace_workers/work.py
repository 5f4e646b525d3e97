"""What a session holds, and what becomes of it: assignments, verdicts, cancellations, reports. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from headrace.v1.record_service_pb2 import AttemptVerdict
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_pb2 import (
    ATTEMPT_PHASE_ENDING,
    ATTEMPT_PHASE_EXECUTING,
    ATTEMPT_PHASE_SUBMITTING,
    HeldAttempt,
)
from headrace.v1.worker_service_pb2 import (
    Assignment,
    AssignmentReply,
    CancelAck,
    CancelAttempt,
    Teardown,
    TeardownReply,
)
from headrace_workers.actions import Action, Attempt, Begin, Cancel, Kill, LetGo, Notice, Remove
from headrace_workers.held import Held, HeldSet
from headrace_workers.reports import ReportLog

__all__ = ["Work"]

UNLIMITED_SLOTS: Final = 10_000
"""Slots of a worker without a limit: what a heartbeat can name."""


class Work:
    """The attempts of one session.

    Args:
        limit: how many may run at once; None: as many as the server has.
        max_starting: how many may be starting at once.
        do: takes what is to be done.
        send: writes on the present stream, if there is one, a message given by its field's name.
        keeps: what runs goes on when the worker leaves.

    Attributes:
        assigned: assignments since the server's welcome.
        reports: what the server does not know for sure.
        is_closed: nothing new is taken.
    """

    def __init__(
        self,
        limit: int | None,
        max_starting: int,
        do: Callable[[Action], None],
        send: Callable[..., None],
        *,
        keeps: bool = False,
    ) -> None:
        self._slots = UNLIMITED_SLOTS if limit is None else limit
        self._max_starting = max_starting
        self._do = do
        self._send: Callable[..., Any] = send
        self._keeps = keeps
        self._held = HeldSet()
        self._given_back: list[Attempt] = []
        self.reports = ReportLog()
        self.assigned = 0
        self.is_closed = False

    @property
    def running(self) -> int:
        """Attempts that have infrastructure or are to have some."""
        return self._held.taken_slots()

    @property
    def has_infrastructure(self) -> bool:
        """Whether an attempt has some that was not told to end by `stop`."""
        return any(held.has_infrastructure and not held.stop_reason for held in self._held)

    @property
    def keeps_some(self) -> bool:
        """Whether an attempt runs that is not being given back."""
        return any(self._may_give_back(held) for held in self._held)

    @property
    def has_news(self) -> bool:
        """Whether there is something that a server ought to know."""
        return bool(len(self.reports) or self._given_back)

    def free_slots(self) -> int:
        """How many attempts could be begun now."""
        if self.is_closed:
            return 0
        room = self._max_starting - self._held.starting()
        return max(0, min(self._slots - self.running, room))

    def messages(self) -> list[HeldAttempt]:
        """Everything that the worker answers for."""
        return self._held.messages()

    def given_back(self) -> list[AttemptRef]:
        """What others may have."""
        return [attempt.to_message() for attempt in self._given_back]

    def next_begin(self) -> float | None:
        """When the next attempt is to be begun; None: there is none."""
        return min((held.begin_at for held in self._held if self._may_begin(held)), default=None)

    def holds(self, attempt: Attempt) -> bool:
        return self._held.get(attempt) is not None

    # What the server says.

    def take(self, assignment: Assignment, now: float, *, uses_credit: bool) -> None:
        """An assignment has come: accept it, or refuse it, or see that it is an old one.

        Args:
            assignment: what has come.
            now: the time.
            uses_credit: it came on the present stream, and not on the one before.
        """
        attempt = Attempt.of(assignment.attempt)
        if self.holds(attempt):
            # Sent twice: the first answer may be lost.
            self._accept(assignment)
            return
        is_found = bool(assignment.infrastructure_id)  # it runs already: whatever the limit, it is ours
        self.assigned += uses_credit and not is_found
        if not self._held.is_new(attempt):
            return
        if self.is_closed or (self.running >= self._slots and not is_found):
            reason = "the worker drains" if self.is_closed else "no slot is free"
            refuse = AssignmentReply.Refuse(reason=reason)
            self._send(reply=AssignmentReply(assignment_id=assignment.assignment_id, refuse=refuse))
            return
        held = Held(attempt, assignment, now + _seconds_until_start(assignment))
        self._held.add(held)
        for older in self._held.others(held):
            self._lose(older, "a later attempt of the run was handed out")
        self._accept(assignment)

    def _accept(self, assignment: Assignment) -> None:
        accept = AssignmentReply(assignment_id=assignment.assignment_id, accept=AssignmentReply.Accept())
        self._send(reply=accept)

    def judge(self, verdicts: Iterable[AttemptVerdict]) -> None:
        """What the server says of attempts that were named to it."""
        for verdict in verdicts:
            held = self._held.get(Attempt.of(verdict.attempt))
            if verdict.lost and held is not None:
                self._lose(held, verdict.reason or "it is not this worker's any longer")

    def _lose(self, held: Held, reason: str) -> None:
        if held.is_lost:
            return
        held.is_lost = True
        if held.phase == ATTEMPT_PHASE_ENDING:
            self._held.remove(held)  # there is nothing left to end
            return
        self._do(Notice(f"Run {held.attempt.run_id} is ended here: {reason}.", is_warning=True))
        if held.has_infrastructure:
            self._do(Kill(held.attempt, reason))
        else:
            self._held.remove(held)

    def cancel(self, message: CancelAttempt) -> None:
        """A run of ours, or of others, is being cancelled."""
        held = self._held.get(Attempt.of(message.attempt))
        if held is None or held.is_lost:
            # Not acknowledged: the assignment may be on its way. What is not ours heartbeats settle.
            return
        if message.cancel_seq > held.cancel_seq:
            held.cancel_seq = message.cancel_seq
            if held.waits:
                self.exited(held.attempt, None, "It was cancelled before it began.", True)
            elif held.has_infrastructure:
                grace = message.grace.seconds + message.grace.nanos / 1e9
                self._do(Cancel(held.attempt, grace, message.reason))
        self._send(cancel_ack=CancelAck(run_id=held.attempt.run_id, cancel_seq=message.cancel_seq))

    def tear_down(self, message: Teardown) -> None:
        """Nothing is to be left of an attempt that was given up."""
        attempt = Attempt.of(message.attempt)
        held = self._held.get(attempt)
        if held is None:
            self._do(Remove(attempt, message.infrastructure_id))
        else:
            held.is_torn_down = True  # it is ended, and its end is the answer
            self._lose(held, "the server has given it up")

    # What becomes of the infrastructure.

    def begin_due(self, now: float) -> None:
        """Have begun what is due, and forget what everybody knows the end of."""
        for held in self._held:
            if self._may_begin(held) and held.begin_at <= now:
                held.phase = ATTEMPT_PHASE_SUBMITTING
                self._do(Begin(held.attempt, held.assignment))
            elif held.phase == ATTEMPT_PHASE_ENDING and not self.reports.is_open(held.attempt):
                self._held.remove(held)

    def _may_begin(self, held: Held) -> bool:
        # The earlier attempt of a run has to be gone first.
        return held.waits and not self._held.others(held)

    def started(self, attempt: Attempt, infrastructure_id: str) -> None:
        """An attempt has infrastructure, by which it can be found again."""
        held = self._held.get(attempt)
        if held is None or not held.is_starting:
            return
        held.phase = ATTEMPT_PHASE_EXECUTING
        if not held.is_lost:
            self.reports.started(attempt, infrastructure_id)

    def exited(self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool) -> None:
        """The infrastructure of an attempt is gone, or could not be made."""
        held = self._held.get(attempt)
        if held is None or held.phase == ATTEMPT_PHASE_ENDING:
            return
        held.phase = ATTEMPT_PHASE_ENDING
        if held.is_lost:
            self._held.remove(held)
            if held.is_torn_down:
                self._send(teardown_reply=TeardownReply(attempt=attempt.to_message(), removed=True))
        elif held.is_given_back:
            self._held.remove(held)
            self._given_back.append(attempt)
        else:
            if held.stop_reason:
                message = f"The worker ended it because {held.stop_reason}. {message}".strip()
            self.reports.exited(attempt, exit_code, message, never_started)

    # What the worker wants.

    def stop(self, reason: str) -> None:
        """End everything that runs, and report it."""
        for held in self._held:
            if held.has_infrastructure and not held.stop_reason:
                held.stop_reason = reason
                self._do(Kill(held.attempt, reason))

    def give_back_waiting(self) -> None:
        """Others may have what was taken and not begun."""
        for held in self._held:
            if held.waits:
                self._held.remove(held)
                self._given_back.append(held.attempt)

    def give_back(self, reason: str) -> None:
        """End what runs, or leave it to others as it is, if it goes on without this worker."""
        for held in self._held:
            if self._may_give_back(held):
                held.is_given_back = True
                if self._keeps and not held.is_starting:
                    self._held.remove(held)
                    self._do(LetGo(held.attempt))
                else:
                    self._do(Kill(held.attempt, reason))

    def _may_give_back(self, held: Held) -> bool:
        return held.has_infrastructure and not held.is_given_back and not held.is_lost

    def abandon(self) -> None:
        """End what runs, or leave it as it is; nobody is told."""
        for held in self._held:
            if held.has_infrastructure:
                is_left = self._keeps and not held.is_starting
                self._do(LetGo(held.attempt) if is_left else Kill(held.attempt, "the worker leaves"))


def _seconds_until_start(assignment: Assignment) -> float:
    """How far away the start is, by the server's clock alone."""
    if not (assignment.HasField("start_time") and assignment.HasField("server_time")):
        return 0.0
    micros = assignment.start_time.ToMicroseconds() - assignment.server_time.ToMicroseconds()
    return max(0.0, micros / 1e6)
