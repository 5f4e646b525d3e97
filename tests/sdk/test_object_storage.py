"""Results in object stores, over the APIs of S3, of Azure's blob storage and of Google Cloud Storage.

Those of S3 and Azure are other people's servers, Google's is ours: see `tests.support.google_storage`.
"""

from __future__ import annotations

import json
import os
import pathlib
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
from tests.support.google_storage import google_server
from tests.support.kinds import KINDS, call, of_kind
from tests.support.object_store import azure_server, s3_server
from tests.support.recorders import MemoryRecorder

SCHEMES = ["s3", "az", "gs"]


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """Which of them."""
    scheme: str = request.param
    return scheme


@pytest.fixture
def place(scheme: str) -> str:
    """Where results go."""
    return f"{scheme}://results/team-a"


@pytest.fixture(scope="module")
def server(scheme: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("server")
    making = {
        "s3": lambda: s3_server("results"),
        "az": lambda: azure_server("results", folder),
        "gs": lambda: google_server("results", folder),
    }
    with making[scheme]() as environment:
        yield environment


@pytest.fixture(autouse=True)
def environment(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables with which every process of the author's finds the store."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_kept_and_found_again(kind: str, place: str, recorder: MemoryRecorder) -> None:
    runs: list[int] = []

    def body(n: int) -> bytes:
        runs.append(n)
        return bytes(1_000_000)

    def step(n: int) -> bytes:
        return body(n)

    kept = task(
        of_kind(kind, step),
        name="step",
        result_storage=place,
        result_storage_key=kind[:3] + "/{parameters[n]}",
    )
    for n in (1, 2, 1):
        assert len(call(kept, n)) == 1_000_000
    assert runs == [1, 2]
    fresh, _, hit = [run.states[-1] for run in recorder.all("step")]
    assert hit.data.blob.uri == fresh.data.blob.uri == f"{place}/{kind[:3]}/1"
    assert hit.name == "Cached"
    assert state_from_proto(hit).result(_sync=True) == bytes(1_000_000)


def test_another_process_reads_it(place: str, recorder: MemoryRecorder) -> None:
    flow(lambda: "x" * 100_000, name="it", result_storage=place)()
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
    place: str, recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.results import payloads

    flow(lambda: "x" * 100_000, name="it", result_storage=place)()
    state = recorder.the("it").states[-1]
    filesystem = filesystem_of(place)
    key = state.data.blob.uri.removeprefix(f"{place}/")
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


def test_writers_at_the_same_time_leave_one_whole_object(place: str) -> None:
    store = ResultStore(result_storage=place, cache_result_in_memory=False)
    values = [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: store.write(value, key="contended"), values))
    assert store.read("contended").result in values


def test_a_store_that_refuses_is_no_failure(
    scheme: str,
    server: dict[str, str],
    recorder: MemoryRecorder,
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = f"{scheme}://no-such-bucket/x"
    assert task(lambda: 5, name="it", result_storage=elsewhere)() == 5
    assert f"is not kept in storage: Cannot write {elsewhere}/" in caplog.text
    assert recorder.the("it").result == 5
    # Nobody listens there.
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT", raising=False)
    settings = settings_for(scheme, server, "http://127.0.0.1:1")
    with pytest.raises(OSError, match="Cannot read"):
        RemoteFileSystem(elsewhere, settings).read("k")


def settings_for(scheme: str, server: dict[str, str], endpoint: str | None = None) -> dict[str, str]:
    """What says where a store is, for programs that do not leave it to the environment."""
    if scheme == "gs":
        account = json.loads(pathlib.Path(server["GOOGLE_SERVICE_ACCOUNT"]).read_text())
        return {"service_account_key": json.dumps(account | ({"gcs_base_url": endpoint} if endpoint else {}))}
    variable = "AWS_ENDPOINT_URL" if scheme == "s3" else "AZURE_STORAGE_ENDPOINT"
    return {"endpoint": endpoint or server[variable]}


def test_settings_of_the_store(
    scheme: str, place: str, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT", "GOOGLE_SERVICE_ACCOUNT"):
        monkeypatch.delenv(variable, raising=False)
    filesystem = RemoteFileSystem(place, settings_for(scheme, server))
    filesystem.write("with/settings", b"x")
    assert filesystem.read("with/settings") == b"x" and filesystem.exists("with/settings")


def test_keys_are_listed_page_by_page(place: str) -> None:
    filesystem = RemoteFileSystem(f"{place}/listed")
    keys = ["a", "b/c d", "b/ü&<", *(f"n/{number:04}" for number in range(60))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: filesystem.write(key, b""), keys))
    assert sorted(filesystem.list_keys()) == sorted(keys)


def test_a_stranger_is_refused(
    scheme: str, place: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme != "gs":
        pytest.skip("moto takes everybody's word, and Azurite has but one account")
    with google_server("other", tmp_path) as other:
        key = json.loads(pathlib.Path(other["GOOGLE_SERVICE_ACCOUNT"]).read_text())["private_key"]
    mine = json.loads(pathlib.Path(os.environ["GOOGLE_SERVICE_ACCOUNT"]).read_text())
    settings = {"service_account_key": json.dumps(mine | {"private_key": key})}
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT")
    with pytest.raises(OSError, match="AuthenticationRequired"):
        RemoteFileSystem(place, settings).write("k", b"x")


def test_without_the_library(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"headrace\[storage\]"):
        RemoteFileSystem(place).read("k")
