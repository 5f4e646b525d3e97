"""What an engine asks of the process's recorder.

One recorder per process: every run, state, log line and span goes through it in one order, first into the
spool on disk, then to a server. See `headrace.core.spool` for the files and `RecordService` for the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headrace.core.verdicts import Verdict
    from headrace.v1.record_service_pb2 import RecordEntry, RunDirective
    from headrace.v1.state_pb2 import State

__all__ = ["DirectiveCallback", "LostCallback", "Recorder", "SuspendedCallback"]

LostCallback = Callable[[str], None]
"""Called with the reason, on the runtime thread, when an attempt no longer owns its run: it must return
at once, so it should only set a flag or an event."""

SuspendedCallback = Callable[[str], None]
"""Called like a `LostCallback` when the attempt's run was suspended from outside."""

DirectiveCallback = Callable[["RunDirective"], None]
"""Called like a `LostCallback` with what others want of a run. The same directive may come more than once."""


class Recorder(Protocol):
    """Records what the process executes. Every method may be called from any thread."""

    @property
    def recorder_id(self) -> str:
        """UUIDv7 of the sequence that entries are numbered in; new after a fork."""
        ...

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest entry; 0 before the first."""
        ...

    def post(self, *entries: RecordEntry) -> int:
        """Record `entries`, in this order and without others between them.

        When it returns, the operating system has them: a kill of the process does not lose them. It
        blocks only for backpressure: the spool is at its budget, or the server lags far behind.

        The entries are serialised before it returns, so they may be changed and used again.

        Args:
            entries: at least one. A log message over its limit is cut, with a note.

        Returns:
            Sequence number of the last entry.

        Raises:
            PayloadTooLarge: an entry is over a limit of `headrace.core.limits`; none of them is recorded.
            StorageFull: the spool's disk or budget is full and `recorder.on_full` is "raise".
            RecorderSealed: the interpreter is shutting down and the recorder has said that it is done.
        """
        ...

    def propose(self, entry: RecordEntry) -> Future[Verdict[State]]:
        """Record a state entry and ask the server whether it holds.

        Without a server in reach (address `auto` or `off`) the answer is Accept at once; with an explicit
        address the future ends with `ServerUnavailable` when the server does not answer in time,
        unless `offline` is "allow". The future can also end with the `ServiceError` of the entry, e.g.
        `StaleAttempt`.

        Args:
            entry: holds a `StateEntry`; its `want_verdict` is set by this method.

        Raises:
            What `post` raises.
        """
        ...

    def durable(self, seq: int) -> Future[None]:
        """A future that is done when everything up to `seq` is safe.

        Safe means acknowledged by a server after its commit; without a server in reach it means fsynced
        in the spool.
        """
        ...

    def connected(self) -> Future[None]:
        """A future that is done as soon as a server answers.

        It fails with `ServerUnavailable` where none ever will, and with what a server refuses this
        recorder for; else it waits for as long as no server comes.
        """
        ...

    def begin_owner(
        self,
        run_id: str,
        attempt: int,
        fence: int,
        on_lost: LostCallback | None = None,
        on_suspended: SuspendedCallback | None = None,
    ) -> None:
        """From now on this process executes that attempt: its lease is renewed until `end_owner`.

        Args:
            run_id: a run that is the owner of itself (see `Run.owner_run_id`).
            attempt: which ownership of the run, from 1.
            fence: the fence that guards it.
            on_lost: called once if the server says that the attempt no longer owns the run.
            on_suspended: called at every renewal while the run is to be left at its next task boundary.
        """
        ...

    def end_owner(self, run_id: str) -> None:
        """The attempt has ended; unknown ids are ignored."""
        ...

    def attend(self, run_id: str, on_directive: DirectiveCallback) -> None:
        """From now on `on_directive` is called with what others want of the run, until `leave`.

        Args:
            run_id: a run that this process executes, by itself or in the body of another one.
            on_directive: called on the runtime thread.
        """
        ...

    def leave(self, run_id: str) -> None:
        """The run has ended; unknown ids are ignored."""
        ...

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything posted so far is safe, in the sense of `durable`.

        Returns:
            False when `timeout_seconds` passed first; nothing is lost then, it is still in the spool.
        """
        ...
