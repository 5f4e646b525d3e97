"""`headrace cache` and `headrace lock` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.cache_pb2 import CacheEntry
from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess

Run = Callable[..., Answer]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def run(server: ServerProcess, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command on the server."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: cli(*words)


def put(client: SyncHeadraceClient, key: str, task: str, *tags: str) -> None:
    entry = CacheEntry(key=key, producer_run_id=new_id(), task_name=task, flow_name="shop", tags=tags)
    entry.result.encoding = "pickle"
    entry.result.blob.uri = f"file:///kept/{key}"
    entry.result.blob.size_bytes = 1234
    entry.result.blob.sha256 = bytes(32)
    client.put_cache_entry(entry)


def test_cached_results_are_listed_and_invalidated(client: SyncHeadraceClient, run: Run) -> None:
    assert "cache_scope" in run("cache", "ls").err
    put(client, "flow/shop/1", "price", "eu")
    put(client, "flow/shop/2", "stock", "eu", "b2b")
    shown = run("cache", "ls")
    assert shown.out.split()[:6] == ["KEY", "TASK", "FLOW", "CREATED", "EXPIRES", "BYTES"]
    assert "flow/shop/1" in shown.out and "1234" in shown.out
    assert run("cache", "ls", "--tag", "b2b", "-q").out == "flow/shop/2\n"
    (found,) = json.loads(run("cache", "ls", "--task", "price", "--flow", "shop", "-o", "json").out)
    assert (found["key"], found["tags"], found["result"]["encoding"]) == ("flow/shop/1", ["eu"], "pickle")

    refused = run("cache", "invalidate", "--task", "price")
    assert refused.code == 2 and "Invalidate cached results of task price? Not without" in refused.err
    answer = run("cache", "invalidate", "--task", "price", "--yes", "-o", "jsonl")
    assert (json.loads(answer.out), answer.err) == (
        {"invalidated_entries": 1},
        "Invalidated 1 cached result.\n",
    )
    for words in ((), ("--all", "--key", "k")):
        assert run("cache", "invalidate", "--yes", *words).code == 2
    assert run("cache", "invalidate", "--all", "-y").err == "Invalidated 1 cached result.\n"


def test_locks_are_listed_and_taken_away(client: SyncHeadraceClient, run: Run) -> None:
    assert run("lock", "ls").err == "No locks.\n"
    client.acquire_lock("global/price", "holder-1", lease_seconds=600, client="here:17")
    shown = run("lock", "ls", "--prefix", "global/")
    assert shown.out.split()[5:8] == ["ENDS", "global/price", "holder-1"] and "here:17" in shown.out
    missing = run("lock", "release", "global/prise", "--yes")
    assert missing.code == 3
    assert "Nobody has the lock 'global/prise'. Did you mean 'global/price'?" in missing.err
    assert run("lock", "release", "global/price").code == 2
    answer = run("lock", "release", "global/price", "--yes", "-o", "json")
    assert json.loads(answer.out)["released"] is True
    assert answer.err == "The lock 'global/price' is free.\n"
    assert client.wait_for_lock("global/price")
