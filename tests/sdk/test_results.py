"""Results and errors on the record, and states as they come back from it."""

from __future__ import annotations

import datetime
import logging
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from headrace import flow, task
from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.exceptions import CrashedRun, FailedRun, MissingResult, RecordedError, SerializationError
from headrace.execution.encoding import state_from_proto
from headrace.results import StoredResult, encode_value, load_payload
from headrace.serializers import JSONSerializer, PickleSerializer, Serializer, TooLarge, is_exact_json
from headrace.states import Cancelled, Completed, Crashed, Failed, State
from headrace.v1.payload_pb2 import BlobRef, Payload
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder


@dataclass
class Point:
    x: int


class NeverLoads:
    """Pickles, but does not unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


class TwoArguments(Exception):
    """Pickles, but does not unpickle, also where a library has taught pickle to do without `__init__`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.cause = NeverLoads()


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


VALUES = [
    (None, "json"),
    (True, "json"),
    (5, "json"),
    (10**400, "json"),
    (1.5, "json"),
    ("tëxt\ud800", "json"),
    ([1, {"a": [None]}], "json"),
    ({}, "json"),
    ((1, 2), "pickle"),
    ({1: 2}, "pickle"),
    ({"a": (1,)}, "pickle"),
    (b"x", "pickle"),
    ({1, 2}, "pickle"),
    (datetime.date(2024, 1, 2), "pickle"),
    (Point(1), "pickle"),
    (float("inf"), "pickle"),
]


