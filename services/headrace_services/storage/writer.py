"""The one write path: commands in, group commits out.

One task drains what has piled up, loads every row that the commands touch in one query, lets them work
in memory, writes everything at once and commits once; only then is anybody answered. While a commit
waits for the disk the next batch gathers by itself. Only where many ask at once, and the disk is quick, is
the next commit held back for a moment: whoever asks alone never waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from headrace.core.clock import Clock
from headrace.core.errors import DatabaseUnavailable, InternalError, ServiceError
from headrace.v1.record_service_pb2 import AttemptVerdict, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.run_service_pb2 import (
    CONFLICT_POLICY_UNSPECIFIED,
    ConflictPolicy,
    ProposeStateResponse,
    RunInput,
)
from headrace.v1.state_pb2 import CrashedDetails, State
from headrace_services.storage import failpoints
from headrace_services.storage.backends import Backend
from headrace_services.storage.cancelling import CancelRun, SettleCancellation
from headrace_services.storage.command import Command, Nothing
from headrace_services.storage.dispatch_writer import DispatchWriter
from headrace_services.storage.ending import CrashRecorder, DeleteFlow, DeleteRun, SealRecorder
from headrace_services.storage.errors import is_conflict
from headrace_services.storage.loading import load
from headrace_services.storage.memory import Memory
from headrace_services.storage.pausing import DeleteRunInput, ExpirePause, ResumeRun, SendRunInput
from headrace_services.storage.recorder_commands import OpenRecorder, Record, Renew
from headrace_services.storage.run_commands import CreateRun, ProposeState, UpdateRun
from headrace_services.storage.steps import Conflict, Steps
from headrace_services.storage.taking_over import TakeOverRun
from headrace_services.storage.values import RecorderStatus, RecordOutcome
from headrace_services.storage.work import Work

__all__ = ["Writer"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_BATCH_COMMANDS: Final = 500
_BATCH_WEIGHT: Final = 5000
_ALONE_WEIGHT: Final = 8
_MANY: Final = 3
"""So many commands in a commit show that more are to be expected."""
_PACE_SECONDS: Final = 0.002
"""How soon after another a commit begins while that is so."""
_TRIES: Final = 8
_TRIM_SECONDS: Final = 60.0


class Writer(DispatchWriter):
    """Changes the database: every method enqueues one command and returns when its commit is durable.

    Attributes:
        batches: how many it has begun to commit.
        doubts: how many transactions there were of which nobody knows whether they were committed: the
            database went away before it had answered.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer. Nothing of the command was written.
        StorageFull: its disk is full. Nothing of the command was written.
        InternalError: the command broke something unforeseen. Nothing of it was written.
    """

    def __init__(self, backend: Backend, clock: Clock, committed: Callable[[bool], None]) -> None:
        super().__init__()
        self._backend = backend
        self._clock = clock
        self._committed = committed
        self._queue: deque[Command[Any]] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._memory = Memory()
        self._trimmed_at = clock.monotonic()
        self.batches = self.doubts = 0
        self._failpoints = failpoints.armed()

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._run(), name="headrace-writer")

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def open_recorder(
        self, open: RecorderOpen, replica_id: str, lease_seconds: float
    ) -> RecorderStatus:
        """Take in a recorder, or take up one that was known, and start its lease.

        A recorder whose lease had lapsed lives again; its entries are taken where the fences allow.
        """
        return await self._ask(OpenRecorder(open, replica_id, lease_seconds))

    async def record(self, recorder_id: str, first_seq: int, entries: Sequence[RecordEntry]) -> RecordOutcome:
        """Apply each entry exactly once, in order.

        Entries that are durable already are skipped. An entry that is refused leaves an error in the
        results; the sequence goes on.

        Raises:
            SequenceGap: `first_seq` is past the entry that must come next.
            RecorderSealed: the recorder has said that it is done.
            ObjectNotFound: the recorder never opened.
        """
        return await self.recorded(recorder_id, first_seq, entries)

    def recorded(
        self,
        recorder_id: str,
        first_seq: int,
        entries: Sequence[RecordEntry],
        on_done: Callable[[], None] | None = None,
    ) -> asyncio.Future[RecordOutcome]:
        """What `record` will return: the entries are in the queue at once, without a task to put them there.

        Args:
            recorder_id, first_seq, entries: as for `record`.
            on_done: called as soon as the future is resolved, unless somebody has cancelled it.

        Raises:
            DatabaseUnavailable: the database is being closed.
        """
        command = Record.of(recorder_id, first_seq, entries)
        command.on_done = on_done
        return self._put(command)

    async def renew_recorders(
        self, renewals: Mapping[str, int], executing: Sequence[AttemptRef] = ()
    ) -> list[AttemptVerdict]:
        """Renew many leases in one statement.

        Args:
            renewals: recorder id -> when its lease ends, microseconds on the clock of `Database.now`.
            executing: the attempts that these recorders say they execute.

        Returns:
            The attempts among `executing` that are lost: their runs are gone, or owned by a later fence.
        """
        return await self._ask(Renew(renewals, executing))

    async def seal_recorder(self, recorder_id: str) -> None:
        """Note that the recorder is done. Runs it leaves behind unfinished become CRASHED.

        Sealing twice is sealing once.

        Raises:
            ObjectNotFound: the recorder never opened.
        """
        await self._ask(SealRecorder(recorder_id))

    async def crash_recorder(
        self,
        recorder_id: str,
        reason: str,
        cause: CrashedDetails.Cause.ValueType,
        *,
        expired_before: int | None = None,
    ) -> list[str]:
        """End the recorder's lease and mark every unfinished run it executes CRASHED, children first.

        The marks are a guess of the server's: a later report of the process itself, under the same
        fence, replaces them.

        Args:
            recorder_id: the recorder.
            reason: the message of the states, a sentence.
            cause: why, for machines.
            expired_before: do nothing when the lease was renewed and ends at or after this instant
                (microseconds on the clock of `Database.now`).

        Returns:
            The ids of the runs that were marked.

        Raises:
            ObjectNotFound: the recorder never opened.
        """
        return await self._ask(CrashRecorder(recorder_id, reason, cause, expired_before))

    async def create_run(
        self,
        run: Run,
        idempotency_key: str = "",
        on_conflict: ConflictPolicy.ValueType = CONFLICT_POLICY_UNSPECIFIED,
    ) -> tuple[Run, bool]:
        """Create a run, in `run.state` or else SCHEDULED for now.

        Returns:
            The run as it is now, view FULL, and whether it existed.

        Raises:
            ObjectAlreadyExists: the key is taken and `on_conflict` is FAIL.
            RequestIdReused: the run id was used for a run that says something else.
            ObjectNotFound: there is no parent, root or owner run with the given id.
        """
        return await self._ask(CreateRun(run, idempotency_key, on_conflict))

    async def propose_state(
        self, run_id: str, attempt: AttemptRef | None, state: State, force: bool = False, actor: str = ""
    ) -> ProposeStateResponse:
        """Run the rules over a proposed state; write what they decide.

        Args:
            run_id: the run.
            attempt: set by executors, whose fence is then checked.
            state: what is proposed.
            force: skip all but the minimal rules.
            actor: who asks, kept in a forced state.

        Raises:
            ObjectNotFound: there is no such run.
            StaleAttempt: the attempt no longer owns the run.
        """
        return await self._ask(ProposeState(run_id, attempt, state, force, actor))

    async def cancel_run(self, run_id: str, state: State) -> ProposeStateResponse:
        """Ask that a run ends: it enters `state`, which is CANCELLING, or CANCELLED when nobody holds it.

        Args:
            run_id: a flow run, or a task run at the top of its own tree.
            state: its message says why; its details say who asks, and how long the run may take.

        Raises:
            ObjectNotFound: there is no such run.
            TransitionNotAllowed: it is a task run below another run.
        """
        return await self._ask(CancelRun(run_id, state))

    async def take_over_run(self, run_id: str, state_id: str, force: bool) -> Run:
        """Begin the next attempt of a flow run, for whoever asks; the run, view FULL.

        Args:
            run_id: a flow run that was started on its own.
            state_id: of the PENDING state to write; the same id again changes nothing.
            force: also from a process that may be executing it.

        Raises:
            ObjectNotFound: there is no such run.
            RunActive: a process may be executing it.
            TransitionNotAllowed: it has completed, is paused, or is being cancelled; or it is no such run.
        """
        return await self._ask(TakeOverRun(run_id, state_id, force))

    async def settle_cancellation(self, run_id: str, state_id: str) -> bool:
        """End the run that is still CANCELLING in the given state, and what is below it or a CANCELLED one.

        Returns:
            Whether the run was in that state.
        """
        return await self._ask(SettleCancellation(run_id, state_id))

    async def resume_run(self, run_id: str, state_id: str, answer: str = "") -> ProposeStateResponse:
        """Let a paused run go on, and keep what it was answered.

        Args:
            run_id: the run.
            state_id: of the state to write; the same id again resumes nothing twice.
            answer: JSON text; empty: `{}`.

        Returns:
            Aborted when the run is not paused, rejected when its pause was over.

        Raises:
            ObjectNotFound: there is no such run.
            FieldsInvalid: the answer does not fit the pause's schema. Nothing was written.
        """
        return await self._ask(ResumeRun(run_id, state_id, answer))

    async def expire_pause(self, run_id: str, state_id: str) -> bool:
        """End the pause that the run entered with the state, if it is in it and its time is over.

        Returns:
            Whether it did.
        """
        return await self._ask(ExpirePause(run_id, state_id))

    async def send_input(self, said: RunInput) -> RunInput:
        """Tell a run something, once per key.

        Raises:
            ObjectNotFound: there is no such run.
            ObjectAlreadyExists: it was told something else under the key.
            FieldsInvalid: the value is not JSON.
        """
        return await self._ask(SendRunInput(said))

    async def delete_input(self, run_id: str, key: str) -> None:
        """Forget what a run was told under the key, if it was.

        Raises:
            ObjectNotFound: there is no such run.
        """
        await self._ask(DeleteRunInput(run_id, key))

    async def update_run(self, run: Run, paths: Sequence[str], request_id: str = "") -> Run:
        """Change the fields of the run that `paths` names: name, tags, labels, parameters.

        Returns:
            The run as it is now, view FULL.

        Raises:
            ObjectNotFound: there is no such run.
            EtagMismatch: `run.etag` is set and is not the run's.
            FieldsInvalid: a path is not one of those.
            TransitionNotAllowed: `parameters`, after the run has started.
            RequestIdReused: `request_id` was used for another request.
        """
        return await self._ask(UpdateRun(run, paths, request_id))

    async def delete_run(self, run_id: str, force: bool = False) -> int:
        """Delete the run, the runs below it, and everything that belongs to them.

        Returns:
            How many runs are gone; 0 when there was none.

        Raises:
            RunActive: one of them may still be executing, and `force` is not set.
        """
        return await self._ask(DeleteRun(run_id, force))

    async def delete_flow(
        self, *, id: str | None = None, name: str | None = None, force: bool = False
    ) -> int:
        """Delete a flow with all its runs.

        Returns:
            How many runs are gone.

        Raises:
            ObjectNotFound: there is no such flow.
            RunActive: one of its runs may still be executing, and `force` is not set.
        """
        return await self._ask(DeleteFlow(id, name, force))

    async def do(self, command: Command[T]) -> T:
        """Commit a command; it says itself what it answers and raises."""
        return await self._put(command)

    async def settled(self) -> None:
        """Wait until everything is committed, or has failed, that was asked for before this call."""
        await self._put(Nothing())

    # The loop

    async def _ask(self, command: Command[T]) -> T:
        return await self._put(command)

    def _put(self, command: Command[T]) -> asyncio.Future[T]:
        if self._closing:
            raise DatabaseUnavailable("The server is closing its database.")
        self._queue.append(command)
        self._wake.set()
        return command.future

    async def _run(self) -> None:
        began, is_busy = 0.0, False
        while not (self._closing and not self._queue):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                if is_busy:
                    await self._gather(began)
                batch = self._take()
                self.batches += 1
                began, is_busy = asyncio.get_running_loop().time(), len(batch) >= _MANY
                try:
                    await self._commit(batch)
                except Exception:
                    # Whatever it was: whoever waits is told, and the next batch gets its turn.
                    _log.exception("a batch of %d commands was given up", len(batch))
                    for command in batch:
                        command.fail(InternalError("The server could not store this; its log says why."))

    async def _gather(self, began: float) -> None:
        """Let more commands come, where many ask at once: commits of few are quick, but cost more together.

        Args:
            began: when the last commit began, by the event loop's clock.
        """
        seconds = began + _PACE_SECONDS - asyncio.get_running_loop().time()
        if seconds > 0 and not self._closing:
            await asyncio.sleep(seconds)

    def _take(self) -> list[Command[Any]]:
        """The next batch: what has piled up, or one command that needs a transaction of its own."""
        batch: list[Command[Any]] = []
        weight = 0
        while self._queue and len(batch) < _BATCH_COMMANDS and weight < _BATCH_WEIGHT:
            if self._queue[0].is_solo and batch:
                break
            command = self._queue.popleft()
            batch.append(command)
            weight += command.weight
            if command.is_solo:
                break
        return batch

    async def _commit(self, batch: Sequence[Command[Any]]) -> None:
        """Commit the batch, or find out which of its commands cannot be committed."""
        try:
            await self._transact(batch)
        except ServiceError as error:
            for command in batch:
                command.fail(error)
        except Exception as error:
            await self._isolate(batch, error)
        else:
            for command in batch:
                command.finish()

    async def _transact(self, batch: Sequence[Command[Any]]) -> None:
        """One transaction, tried again when another one came first."""
        for attempt in range(1, _TRIES + 1):
            trims = self._due_to_trim()
            is_optimistic = attempt == 1 and not trims and all(command.is_optimistic for command in batch)
            try:
                logic = await self._logic(batch, is_optimistic=is_optimistic, trims=trims)
                work = await self._backend.store.transact(
                    logic, is_optimistic=is_optimistic, is_alone=self._is_alone(batch)
                )
                self._reach("after", batch, work)
            except Exception as error:
                self._memory.forget()
                self.doubts += isinstance(error, DatabaseUnavailable)
                if attempt == _TRIES or not self._is_worth_another_try(error, attempt):
                    raise
                if not is_optimistic:  # else the next try waits for its locks
                    await asyncio.sleep(random.random() * 0.005 * attempt)
            else:
                self._note_queue(work.queueing)
                if not work.writes.is_empty:
                    self._committed(work.queueing.has_news)
                return

    def _is_alone(self, batch: Sequence[Command[Any]]) -> bool:
        """Whether the batch is one small command, and no other one waits for it to be done."""
        return len(batch) == 1 and not self._queue and batch[0].weight <= _ALONE_WEIGHT

    def _is_worth_another_try(self, error: Exception, attempt: int) -> bool:
        """Whether the same batch may succeed: it lost a race, or its connection was stale."""
        if isinstance(error, Conflict) or is_conflict(error):
            return True
        # Rows that another replica inserted meanwhile are found when the batch loads again; a connection
        # that had died in idleness is replaced. Every command may be repeated, so nothing happens twice.
        return attempt == 1 and (
            not isinstance(error, ServiceError) or isinstance(error, DatabaseUnavailable)
        )

    async def _isolate(self, batch: Sequence[Command[Any]], error: Exception) -> None:
        """Commit the batch in halves, down to the one command, and entry, that breaks it."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
            return
        command = batch[0]
        parts = command.parts()
        if parts:
            await self._commit_parts(command, parts)
            return
        known = InternalError("The server could not store this; its log says why.")
        _log.error("a %s could not be committed", type(command).__name__, exc_info=error)
        substitute = command.poisoned(known)
        if substitute is None:
            command.fail(known)
            return
        await self._commit_parts(command, [substitute])

    async def _commit_parts(self, command: Command[Any], parts: Sequence[Command[Any]]) -> None:
        """Commit the pieces of a command in their order, and answer it from theirs."""
        for part in parts:
            await self._commit([part])
            failure = part.future.exception()
            if failure is not None:
                command.fail(failure)
                return
        command.join(parts)

    # One transaction

    async def _logic(
        self, batch: Sequence[Command[Any]], *, is_optimistic: bool, trims: bool
    ) -> Callable[[], Steps[Work]]:
        """The batch as the logic of one transaction, which gives what was worked on."""
        lease_now = 0
        if any(command.needs_lease_clock for command in batch):
            lease_now = await self._backend.lease_now()
        now = self._clock.now()

        def logic() -> Steps[Work]:
            work = Work(
                now,
                lease_now,
                is_optimistic=is_optimistic,
                remembered=self._memory.runs if is_optimistic else {},
                known_routes=self.known_routes,
                keyed_scopes=self.keyed_scopes,
            )
            work.writes.is_trimming = trims
            yield from load(work, batch, self._memory)
            for command in batch:
                yield from command.run(work)
            yield from work.flush(lambda: self._reach("before", batch, work))
            self._memory.keep(work)
            return work

        return logic

    def _reach(self, side: failpoints.Side, batch: Sequence[Command[Any]], work: Work) -> None:
        """Let a test have the commit fail here."""
        if self._failpoints is not None:
            self._failpoints.reach(side, batch, ends_attempts=bool(work.writes.ended_attempts))

    def _due_to_trim(self) -> bool:
        """Whether what is past its time should go."""
        now = self._clock.monotonic()
        if now - self._trimmed_at < _TRIM_SECONDS:
            return False
        self._trimmed_at = now
        return True
