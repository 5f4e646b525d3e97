"""The recording stream over a real connection, while things go wrong."""

from __future__ import annotations

import threading

import pytest

from headrace.core.errors import (
    FieldsInvalid,
    ProtocolUnsupported,
    SequenceGap,
    ServerUnavailable,
    StaleAttempt,
    Unauthenticated,
)
from headrace.core.ids import new_id
from headrace.core.verdicts import Abort, Accept, Reject, Wait
from headrace.v1 import record_service_pb2 as pb
from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, State
from tests.recorder.conftest import MakeRecorder
from tests.support.entries import log_entry, run_entry, state_entry
from tests.support.record_server import Faults, RecordServer

TIMEOUT = 20.0


def messages(server: RecordServer) -> list[str]:
    return [entry.log.message for entry in server.journal.entries()]


def test_everything_posted_arrives_in_order(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)
        for index in range(1000):
            seq = recorder.post(log_entry(str(index)))
        recorder.durable(seq).result(TIMEOUT)
        assert seq == 1000
        assert messages(server) == [str(index) for index in range(1000)]


def test_entries_that_nobody_waits_for_travel_together(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)
        server.journal.batches.clear()
        last = [recorder.post(state_entry()) for _ in range(300)][-1]
        server.journal.wait_for(lambda journal: len(journal.entries()) == last)
        assert len(server.journal.batches) < 150


@pytest.mark.parametrize("hook", ["before_batch", "after_batch"])
def test_a_stream_that_breaks_loses_and_doubles_nothing(make_recorder: MakeRecorder, hook: str) -> None:
    broken = 0

    def break_now_and_then(batch: pb.RecordEntries) -> None:
        nonlocal broken
        if broken < 5:
            broken += 1
            raise ServerUnavailable("cut")

    faults = Faults(max_entries=20)
    setattr(faults, hook, break_now_and_then)
    with RecordServer(faults=faults) as server:
        recorder = make_recorder(address=server.address)
        last = [recorder.post(log_entry(str(index))) for index in range(500)][-1]
        recorder.durable(last).result(TIMEOUT)
        assert broken == 5
        assert messages(server) == [str(index) for index in range(500)]


def test_a_gap_makes_the_recorder_go_back(make_recorder: MakeRecorder) -> None:
    """A database that failed over has lost its last commits, which were acknowledged."""
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)
        last = [recorder.post(log_entry(str(index))) for index in range(50)][-1]
        recorder.durable(last).result(TIMEOUT)
        with server.journal.changed:
            del server.journal.recorders[recorder.recorder_id].entries[20:]
        recorder.durable(recorder.post(log_entry("50"))).result(TIMEOUT)
        assert messages(server) == [str(index) for index in range(51)]


def test_a_server_that_restarts_is_found_again(make_recorder: MakeRecorder) -> None:
    server = RecordServer().start()
    recorder = make_recorder(address=server.address)
    recorder.durable(recorder.post(log_entry("0"))).result(TIMEOUT)
    for index in range(1, 4):
        server.stop()
        seq = recorder.post(log_entry(str(index)))
        server.start()
        server.journal.wait_for(lambda journal, seq=seq: len(journal.entries()) == seq)  # type: ignore[misc]
    recorder.durable(seq).result(TIMEOUT)
    assert messages(server) == ["0", "1", "2", "3"]
    server.stop()


def test_the_server_may_send_the_recorder_elsewhere(make_recorder: MakeRecorder) -> None:
    with RecordServer(faults=Faults(go_away_after=1)) as server:
        recorder = make_recorder(address=server.address)
        for index in range(5):
            recorder.durable(recorder.post(log_entry(str(index)))).result(TIMEOUT)
        assert messages(server) == ["0", "1", "2", "3", "4"]
        assert len(server.journal.opened) >= 3


