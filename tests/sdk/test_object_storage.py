"""Results in an object store, over a real S3 API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace import flow, task
from headrace.core.errors import MissingExtraError
from headrace.exceptions import MissingResult
from headrace.execution.encoding import state_from_proto
from headrace.filesystems import RemoteFileSystem, filesystem_of
from headrace.results import ResultStore
from tests.support.kinds import KINDS, call, of_kind
from tests.support.object_store import s3_server
from tests.support.recorders import MemoryRecorder

PLACE = "s3://results/team-a"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server("results") as environment:
        yield environment


@pytest.fixture(autouse=True)
def environment(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables with which every process of the author's finds the store."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_kept_and_found_again(kind: str, recorder: MemoryRecorder) -> None:
    runs: list[int] = []

    def body(n: int) -> bytes:
        runs.append(n)
        return bytes(1_000_000)

    def step(n: int) -> bytes:
        return body(n)

    kept = task(
        of_kind(kind, step),
        name="step",
        result_storage=PLACE,
        result_storage_key=kind[:3] + "/{parameters[n]}",
    )
    for n in (1, 2, 1):
        assert len(call(kept, n)) == 1_000_000
    assert runs == [1, 2]
    fresh, _, hit = [run.states[-1] for run in recorder.all("step")]
    assert hit.data.blob.uri == fresh.data.blob.uri == f"{PLACE}/{kind[:3]}/1"
    assert hit.name == "Cached"
    assert state_from_proto(hit).result(_sync=True) == bytes(1_000_000)


def test_another_process_reads_it(recorder: MemoryRecorder) -> None:
    flow(lambda: "x" * 100_000, name="it", result_storage=PLACE)()
    script = (
        "import sys; from headrace.v1.state_pb2 import State\n"
        "from headrace.execution.encoding import state_from_proto\n"
        "print(len(state_from_proto(State.FromString(bytes.fromhex(sys.stdin.read()))).result()))"
    )
    state = recorder.the("it").states[-1].SerializeToString().hex()
    done = subprocess.run(
        [sys.executable, "-c", script], input=state, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 100_000


def test_what_is_gone_is_missing_after_a_few_questions(
    recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.results import payloads

    flow(lambda: "x" * 100_000, name="it", result_storage=PLACE)()
    state = recorder.the("it").states[-1]
    filesystem = filesystem_of(PLACE)
    key = state.data.blob.uri.removeprefix(f"{PLACE}/")
    content = filesystem.read(key)
    filesystem.delete(key)
    filesystem.delete(key)
    assert not filesystem.exists(key)
    slept: list[float] = []
    monkeypatch.setattr(payloads.time, "sleep", slept.append)
    with pytest.raises(MissingResult, match=key):
        state_from_proto(state).result(retry_result_failure=False, _sync=True)
    assert slept == []
    with pytest.raises(MissingResult, match=key):
        state_from_proto(state).result(_sync=True)
    assert slept == [0.1, 0.2, 0.4]
    # A store may show an object a little later.
    monkeypatch.setattr(payloads.time, "sleep", lambda _: filesystem.write(key, content))
    assert state_from_proto(state).result(_sync=True) == "x" * 100_000


def test_writers_at_the_same_time_leave_one_whole_object() -> None:
    store = ResultStore(result_storage=PLACE, cache_result_in_memory=False)
    values = [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: store.write(value, key="contended"), values))
    assert store.read("contended").result in values


def test_a_store_that_refuses_is_no_failure(recorder: MemoryRecorder, caplog: Any) -> None:
    assert task(lambda: 5, name="it", result_storage="s3://no-such-bucket/x")() == 5
    assert "is not kept in storage: Cannot write s3://no-such-bucket/x/" in caplog.text
    assert recorder.the("it").result == 5
    with pytest.raises(OSError, match="Cannot read"):
        RemoteFileSystem("s3://no-such-bucket/x", {"endpoint": "http://127.0.0.1:1"}).read("k")


def test_settings_of_the_store(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    filesystem = RemoteFileSystem(PLACE, {"endpoint": server["AWS_ENDPOINT_URL"]})
    filesystem.write("with/settings", b"x")
    assert filesystem.read("with/settings") == b"x" and filesystem.exists("with/settings")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"headrace\[storage\]"):
        RemoteFileSystem(PLACE).read("k")