@pytest.mark.parametrize(("value", "encoding"), VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_exactly(value: Any, encoding: str, recorder: MemoryRecorder) -> None:
    task(lambda: value, name="it")()
    data = recorder.the("it").states[-1].data
    assert data.encoding == encoding
    loaded = load_payload(data)
    assert (loaded, type(loaded)) == (value, type(value))
    if encoding == "pickle":
        assert data.metadata["python"].startswith("3.")


def test_functions_travel_too(recorder: MemoryRecorder) -> None:
    flow(lambda: lambda x: x + 1, name="it")()
    assert recorder.the("it").result(1) == 2  # type: ignore[operator]


BIG = "x" * (INLINE_PAYLOAD_BYTES + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize(
    "value", [BIG, [BIG], {"a": b"x" * 10_000_000}, threading.Lock()], ids=["text", "list", "bytes", "lock"]
)
def test_what_cannot_travel_is_not_recorded_and_the_run_is_completed(
    kind: str, decorate: Any, value: Any, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    assert call(decorate(of_kind(kind, lambda: value), name="it")) is value
    assert not recorder.the("it").states[-1].HasField("data")
    assert "is not recorded" not in caplog.text


def test_what_cannot_travel_is_warned_about_where_results_are_kept(
    recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    task(threading.Lock, name="it", persist_result=True)()
    (record,) = [r for r in caplog.records if "is not recorded" in r.getMessage()]
    assert record.levelno == logging.WARNING


def test_nothing_is_recorded_where_that_was_asked_for(recorder: MemoryRecorder) -> None:
    step = task(lambda: 5, name="step")

    @flow(name="outer", persist_result=False)
    def outer() -> int:
        return step() + step.with_options(name="kept", persist_result=True)()

    assert outer() == 10
    assert not recorder.the("step").states[-1].HasField("data")
    assert not recorder.the("outer").states[-1].HasField("data")
    assert recorder.the("kept").result == 5


def test_a_huge_value_is_not_pickled_to_the_end() -> None:
    taken: list[int] = []

    class Chunk:
        def __reduce__(self) -> Any:
            taken.append(1)
            return (bytes, (b"x" * 10_000,))

    with pytest.raises(TooLarge):
        encode_value(tuple(Chunk() for _ in range(10_000)))
    assert len(taken) < 100


def test_what_json_gives_back_exactly() -> None:
    assert is_exact_json([1, {"a": [None, True, "x", 1.5]}])
    loop: list[Any] = []
    loop.append(loop)
    for value in (
        (1,),
        {1: 2},
        float("nan"),
        [float("inf")],
        loop,
        type("Int", (int,), {})(1),
        [[]] * 20_000,
    ):
        assert not is_exact_json(value)


def test_serializers() -> None:
    for serializer in (JSONSerializer(), PickleSerializer()):
        assert isinstance(serializer, Serializer)
        assert serializer.loads(serializer.dumps({"a": [1]})) == {"a": [1]}
        with pytest.raises(SerializationError):
            serializer.dumps(threading.Lock())
        with pytest.raises(SerializationError):
            serializer.loads(b"\xff nonsense")


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (Payload(encoding="msgpack", inline=b"x"), "'msgpack'"),
        (Payload(encoding="json", blob=BlobRef(uri="ftp://a/b")), "ftp://a/b"),
        (Payload(encoding="pickle", inline=b"x", metadata={"python": "2.7"}), r"Python 2\.7"),
    ],
)
def test_a_value_that_cannot_be_read(payload: Payload, text: str) -> None:
    stored = StoredResult(payload)
    # Listing states must not need the value.
    assert payload.encoding in repr(Completed(data=stored))
    with pytest.raises(SerializationError, match=text):
        Completed(data=stored).result(_sync=True)


# There and back.


def back(recorder: MemoryRecorder, name: str = "it") -> State[Any]:
    run = recorder.the(name)
    return state_from_proto(run.states[-1], flow_run_id=run.run.id)


def returned(recorder: MemoryRecorder, body: Any) -> State[Any]:
    flow(body, name="it")(return_state=True)
    return back(recorder)


@pytest.mark.parametrize(
    "state",
    [
        Completed(name="Skipped", message="nothing new", data=3),
        Failed(name="Odd", message="why"),
        Cancelled(message="why"),
        Crashed(),
    ],
)
def test_type_name_and_message_survive(state: State[Any], recorder: MemoryRecorder) -> None:
    again = returned(recorder, lambda: state)
    assert (again.type, again.name, again.message) == (state.type, state.name, state.message)


def test_a_stored_none_is_not_the_same_as_nothing_stored(recorder: MemoryRecorder) -> None:
    assert returned(recorder, lambda: None).result(_sync=True) is None
    recorder.entries.clear()
    with pytest.raises(MissingResult):
        returned(recorder, lambda: BIG).result(_sync=True)


def raised(recorder: MemoryRecorder, error: BaseException) -> State[Any]:
    def body() -> None:
        raise error

    return returned(recorder, body)


def test_an_error_that_pickles_is_itself_again(recorder: MemoryRecorder) -> None:
    state = raised(recorder, KeyError("k"))
    with pytest.raises(KeyError, match="k"):
        state.result(_sync=True)


@pytest.mark.parametrize(
    ("error", "name"),
    [(TwoArguments(5, "why"), "TwoArguments"), (Unpicklable("why"), "Unpicklable")],
)
def test_an_error_that_does_not_travel(error: Exception, name: str, recorder: MemoryRecorder) -> None:
    with pytest.raises(RecordedError) as caught:
        raised(recorder, error).result(_sync=True)
    assert caught.value.type_name == f"{__name__}.{name}"
    assert "why" in str(caught.value) and name in str(caught.value)
    assert "in body" in caught.value.traceback_text


def test_an_error_that_has_no_text(recorder: MemoryRecorder) -> None:
    assert raised(recorder, Silent()).message is not None
    assert recorder.the("it").states[-1].failed.error.type.endswith("Silent")


def test_the_chain_of_causes_is_recorded(recorder: MemoryRecorder) -> None:
    def body() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    returned(recorder, body)
    described = recorder.the("it").states[-1].failed.error
    assert (described.type, described.message) == ("builtins.ValueError", "second")
    assert (described.cause.type, described.cause.message) == ("builtins.KeyError", "'first'")
    assert described.traceback.rstrip().endswith("ValueError: second")


def test_long_texts_are_cut(recorder: MemoryRecorder) -> None:
    state = raised(recorder, ValueError("é" * 50_000))
    final = recorder.the("it").states[-1]
    assert len(final.message.encode()) <= 8192
    assert state.message is not None and state.message.endswith("...")


@pytest.mark.parametrize(("state", "error"), [(Failed(message="why"), FailedRun), (Crashed(), CrashedRun)])
def test_a_bad_state_without_an_error(
    state: State[Any], error: type[Exception], recorder: MemoryRecorder
) -> None:
    with pytest.raises(error):
        returned(recorder, lambda: state).result(_sync=True)


@pytest.mark.parametrize(
    ("value", "is_untrackable"),
    [(None, True), (True, True), (5, True), ("ok", True), (1000, False), ("two words", False), ([], False)],
    ids=repr,
)
def test_results_that_cannot_be_followed_say_so(
    value: Any, is_untrackable: bool, recorder: MemoryRecorder
) -> None:
    @task(name="it")
    def it() -> Any:
        return value

    state = flow(lambda: it(return_state=True).state_details)()
    assert state.untrackable_result is is_untrackable
    recorded = recorder.the("it").states[-1]
    assert recorded.completed.untrackable_result is is_untrackable
    assert state_from_proto(recorded).state_details.untrackable_result is is_untrackable
