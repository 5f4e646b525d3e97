"""The recorder: entries from any thread into the spool, answers from the runtime thread back."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib.metadata import version

from headrace.core.clock import Clock, SystemClock
from headrace.core.errors import RecorderSealed, ServerUnavailable, ServiceError, StaleAttempt, StorageFull
from headrace.core.ids import new_id
from headrace.core.verdicts import Abort, Accept, Verdict, Wait
from headrace.recorder import observers
from headrace.recorder.admission import Admission
from headrace.recorder.answers import Reach, verdict_of
from headrace.recorder.api import DirectiveCallback, LostCallback, SuspendedCallback
from headrace.recorder.backlog import Backlog, Batch
from headrace.recorder.entries import Encoded, Weight, encode
from headrace.recorder.notices import Notices, logger
from headrace.recorder.options import RecorderOptions
from headrace.recorder.owners import Owners
from headrace.recorder.spool import SEGMENT_BYTES, SpoolWriter
from headrace.recorder.stream import Slice
from headrace.recorder.syncer import Syncer
from headrace.v1.record_service_pb2 import RecordEntry
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import State

__all__ = ["SpoolRecorder"]


class SpoolRecorder:
    """One sequence of entries, its spool, and who waits for what.

    The link on the runtime thread calls the methods of the second half of this class.
    """

    def __init__(
        self,
        options: RecorderOptions,
        clock: Clock | None = None,
        *,
        on_start: Callable[[SpoolRecorder], None] = lambda _: None,
    ) -> None:
        self.options = options
        self.recorder_id = new_id()
        self._clock = clock or SystemClock()
        self._on_start = on_start
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._spool = SpoolWriter(
            options.spool_root,
            self.recorder_id,
            options.address or "auto",
            self._clock,
            version("headrace"),
            segment_bytes=min(SEGMENT_BYTES, options.budget_bytes // 8),
        )
        self._backlog = Backlog(self._spool.folder)
        self._reach = Reach.TRYING
        self._refusal: ServiceError | None = None
        self._was_open = False
        self._durable = 0
        self._sent = 0
        self._synced = 0
        self._fact_seq = 0
        self._notices = Notices()
        self._admission = Admission(
            self._spool,
            options.budget_bytes,
            raise_when_full=options.raise_when_full,
            room=self._room,
            notices=self._notices,
        )
        self._started = False
        self._closed = False
        self._verdicts: dict[int, tuple[Future[Verdict[State]], State]] = {}
        self._waiting: list[tuple[int, int, Future[None]]] = []
        self._waiting_count = 0
        self._arrivals: list[Future[None]] = []
        self.owners = Owners()
        self._signalled = False
        self._wake: Callable[[bool], None] | None = None
        self._syncer: Syncer | None = None

    # What the engine calls: see `headrace.recorder.api`.

    def post(self, *entries: RecordEntry) -> int:
        encoded = [encode(entry) for entry in entries]
        with self._lock:
            last = self._append(encoded)
        self._signal(urgent=False)
        observers.tell(entries)
        return last

    def propose(self, entry: RecordEntry) -> Future[Verdict[State]]:
        answer: Future[Verdict[State]] = Future()
        answer.set_running_or_notify_cancel()  # whoever stops waiting must not end the runtime thread
        state = State()
        state.CopyFrom(entry.state.state)
        refusal = self._refusal_of_proposals()
        if refusal is not None:
            answer.set_exception(refusal)
            return answer
        with self._lock:
            is_asked = self._reach in (Reach.TRYING, Reach.OPEN)
            entry.state.want_verdict = is_asked
            seq = self._append([encode(entry)])
            if is_asked:
                self._verdicts[seq] = (answer, state)
        if not is_asked:
            answer.set_result(Accept(state))
        self._signal(urgent=is_asked)
        observers.tell((entry,))
        return answer

    def _refusal_of_proposals(self) -> ServiceError | None:
        """Why a run must not begin now. An address that never answered is tried again first."""
        if self._was_open:
            return None
        if self._reach is Reach.REFUSED:
            is_optional = self.options.offline_allowed and self.options.address is not None
            return None if is_optional else self._refusal
        if self._reach is Reach.NONE and not self.options.offline_allowed:
            self._reach = Reach.TRYING
            self._signal(urgent=True)
        return None

    def durable(self, seq: int) -> Future[None]:
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._is_safe(seq):
                future.set_result(None)
                return future
            self._waiting_count += 1
            heapq.heappush(self._waiting, (seq, self._waiting_count, future))
        self._signal(urgent=True)
        return future

    def connected(self) -> Future[None]:
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            reach, refusal = self._reach, self._refusal
            if reach is not Reach.OPEN and reach is not Reach.REFUSED:
                self._arrivals.append(future)
                self._start()
        if reach is Reach.OPEN:
            future.set_result(None)
        elif reach is Reach.REFUSED:
            future.set_exception(refusal or ServerUnavailable())
        else:
            self._signal(urgent=True)
        return future

    def begin_owner(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        on_lost: LostCallback | None = None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        self.owners.begin(run_id, attempt, fence, self._spool.last_seq, on_lost, on_suspended)

    def end_owner(self, run_id: str) -> None:
        self.owners.end(run_id)

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        self.owners.attend(run_id, on_directive)

    def leave(self, run_id: str) -> None:
        self.owners.leave(run_id)

    def flush(self, timeout_seconds: float) -> bool:
        future = self.durable(self._spool.last_seq)
        try:
            future.result(timeout_seconds)
        except TimeoutError:
            return False
        return True

    # Writing, under the lock.

    def _append(self, encoded: Sequence[Encoded]) -> int:
        is_disk_full = False
        while True:
            if self._closed:
                raise RecorderSealed("The program is ending: the recorder has said that it is done.")
            if is_disk_full or self._admission.is_short:
                encoded = self._admission.admit(encoded, lambda: self._durable, is_disk_full=is_disk_full)
            if not encoded:
                return self._spool.last_seq
            self._start()
            batch = self._admission.with_notice(encoded)
            if self._write([entry.data for entry in batch]):
                self._admission.noticed()
                return self._remember(batch)
            is_disk_full = True

    def _start(self) -> None:
        """There is something to send, or somebody waits for a server."""
        if not self._started and not self._closed:
            self._started = True
            self._on_start(self)

    def _remember(self, encoded: Sequence[Encoded]) -> int:
        last = self._spool.last_seq
        for seq, entry in enumerate(encoded, start=last - len(encoded) + 1):
            self._backlog.add(seq, entry.data, self._sent)
            if entry.weight is Weight.FACT:
                self._fact_seq = seq
        return last

    def _write(self, data: Sequence[bytes]) -> bool:
        try:
            self._spool.append(data)
        except StorageFull:
            self._spool.reclaim(self._durable)
            try:
                self._spool.append(data)
            except StorageFull:
                return False
        return True

    def _signal(self, *, urgent: bool) -> None:
        wake = self._wake
        if wake is not None and (urgent or not self._signalled):
            self._signalled = True
            wake(urgent)

    # What the link calls, on the runtime thread.

    def attach(self, wake: Callable[[bool], None]) -> None:
        """The link is ready: `wake(urgent)` tells it that there is something to do."""
        self._wake = wake
        wake(True)

    @property
    def last_seq(self) -> int:
        """The newest entry."""
        return self._spool.last_seq

    @property
    def reach(self) -> Reach:
        """Whether a server answers."""
        return self._reach

    def take(self, part: Slice) -> Batch:
        """The entries of `part`; empty when the spool does not hold the first of them any more."""
        with self._lock:
            last = self._spool.last_seq
            batch = self._backlog.take(
                part.first_seq, min(last, part.first_seq + part.max_entries - 1), part.max_bytes
            )
            self._sent = batch.last_seq
            if self._sent >= last:
                self._signalled = False
            return batch

    def executing(self) -> list[AttemptRef]:
        """The attempts whose lease this recorder holds, as far as a server can know of them."""
        return self.owners.executing(self._durable)

    def set_reach(self, reach: Reach, error: ServiceError | None = None) -> None:
        """The connection has come, gone, or is no longer waited for."""
        with self._lock:
            self._reach = reach
            self._refusal = error if reach is Reach.REFUSED else None
            self._was_open = self._was_open or reach is Reach.OPEN
            proposals = self._verdicts if reach in (Reach.NONE, Reach.REFUSED) else {}
            if proposals:
                self._verdicts = {}
            arrivals: list[Future[None]] = []
            if reach is Reach.OPEN or reach is Reach.REFUSED:
                arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            if reach is Reach.OPEN:
                arrival.set_result(None)
            else:
                arrival.set_exception(error or ServerUnavailable())
        for future, state in proposals.values():
            self._answer_alone(future, state, error)
        self.settle()

    def _answer_alone(self, future: Future[Verdict[State]], state: State, error: ServiceError | None) -> None:
        """No server will answer this proposal: go on without one where that is allowed."""
        is_refused = self._reach is Reach.REFUSED and not self._was_open
        is_absent = not self.options.offline_allowed and not self._was_open
        if is_refused or is_absent:
            future.set_exception(error or ServerUnavailable())
            return
        if self.options.address is not None and self.options.may_connect:
            self._notices.once("away", f"{error or ServerUnavailable()} The run goes on; its records wait.")
        future.set_result(Accept(state))

    def resumed_at(self, durable: int) -> None:
        """A server has answered the opening message: everything up to `durable` is committed there."""
        with self._lock:
            self._durable = self._sent = durable
            self._backlog.release(durable)
            self._spool.acknowledged(durable)
        self.settle()

    def acknowledged(self, durable: int) -> None:
        """Everything up to `durable` is committed."""
        with self._lock:
            self._durable = durable
            self._backlog.release(durable)
            self._spool.acknowledged(durable)
            self._room.notify_all()
        self.settle()

    def synced(self, seq: int) -> None:
        """Everything up to `seq` is on the disk."""
        with self._lock:
            self._synced = max(self._synced, seq)
        self.settle()

    def _is_safe(self, seq: int) -> bool:
        if seq <= self._durable:
            return True
        return self._reach in (Reach.NONE, Reach.REFUSED) and seq <= self._synced

    def settle(self) -> None:
        """Answer those who wait for what is now safe."""
        done: list[Future[None]] = []
        with self._lock:
            while self._waiting and self._is_safe(self._waiting[0][0]):
                done.append(heapq.heappop(self._waiting)[2])
            needs_sync = bool(self._waiting) and self._reach in (Reach.NONE, Reach.REFUSED)
        for future in done:
            future.set_result(None)
        if needs_sync:
            self.ask_sync()

    def is_unsafe(self, seq: int) -> bool:
        """Whether entry `seq` is neither acknowledged nor synced."""
        return seq > max(self._durable, self._synced)

    def rest(self) -> int:
        """The newest fact that is not safe; when there is none (0), the next post wakes the link again."""
        with self._lock:
            if self.is_unsafe(self._fact_seq):
                return self._fact_seq
            self._signalled = False
            return 0

    def ask_sync(self) -> None:
        """Have the spool synced soon."""
        if self._syncer is None:
            self._syncer = Syncer(self._sync_targets, self.synced)
        self._syncer.ask()

    def _sync_targets(self) -> tuple[list[int], int]:
        with self._lock:
            return self._spool.sync_targets(), self._spool.last_seq

    def answered(self, seq: int, verdict: ProposeStateResponse) -> None:
        """The server's verdict on the proposal `seq`."""
        with self._lock:
            waiting = self._verdicts.pop(seq, None)
        if waiting is not None:
            waiting[0].set_result(verdict_of(verdict))
        elif verdict.WhichOneof("verdict") != "accepted":
            self._late_refusal(seq, verdict)

    def _late_refusal(self, seq: int, verdict: ProposeStateResponse) -> None:
        """The run went on without waiting for this answer: what it did is a fact by now."""
        entry = self._entry(seq)
        if entry is None:
            return
        answer = verdict_of(verdict)
        if isinstance(answer, Abort):
            self.owners.lose(entry.state.attempt.run_id, answer.reason)
        elif isinstance(answer, Wait):
            self.post(entry)

    def refused(self, seq: int, error: ServiceError) -> None:
        """The server dropped the entry `seq`."""
        with self._lock:
            waiting = self._verdicts.pop(seq, None)
        if waiting is not None:
            waiting[0].set_exception(error)
            return
        if isinstance(error, StaleAttempt):
            # Of the run that owns the one which was written about; without a word of it, of that one.
            entry = self._entry(seq)
            own = entry.state.attempt.run_id if entry is not None else ""
            self.owners.lose(error.facts.get("run_id") or own, error.message)
        self._notices.once(f"refused {error.reason}", f"The server did not take a record: {error.message}")

    def gave_up(self, seq: int, *, is_poison: bool) -> None:
        """A notice takes the place of entry `seq`: it is gone, or no server takes it."""
        if not is_poison:
            self._notices.once(
                "gone", "The server's database has lost records that the spool no longer holds."
            )
            return
        entry = self._entry(seq)
        folder = self.options.home / "quarantine"
        file = folder / f"{self.recorder_id}-{seq}.entry"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(entry.SerializeToString() if entry is not None else b"")
        logger.error("The server ends every stream that carries record %d; it is kept in %s.", seq, file)

    def _entry(self, seq: int) -> RecordEntry | None:
        with self._lock:
            data = self._backlog.get(seq)
        if data is None:
            return None
        entry = RecordEntry.FromString(data)
        if entry.WhichOneof("kind") == "state":
            entry.state.want_verdict = False
        return entry

    def housekeep(self) -> None:
        """Now and then: note how far the server is, remove what it has had for a while."""
        with self._lock:
            self._spool.write_durable(self._durable)
            self._spool.trim()

    def finish(self) -> None:
        """Take no more entries, and leave the spool as it is, or remove it when a server has it all."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._spool.release(self._durable, sealed=True)
            self._room.notify_all()
        if self._syncer is not None:
            self._syncer.stop()

    def abandon(self) -> None:
        """This object is a copy in a forked child: the parent records, nothing here may touch its files."""
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._closed = True
        self._wake = None
        self._spool.abandon()
