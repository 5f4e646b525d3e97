"""The one write path: commands in, group commits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.v1.record_service_pb2 import AttemptVerdict, RecordEntry, RecorderOpen
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.run_service_pb2 import CONFLICT_POLICY_UNSPECIFIED, ConflictPolicy, ProposeStateResponse
from headrace.v1.state_pb2 import CrashedDetails, State
from headrace_services.storage.values import RecorderStatus, RecordOutcome

__all__ = ["Writer"]


class Writer:
    """Changes the database: every method enqueues one command and returns when its commit is durable.

    Raises, from every method:
        DatabaseUnavailable: the database does not answer. Nothing of the command was written.
        StorageFull: its disk is full. Nothing of the command was written.
        InternalError: the command broke something unforeseen. Nothing of it was written.
    """

    async def open_recorder(
        self, open: RecorderOpen, replica_id: str, lease_seconds: float
    ) -> RecorderStatus:
        """Take in a recorder, or take up one that was known, and start its lease.

        A recorder whose lease had lapsed lives again; its entries are taken where the fences allow.
        """
        raise NotImplementedError

    async def record(self, recorder_id: str, first_seq: int, entries: Sequence[RecordEntry]) -> RecordOutcome:
        """Apply each entry exactly once, in order.

        Entries that are durable already are skipped. An entry that is refused leaves an error in the
        results; the sequence goes on.

        Raises:
            SequenceGap: `first_seq` is past the entry that must come next.
            RecorderSealed: the recorder has said that it is done.
            ObjectNotFound: the recorder never opened.
        """
        raise NotImplementedError

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
        raise NotImplementedError

    async def seal_recorder(self, recorder_id: str) -> None:
        """Note that the recorder is done. Runs it leaves behind unfinished become CRASHED.

        Sealing twice is sealing once.

        Raises:
            ObjectNotFound: the recorder never opened.
        """
        raise NotImplementedError

    async def crash_recorder(
        self, recorder_id: str, reason: str, cause: CrashedDetails.Cause, *, expired_before: int | None = None
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
        raise NotImplementedError

    async def create_run(
        self, run: Run, idempotency_key: str = "", on_conflict: ConflictPolicy = CONFLICT_POLICY_UNSPECIFIED
    ) -> tuple[Run, bool]:
        """Create a run, in `run.state` or else SCHEDULED for now.

        Returns:
            The run as it is now, view FULL, and whether it existed.

        Raises:
            ObjectAlreadyExists: the key is taken and `on_conflict` is FAIL.
            RequestIdReused: the run id was used for a run that says something else.
            ObjectNotFound: there is no parent, root or owner run with the given id.
        """
        raise NotImplementedError

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
        raise NotImplementedError

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
        raise NotImplementedError

    async def delete_run(self, run_id: str, force: bool = False) -> int:
        """Delete the run, the runs below it, and everything that belongs to them.

        Returns:
            How many runs are gone; 0 when there was none.

        Raises:
            RunActive: one of them may still be executing, and `force` is not set.
        """
        raise NotImplementedError

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
        raise NotImplementedError
