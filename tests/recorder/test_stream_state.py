"""The stream's state machine against a model server: every order of breaks ends in the same history."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.core.errors import (
    FieldsInvalid,
    ProtocolUnsupported,
    RecorderSealed,
    SequenceGap,
    ServerDraining,
    ServerUnavailable,
    StorageFull,
)
from headrace.recorder.stream import BACKOFF_MAX_SECONDS, Again, GiveUp, StreamState

POISON = -1
TRANSIENT = st.sampled_from([ServerUnavailable(), StorageFull(), None])


class RecordingStream(RuleBasedStateMachine):
    """The client posts numbers; the wire delivers batches late or not at all; the server commits them.

    `wire` holds batches on their way to the server, `acks` what is on its way back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = StreamState(random=lambda: 1.0)
        self.posted: list[int] = []
        self.committed: list[int] = []
        self.poison: set[int] = set()
        self.quarantined: set[int] = set()
        self.wire: list[tuple[int, list[int]]] = []
        self.acks: list[int] = []
        self.is_connected = False
        self.window = 10

    @rule(count=st.integers(1, 30))
    def post(self, count: int) -> None:
        for _ in range(count):
            self.posted.append(len(self.posted) + 1)

    @rule()
    def post_poison(self) -> None:
        self.posted.append(len(self.posted) + 1)
        self.poison.add(self.posted[-1])

    @precondition(lambda self: not self.is_connected)
    @rule(window=st.integers(1, 40), max_entries=st.integers(1, 20))
    def connect(self, window: int, max_entries: int) -> None:
        self.is_connected = True
        self.window = window
        self.state.opened(
            protocol=1,
            durable_seq=len(self.committed),
            window=window,
            max_entries=max_entries,
            max_bytes=0,
        )

    @precondition(lambda self: self.is_connected)
    @rule(limit=st.integers(1, 10))
    def send(self, limit: int) -> None:
        for _ in range(limit):
            part = self.state.next_slice(len(self.posted))
            if part is None:
                return
            assert part.first_seq == self.state.sent + 1
            chosen = self.posted[part.first_seq - 1 : part.first_seq - 1 + part.max_entries]
            if part.is_quarantined:
                assert part.max_entries == 1
                self.quarantined.add(part.first_seq)
                chosen = [POISON]
            self.wire.append((part.first_seq, chosen))
            self.state.wrote(part.first_seq + len(chosen) - 1)
            assert self.state.sent <= self.state.durable + self.window

    @precondition(lambda self: self.is_connected and self.wire)
    @rule()
    def deliver(self) -> None:
        first, entries = self.wire.pop(0)
        if first > len(self.committed) + 1:
            self._break(SequenceGap.at(len(self.committed)))
        elif any(entry in self.poison for entry in entries):
            self._break(FieldsInvalid("cannot be read"))
        else:
            self.committed.extend(entries[len(self.committed) - first + 1 :])
            self.acks.append(len(self.committed))

    @precondition(lambda self: self.is_connected and self.acks)
    @rule()
    def acknowledge(self) -> None:
        self.state.acknowledged(self.acks.pop(0), self.window)

    @precondition(lambda self: self.is_connected)
    @rule(error=TRANSIENT, delivered=st.integers(0, 3))
    def cut(self, error: ServerUnavailable | None, delivered: int) -> None:
        """Some of what is on the wire arrives, and is committed, before the break; no answer does."""
        for first, entries in self.wire[:delivered]:
            if first > len(self.committed) + 1 or any(entry in self.poison for entry in entries):
                break
            self.committed.extend(entries[len(self.committed) - first + 1 :])
        self._break(error)

    @precondition(lambda self: self.is_connected)
    @rule()
    def redirect(self) -> None:
        assert self.state.redirected(0.5) == Again(0.5)
        self._disconnect()

    @precondition(lambda self: not self.is_connected and self.committed)
    @rule(lost=st.integers(1, 20))
    def fail_over(self, lost: int) -> None:
        """The database that takes over has not got the last commits."""
        del self.committed[max(0, len(self.committed) - lost) :]

    def _break(self, error: Exception | None) -> None:
        answer = self.state.failed(error)  # type: ignore[arg-type]
        assert isinstance(answer, Again)
        assert 0 <= answer.seconds <= BACKOFF_MAX_SECONDS
        self._disconnect()

    def _disconnect(self) -> None:
        self.wire.clear()
        self.acks.clear()
        self.is_connected = False

    @invariant()
    def nothing_is_lost_doubled_or_reordered(self) -> None:
        expected = self.posted[: len(self.committed)]
        assert [POISON if seq in self.quarantined else seq for seq in expected] == [
            POISON if seq in self.quarantined else seq for seq in self.committed
        ]

    @invariant()
    def only_poison_is_put_aside(self) -> None:
        assert self.quarantined <= self.poison

    def teardown(self) -> None:
        """Once the breaks stop, everything arrives within a bounded number of connections."""
        for _ in range(3 * len(self.poison) + 3):
            if self._run_to_the_end():
                break
        assert len(self.committed) == len(self.posted)
        self.nothing_is_lost_doubled_or_reordered()
        self.only_poison_is_put_aside()

    def _run_to_the_end(self) -> bool:
        if not self.is_connected:
            self.connect(window=20, max_entries=7)
        for _ in range(2 * len(self.posted) + 2):
            self.send(limit=3)
            if not self.wire and not self.acks:
                return len(self.committed) == len(self.posted)
            while self.is_connected and self.wire:
                self.deliver()
            while self.is_connected and self.acks:
                self.acknowledge()
            if not self.is_connected:
                return False
        return False


RecordingStream.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRecordingStream = RecordingStream.TestCase


def opened(durable: int = 0) -> StreamState:
    state = StreamState(random=lambda: 1.0)
    state.opened(protocol=1, durable_seq=durable, window=100, max_entries=0, max_bytes=0)
    return state


def test_the_delay_grows_to_its_ceiling_and_starts_again_after_progress() -> None:
    state = opened()
    delays = [state.failed(ServerUnavailable()) for _ in range(12)]
    assert delays[:4] == [Again(0.2), Again(0.4), Again(0.8), Again(1.6)]
    assert delays[-1] == Again(BACKOFF_MAX_SECONDS)
    state.opened(protocol=1, durable_seq=0, window=100, max_entries=0, max_bytes=0)
    state.wrote(5)
    assert state.acknowledged(5, 100)
    assert state.failed(ServerUnavailable()) == Again(0.2)


def test_the_server_may_ask_for_a_longer_delay() -> None:
    assert opened().failed(ServerDraining("", retry_after_seconds=7.5)) == Again(7.5)


def test_some_errors_end_the_trying() -> None:
    for error in (ProtocolUnsupported(), RecorderSealed()):
        assert opened().failed(error) == GiveUp(error)


def test_an_older_acknowledgement_changes_nothing() -> None:
    state = opened(durable=5)
    assert not state.acknowledged(4, 100)
    assert state.durable == 5


def test_an_acknowledgement_can_be_ahead_of_what_this_connection_sent() -> None:
    """A batch of the connection before was still on its way when this one opened."""
    state = opened()
    assert state.acknowledged(30, 100)
    part = state.next_slice(40)
    assert part is not None and part.first_seq == 31
