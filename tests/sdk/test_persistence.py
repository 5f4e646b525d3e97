"""Which results are kept in storage, where, under which key, and how they come back."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace import flow, task
from headrace.context import FlowRunContext
from headrace.core.errors import ConfigurationError
from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.exceptions import MissingResult, SerializationError
from headrace.execution.encoding import state_from_proto
from headrace.filesystems import LocalFileSystem, MemoryFileSystem
from headrace.results import get_result_store, should_persist_result
from headrace.serializers import (
    CompressedJSONSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    PickleSerializer,
    Serializer,
)
from headrace.settings import temporary_settings
from headrace.states import Completed, Failed, State
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

BIG = "x" * (INLINE_PAYLOAD_BYTES + 1)


@pytest.fixture
def place(tmp_path: Path, recorder: MemoryRecorder) -> Path:
    """A folder for results, that nothing is in yet."""
    return tmp_path / "kept"


def objects_in(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def back(recorder: MemoryRecorder, name: str = "it") -> State[Any]:
    """The last state of the only run of that name, as another process gets it."""
    return state_from_proto(recorder.the(name).states[-1])


WORDS = [True, None, False]
TABLE = [
    (own, around, setting, own if own is not None else around if around is not None else setting)
    for own, around, setting in itertools.product(WORDS, WORDS, WORDS)
]


@pytest.mark.parametrize(("own", "around", "setting", "kept"), TABLE)
def test_the_nearest_word_holds(
    own: bool | None, around: bool | None, setting: bool | None, kept: bool | None, place: Path
) -> None:
    step = task(lambda: 5, name="step", persist_result=own)
    settings = {"results_local_storage_path": place}
    if setting is not None:
        settings["results_persist_by_default"] = setting
    with temporary_settings(settings):
        flow(lambda: step() and None, name="outer", persist_result=around)()
    values = [path.read_bytes().partition(b"\n")[2] for path in objects_in(place)]
    assert (PickleSerializer().dumps(5) in values) is bool(kept)


@pytest.mark.parametrize("default", [True, False])
def test_the_setting_for_tasks_stands_before_the_flow(default: bool, place: Path) -> None:
    step = task(lambda: should_persist_result(), name="step")
    settings = {"results_local_storage_path": place, "tasks_default_persist_result": default}
    with temporary_settings(settings):
        assert flow(step, name="outer", persist_result=not default)() is default
        assert flow(step.with_options(persist_result=not default), name="own")() is not default


def test_a_subflow_that_keeps_nothing_does_so_for_its_tasks(place: Path, recorder: MemoryRecorder) -> None:
    step = task(lambda: 5, name="step")
    inner = flow(lambda: step(), name="inner", persist_result=False)
    flow(lambda: inner() and None, name="outer", result_storage=place)()
    assert len(objects_in(place)) == 1
    assert not recorder.the("step").states[-1].HasField("data")


@pytest.mark.parametrize("option", ["result_storage", "result_serializer", "result_storage_key"])
def test_options_about_results_mean_that_they_are_kept(option: str, place: Path) -> None:
    value = {"result_storage": place, "result_serializer": "json", "result_storage_key": "k"}[option]
    step = task(lambda: 1, **{option: value})
    assert step.persist_result is True
    assert task(lambda: 1, persist_result=False, **{option: value}).persist_result is False
    assert step.with_options(**{option: None}).persist_result is None
    assert getattr(step.with_options(name="other"), option) == value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("value", [None, 5, BIG, b"x" * 3_000_000, lambda: 7, [None, {"a": (1,)}]])
def test_a_value_comes_back_from_storage(
    kind: str, decorate: Any, value: Any, place: Path, recorder: MemoryRecorder
) -> None:
    assert call(decorate(of_kind(kind, lambda: value), name="it", result_storage=place)) is value
    data = recorder.the("it").states[-1].data
    is_small = data.WhichOneof("body") == "inline"
    assert is_small is (not isinstance(value, (str, bytes)))
    (path,) = objects_in(place)
    assert (data.metadata["uri"] if is_small else data.blob.uri) == f"file://{path}"
    loaded = back(recorder).result(_sync=True)
    assert loaded() == 7 if callable(value) else loaded == value


def test_what_is_kept_is_there_before_the_run_is_completed(
    place: Path, recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    post = recorder.post

    def watched(*entries: Any) -> int:
        for entry in entries:
            if entry.WhichOneof("kind") == "state" and entry.state.state.HasField("data"):
                seen.append(state_from_proto(entry.state.state).result(_sync=True))
        return post(*entries)

    monkeypatch.setattr(recorder, "post", watched)
    flow(task(lambda: BIG, name="step"), name="it", result_storage=place)()
    assert seen == [BIG, BIG]


async def test_a_result_is_fetched_without_blocking_the_loop(place: Path, recorder: MemoryRecorder) -> None:
    async def body() -> str:
        return BIG

    await flow(body, name="it", result_storage=place)()
    state = back(recorder)
    assert await state.result() == BIG
    assert await state.aresult() == BIG


def test_a_result_that_is_gone_is_missing(place: Path, recorder: MemoryRecorder) -> None:
    flow(lambda: BIG, name="it", result_storage=place)()
    state = back(recorder)
    (path,) = objects_in(place)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SerializationError, match="cut off"):
        state.result(_sync=True)
    path.write_bytes(b"something else")
    with pytest.raises(SerializationError, match="not a result"):
        state.result(_sync=True)
    path.unlink()
    with pytest.raises(MissingResult, match=str(path)):
        state.result(_sync=True)
    assert "bytes at" in repr(state)


def test_the_exception_of_a_failed_run_is_kept(place: Path, recorder: MemoryRecorder) -> None:
    def body() -> None:
        raise ValueError(BIG)

    with pytest.raises(ValueError, match="x"):
        task(body, name="it", result_storage=place)()
    assert recorder.the("it").states[-1].data.WhichOneof("body") == "blob"
    with pytest.raises(ValueError, match=BIG):
        back(recorder).result(_sync=True)
    (path,) = objects_in(place)
    path.unlink()
    # What the record itself says takes its place.
    with pytest.raises(Exception, match="ValueError: x"):
        back(recorder).result(_sync=True)


def test_states_made_by_hand_keep_their_data(place: Path, recorder: MemoryRecorder) -> None:
    task(lambda: Completed(name="Skipped", data=BIG), name="it", result_storage=place)()
    state = back(recorder)
    assert (state.name, state.result(_sync=True)) == ("Skipped", BIG)
    task(lambda: Failed(data=BIG), name="bad", result_storage=place)()
    with pytest.raises(Exception, match=BIG):
        back(recorder, "bad").result(_sync=True)


class Unreadable:
    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise RuntimeError("does not come back")


def test_a_value_that_does_not_come_back(place: Path, recorder: MemoryRecorder) -> None:
    it = task(lambda: Unreadable(), name="it", result_storage=place)
    assert isinstance(it(), Unreadable)
    with pytest.raises(SerializationError, match="does not come back"):
        back(recorder).result(_sync=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_cannot_be_kept_stays_usable(
    kind: str, place: Path, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()
    assert call(task(of_kind(kind, lambda: lock), name="it", result_storage=place)) is lock
    assert recorder.the("it").names[-1] == "Completed"
    assert "is not kept in storage: lock cannot be pickled" in caplog.text
    assert not place.exists()


def test_a_storage_that_refuses_is_no_failure(
    tmp_path: Path, recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert task(lambda: 5, name="it", result_storage=tmp_path / "file")() == 5
    assert "is not kept in storage" in caplog.text
    # Small enough for the record itself.
    assert back(recorder).result(_sync=True) == 5


# Places.


def test_storage_is_inherited(place: Path, tmp_path: Path) -> None:
    def urls() -> Any:
        store = get_result_store()
        return store.result_storage.url, store.serializer.type

    step = task(urls, name="step")
    here = f"file://{place}"

    @flow(result_storage=place, result_serializer="json")
    def outer() -> list[Any]:
        inner = flow(lambda: step(), name="inner")
        return [
            urls(),
            step(),
            inner(),
            step.with_options(result_storage="memory", result_serializer="pickle")(),
            inner.with_options(result_storage=tmp_path / "other")(),
        ]

    assert outer() == [
        (here, "json"),
        (here, "json"),
        (here, "json"),
        ("memory://results", "pickle"),
        (f"file://{tmp_path}/other", "json"),
    ]


def test_places(tmp_path: Path) -> None:
    with temporary_settings({"home": tmp_path}):
        assert get_result_store().result_storage.url == f"file://{tmp_path}/storage"
    with temporary_settings({"results_local_storage_path": tmp_path / "a b"}):
        assert get_result_store().result_storage.url == f"file://{tmp_path}/a%20b"
    with temporary_settings({"results_default_storage_block": str(tmp_path / "c")}):
        assert get_result_store().result_storage.url == f"file://{tmp_path}/c"
    with temporary_settings({"results_default_serializer": "compressed/json"}):
        assert get_result_store().serializer.type == "compressed/json"


@pytest.mark.parametrize("decorate", [flow, task])
def test_a_place_that_there_is_not_is_refused_at_once(decorate: Any) -> None:
    with pytest.raises(ConfigurationError, match="no saved storage 's3-bucket/mine'"):
        decorate(lambda: 1, result_storage="s3-bucket/mine")
    with pytest.raises(ConfigurationError, match="names no storage"):
        decorate(lambda: 1, result_storage="nowhere")
    with pytest.raises(ConfigurationError, match="no object store"):
        decorate(lambda: 1, result_storage="ftp://host/folder")
    with pytest.raises(TypeError, match="got int"):
        decorate(lambda: 1, result_storage=5)
    with pytest.raises(ValueError, match="no serializer 'msgpack'"):
        decorate(lambda: 1, result_serializer="msgpack")


def test_memory_belongs_to_the_process(recorder: MemoryRecorder) -> None:
    flow(lambda: BIG, name="it", result_storage=MemoryFileSystem("of this test"))()
    state = back(recorder)
    assert state.result(_sync=True) == BIG
    MemoryFileSystem("of this test")._objects.clear()
    with pytest.raises(MissingResult, match="memory://of%20this%20test/"):
        state.result(_sync=True)


@pytest.mark.parametrize("key", ["../out", "/abs", "a//b", "", "a/./b", "nul\0"])
def test_a_key_does_not_lead_out_of_its_place(key: str, tmp_path: Path) -> None:
    for place in (LocalFileSystem(tmp_path / "in"), MemoryFileSystem("keys")):
        with pytest.raises(ValueError, match="is no key"):
            place.write(key, b"x")
    assert not objects_in(tmp_path)


# Keys.


def test_a_key_from_a_template(place: Path) -> None:
    @task(result_storage_key="{flow_run.flow_name}/{task_run.task_name}/{parameters[day]:>5}-{parameters[n]}")
    def load(day: str, n: int = 3) -> int:
        return n

    @flow(name="nightly", result_storage=place)
    def outer() -> None:
        load("mon")
        load("tue", 4)

    outer()
    assert {str(path.relative_to(place)) for path in objects_in(place / "nightly")} == {
        "nightly/load/  mon-3",
        "nightly/load/  tue-4",
    }


@pytest.mark.parametrize("key", ["{parameters[nope]}", "{nonsense}", "{task_run.nonsense}"])
def test_a_template_that_names_what_there_is_not(
    key: str, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert task(lambda: 5, result_storage=place, result_storage_key=key)() == 5
    assert "The cache key could not be made" in caplog.text
    assert len(objects_in(place)) == 1


def test_a_key_that_is_no_string() -> None:
    with pytest.raises(TypeError, match="result_storage_key"):
        task(lambda: 1, result_storage_key=5)  # type: ignore[arg-type]


# Serializers.


@dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...] = ()


class Reversed(Serializer):
    type = "reversed"

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()[::-1]

    def loads(self, blob: bytes) -> Any:
        return json.loads(blob[::-1])


@pytest.mark.parametrize(
    "serializer",
    [
        "pickle",
        "json",
        "compressed/pickle",
        "compressed/json",
        "compressed/json:zlib",
        CompressedSerializer(serializer="pickle", compressionlib="bz2"),
    ],
)
@pytest.mark.parametrize("value", [{"a": [1, None]}, Point(1, (2,)), {Point(3): {b"x"}}])
def test_serializers(serializer: Any, value: Any, place: Path, recorder: MemoryRecorder) -> None:
    task(lambda: value, name="it", result_storage=place, result_serializer=serializer)()
    data = recorder.the("it").states[-1].data
    assert data.encoding == (serializer if isinstance(serializer, str) else "compressed/pickle:bz2")
    assert back(recorder).result(_sync=True) == value


@pytest.mark.parametrize(
    ("serializer", "type"),
    [
        (CompressedJSONSerializer(), "compressed/json"),
        (CompressedPickleSerializer(), "compressed/pickle"),
        (CompressedPickleSerializer(compressionlib="zlib"), "compressed/pickle:zlib"),
    ],
)
def test_compressed_serializers_by_their_classes(
    serializer: Any, type: str, place: Path, recorder: MemoryRecorder
) -> None:
    task(lambda: [1] * 50, name="it", result_storage=place, result_serializer=serializer)()
    assert recorder.the("it").states[-1].data.encoding == type
    assert back(recorder).result(_sync=True) == [1] * 50


def test_a_serializer_of_the_authors_own(place: Path, recorder: MemoryRecorder) -> None:
    task(lambda: {"a": 1}, name="it", result_storage=place, result_serializer=Reversed())()
    assert recorder.the("it").states[-1].data.inline == b'}1 :"a"{'
    assert back(recorder).result(_sync=True) == {"a": 1}
    # A reader that does not know it can still list the state.
    recorder.the("it").states[-1].data.encoding = "unknown"
    state = back(recorder)
    assert "unknown" in repr(state)
    with pytest.raises(SerializationError, match="'unknown'"):
        state.result(_sync=True)


def test_a_library_that_cannot_compress() -> None:
    with pytest.raises(ValueError, match="'json' cannot compress"):
        CompressedSerializer("pickle", "json")


# The store itself.


async def test_a_store_reads_what_it_wrote(tmp_path: Path) -> None:
    for store in (get_result_store(), get_result_store()):
        store.result_storage = LocalFileSystem(tmp_path)
        assert not await store.aexists("k")
        with pytest.raises(FileNotFoundError):
            await store.aread("k")
        await store.awrite({"a": 1}, key="k")
        assert store.exists("k") and store.read("k").result == (await store.aread("k")).result == {"a": 1}
        store.result_storage.delete("k")
        store._remembered.forget(store._uri("k"))


def test_records_may_lie_apart_from_values(tmp_path: Path) -> None:
    from headrace.results import ResultStore

    store = ResultStore(result_storage=tmp_path / "values", metadata_storage=tmp_path / "records")
    store.write(5, key="k")
    assert [path.name for path in objects_in(tmp_path)] == ["k", "k"]
    (tmp_path / "values" / "k").unlink()
    fresh = ResultStore(result_storage=tmp_path / "values", metadata_storage=tmp_path / "records")
    assert fresh.exists("k") and fresh.find("k") is None


def test_a_store_without_locks_says_what_to_do() -> None:
    store = get_result_store()
    assert not store.supports_isolation_level("SERIALIZABLE") and store.supports_isolation_level(
        "READ_COMMITTED"
    )
    with pytest.raises(ConfigurationError, match="MemoryLockManager"):
        store.acquire_lock("k")


def test_writers_at_the_same_time_leave_one_whole_object(tmp_path: Path) -> None:
    place = LocalFileSystem(tmp_path)
    blobs = [bytes([n]) * 200_000 for n in range(8)]
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(place.read("k"))

    place.write("k", blobs[0])
    reader = threading.Thread(target=read)
    writers = [
        threading.Thread(target=lambda blob=blob: [place.write("k", blob) for _ in range(20)])
        for blob in blobs
    ]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen <= set(blobs)
    assert [path.name for path in objects_in(tmp_path)] == ["k"]


def test_another_process_reads_it(place: Path, recorder: MemoryRecorder) -> None:
    flow(lambda: Point(1, (2,)), name="it", result_storage=place, result_serializer="json")()
    flow(lambda: [BIG], name="big", result_storage=place)()
    script = (
        "import sys; from headrace.v1.state_pb2 import State\n"
        "from headrace.execution.encoding import state_from_proto\n"
        "blob = bytes.fromhex(sys.stdin.read())\n"
        "print(len(state_from_proto(State.FromString(blob)).result()[0]))"
    )
    state = recorder.the("big").states[-1].SerializeToString().hex()
    done = subprocess.run(
        [sys.executable, "-c", script], input=state, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(BIG)


def test_many_tasks_at_once_keep_their_own(place: Path, recorder: MemoryRecorder) -> None:
    @task
    async def step(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @flow(result_storage=place)
    async def outer() -> list[int]:
        return await asyncio.gather(*[step(n) for n in range(50)])

    assert asyncio.run(outer()) == list(range(50))
    assert [run.result for run in recorder.all("step")] == list(range(50))
    assert FlowRunContext.get() is None