def test_the_window_is_kept(make_recorder: MakeRecorder) -> None:
    go_on = threading.Event()

    def hold(_: pb.RecordEntries) -> None:
        assert go_on.wait(TIMEOUT)

    faults = Faults(window=10, before_batch=hold)
    with RecordServer(faults=faults) as server:
        recorder = make_recorder(address=server.address)
        last = [recorder.post(log_entry(str(index))) for index in range(100)][-1]
        go_on.set()
        recorder.durable(last).result(TIMEOUT)
        assert max(count for _, count in server.journal.batches) <= 10
        assert len(messages(server)) == 100


def accepted(entry: pb.StateEntry) -> ProposeStateResponse:
    renamed = State(id=entry.state.id, type=entry.state.type, name="Renamed")
    return ProposeStateResponse(accepted=ProposeStateResponse.Accepted(state=renamed))


def rejected(_: pb.StateEntry) -> ProposeStateResponse:
    state = State(id=new_id(), type=STATE_TYPE_CANCELLED)
    return ProposeStateResponse(rejected=ProposeStateResponse.Rejected(state=state, reason="cancelled"))


def wait(_: pb.StateEntry) -> ProposeStateResponse:
    answer = ProposeStateResponse(wait=ProposeStateResponse.Wait(reason="later"))
    answer.wait.retry_after.FromMilliseconds(1500)
    return answer


def abort(_: pb.StateEntry) -> ProposeStateResponse:
    return ProposeStateResponse(abort=ProposeStateResponse.Abort(reason="gone"))


def test_verdicts_come_back_as_values(make_recorder: MakeRecorder) -> None:
    faults = Faults()
    with RecordServer(faults=faults) as server:
        recorder = make_recorder(address=server.address)
        faults.verdict = accepted
        answer = recorder.propose(state_entry()).result(TIMEOUT)
        assert isinstance(answer, Accept) and answer.state.name == "Renamed"
        faults.verdict = rejected
        answer = recorder.propose(state_entry()).result(TIMEOUT)
        assert isinstance(answer, Reject)
        assert (answer.state.type, answer.reason) == (STATE_TYPE_CANCELLED, "cancelled")
        faults.verdict = wait
        assert recorder.propose(state_entry()).result(TIMEOUT) == Wait(1.5, "later")
        faults.verdict = abort
        assert recorder.propose(state_entry()).result(TIMEOUT) == Abort("gone")


def test_an_entry_that_is_refused_leaves_the_stream_alone(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(entry: pb.RecordEntry) -> FieldsInvalid | None:
        return FieldsInvalid.of("log.level", "must be small") if entry.log.message == "bad" else None

    with RecordServer(faults=Faults(refuse_entry=refuse)) as server:
        recorder = make_recorder(address=server.address)
        recorder.post(log_entry("bad"))
        recorder.durable(recorder.post(log_entry("good"))).result(TIMEOUT)
        assert len(server.journal.opened) == 1
        assert "log.level: must be small" in caplog.text


def test_a_stale_attempt_is_told_to_whoever_executes_it(make_recorder: MakeRecorder) -> None:
    def refuse(entry: pb.RecordEntry) -> StaleAttempt | None:
        return StaleAttempt() if entry.WhichOneof("kind") == "state" else None

    lost: list[str] = []
    with RecordServer(faults=Faults(refuse_entry=refuse)) as server:
        recorder = make_recorder(address=server.address)
        entry = state_entry()
        recorder.begin_owner(entry.state.attempt.run_id, 1, 1, lost.append)
        recorder.durable(recorder.post(entry)).result(TIMEOUT)
        assert lost == [StaleAttempt().message]
        with pytest.raises(StaleAttempt):
            recorder.propose(state_entry()).result(TIMEOUT)


def test_executing_attempts_are_renewed_until_the_server_says_they_are_lost(
    make_recorder: MakeRecorder,
) -> None:
    run_id = new_id()
    verdicts: list[pb.AttemptVerdict] = []
    lost: list[str] = []
    faults = Faults(renew_seconds=0.05, attempts=lambda: verdicts)
    with RecordServer(faults=faults) as server:
        recorder = make_recorder(address=server.address)
        recorder.durable(recorder.post(run_entry(run_id=run_id))).result(TIMEOUT)
        recorder.begin_owner(run_id, 1, 7, lost.append)
        server.journal.wait_for(lambda journal: any(renew.executing for renew in journal.renewals))
        attempt = AttemptRef(run_id=run_id, attempt=1, fence=7)
        assert list(server.journal.renewals[-1].executing) == [attempt]
        verdicts.append(pb.AttemptVerdict(attempt=attempt, lost=True, reason="taken over"))
        server.journal.wait_for(lambda journal: not journal.renewals[-1].executing)
        assert lost == ["taken over"]


def test_an_entry_that_ends_every_stream_is_put_aside(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    def choke(batch: pb.RecordEntries) -> None:
        if any(entry.log.message == "poison" for entry in batch.entries):
            raise FieldsInvalid.of("entries", "cannot be read")

    with RecordServer(faults=Faults(before_batch=choke)) as server:
        recorder = make_recorder(address=server.address)
        words = ["a", "b", "poison", "c", "d"]
        last = [recorder.post(log_entry(word)) for word in words][-1]
        recorder.durable(last).result(TIMEOUT)
        assert messages(server) == ["a", "b", "", "c", "d"]
        assert server.journal.entries()[2].WhichOneof("kind") == "dropped"
        kept = list((recorder.options.home / "quarantine").iterdir())
        assert [pb.RecordEntry.FromString(file.read_bytes()).log.message for file in kept] == ["poison"]


def test_a_server_that_speaks_another_version_is_a_clear_error(make_recorder: MakeRecorder) -> None:
    with RecordServer(faults=Faults(protocol=99)) as server:
        recorder = make_recorder(address=server.address)
        with pytest.raises(ProtocolUnsupported, match="version 99"):
            recorder.propose(state_entry()).result(TIMEOUT)


def test_wrong_credentials_are_a_clear_error(make_recorder: MakeRecorder) -> None:
    def refuse(_: pb.RecorderOpen) -> None:
        raise Unauthenticated

    with RecordServer(faults=Faults(refuse_open=refuse)) as server:
        recorder = make_recorder(address=server.address)
        with pytest.raises(Unauthenticated):
            recorder.propose(state_entry()).result(TIMEOUT)


def test_credentials_that_end_in_the_middle_do_not_end_the_run(
    make_recorder: MakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    with RecordServer(faults=faults) as server:
        recorder = make_recorder(address=server.address)
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)

        def refuse(_: object) -> None:
            raise Unauthenticated("The password has changed.")

        faults.refuse_open = faults.before_batch = refuse
        assert isinstance(recorder.propose(state_entry()).result(TIMEOUT), Accept)
        recorder.durable(recorder.last_seq).result(TIMEOUT)
        assert "The password has changed." in caplog.text
        assert isinstance(recorder.propose(state_entry()).result(TIMEOUT), Accept)


def test_an_explicit_address_that_does_not_answer_is_a_clear_error(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        address = server.address
    recorder = make_recorder(address=address, connect_timeout_seconds=0.2)
    with pytest.raises(ServerUnavailable, match=address):
        recorder.propose(state_entry()).result(TIMEOUT)
    with pytest.raises(ServerUnavailable, match=address):
        recorder.propose(state_entry()).result(TIMEOUT)


def test_a_gap_that_stays_is_not_asked_about_without_end(make_recorder: MakeRecorder) -> None:
    gaps = 0

    def always(_: pb.RecordEntries) -> None:
        nonlocal gaps
        gaps += 1
        if gaps < 4:
            raise SequenceGap.at(0)

    with RecordServer(faults=Faults(before_batch=always)) as server:
        recorder = make_recorder(address=server.address)
        recorder.durable(recorder.post(log_entry("x"))).result(TIMEOUT)
        assert messages(server) == ["x"]
