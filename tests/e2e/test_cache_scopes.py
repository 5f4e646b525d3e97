"""Results shared through the index in the server, between flows and between processes."""

from __future__ import annotations

import pathlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import flow, get_client, task
from headrace.cache_policies import INPUTS, NO_CACHE, CacheKeyFnPolicy, CacheScope
from headrace.cli.run_views import run_details
from headrace.client.background import run_in_background
from headrace.context import TaskRunContext
from headrace.execution.server import recorded_everything
from headrace.locking.server import ServerLockManager
from headrace.results import ResultStore
from headrace.settings import process_settings, temporary_settings
from headrace.states import State
from headrace.transactions import transaction
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter
from headrace.v1.run_pb2 import RUN_KIND_FLOW
from tests.support.scripts import Script
from tests.support.servers import ServerProcess
from tests.support.worker_processes import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that this process and its children use."""
    from headrace.recorder.process import release_home

    with (
        ServerProcess(tmp_path_factory.mktemp("server")) as process,
        process_settings({"home": str(process.home), "api_url": process.address}),
    ):
        yield process
        release_home(process.home, 2.0)


@pytest.fixture
def place(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where results are kept; the index has nothing."""
    with get_client(sync_client=True) as client:
        client.invalidate_cache_entries(all=True)
    with temporary_settings({"results_local_storage_path": tmp_path / "kept"}):
        yield tmp_path / "kept"


def entries(**filter: Any) -> list[CacheEntry]:
    with get_client(sync_client=True) as client:
        return list(client.iter_cache_entries(CacheFilter(**filter)))


class Priced:
    """A task that counts its runs, and tells them apart in what it returns."""

    def __init__(self, scope: Any, **options: Any) -> None:
        self.runs = 0

        def price(sku: str) -> str:
            self.runs += 1
            return f"{sku}{self.runs}"

        policy = INPUTS.configure(cache_scope=scope, **options.pop("configured", {}))
        self.task = task(price, name="price", cache_policy=policy, **options)

    def __call__(self, sku: str = "a") -> State[str]:
        state: State[str] = self.task(sku, return_state=True)
        return state


def test_flows_share_what_one_of_them_has_computed(place: pathlib.Path) -> None:
    price = Priced("global", tags=["eu"], cache_expiration=timedelta(hours=1))
    fresh = flow(lambda: price(), name="first")(return_state=True)
    again = flow(lambda: price(), name="second")(return_state=True)
    assert price.runs == 1
    assert (fresh.result().name, again.result().name) == ("Completed", "Cached")
    hit, made = again.result(), fresh.result()
    assert hit.result() == made.result() == "a1"
    (entry,) = entries()
    assert entry.key.startswith("global/") and hit.state_details.cache_key == entry.key
    assert entry.producer_run_id == hit.state_details.producer_run_id == made.state_details.task_run_id
    assert (entry.task_name, entry.flow_name, list(entry.tags)) == ("price", "first", ["eu"])
    assert entry.result.blob.uri.startswith(f"file://{place}/global/")
    assert entry.expire_time.ToDatetime() - entry.create_time.ToDatetime() == timedelta(hours=1)
    assert made.state_details.producer_run_id is None


def test_the_server_has_on_record_who_produced_a_hit(place: pathlib.Path) -> None:
    price = Priced("global")
    first, hit = price(), price()
    run_in_background(recorded_everything())
    with get_client(sync_client=True) as client:
        run = client.get_run(hit.state_details.task_run_id or "")
    shown = dict(run_details(run, datetime.now(UTC)))
    assert shown["Computed by"] == first.state_details.task_run_id
    assert shown["Cache key"] == hit.state_details.cache_key
    assert run.state.completed.from_cache
    assert run.state.completed.producer_run_id == first.state_details.task_run_id


@pytest.mark.parametrize(
    ("scope", "shares_with_other_run", "shares_with_other_flow"),
    [("run", False, False), ("flow", True, False), ("project", True, True), ("global", True, True)],
)
def test_who_shares(
    scope: str,
    shares_with_other_run: bool,
    shares_with_other_flow: bool,
    place: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "headrace.yaml").write_text("name: shop\n")
    (tmp_path / "within").mkdir()
    monkeypatch.chdir(tmp_path / "within")
    price = Priced(scope)
    names = flow(lambda: [price().name, price().name], name="one")
    assert names() == ["Completed", "Cached"]
    again = names()
    assert (again[0] == "Cached") is shares_with_other_run
    other = flow(lambda: price().name, name="two")()
    assert (other == "Cached") is shares_with_other_flow
    prefixes = {entry.key.rpartition("/")[0] for entry in entries()}
    expected = {"flow": {"flow/one", "flow/two"}, "project": {"project/shop"}, "global": {"global"}}
    assert prefixes == expected.get(scope, prefixes)


def test_a_task_run_on_its_own_is_in_no_flow(place: pathlib.Path) -> None:
    for scope in ("run", "flow"):
        price = Priced(scope)
        assert [price().name, price().name] == ["Completed", "Completed"]


def test_a_project_scope_without_a_project_caches_nothing(
    place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    price = Priced("project")
    assert [price().name, price().name] == ["Completed", "Completed"]
    assert "there is no headrace.yaml in" in caplog.text
    assert entries() == []


def test_a_running_flow_sees_that_a_result_is_invalidated(place: pathlib.Path) -> None:
    price = Priced("flow")

    @flow(name="it")
    def it() -> list[str]:
        names = [price().name, price().name]
        with get_client(sync_client=True) as client:
            assert client.invalidate_cache_entries(CacheFilter(task_names=["price"])) == 1
        return [*names, price().name, price().name]

    assert it() == ["Completed", "Cached", "Completed", "Cached"]


def test_a_value_that_is_gone_behind_the_index_is_a_miss(place: pathlib.Path, caplog: Any) -> None:
    price = Priced("global")
    price()
    for file in place.rglob("*"):
        if file.is_file():
            file.unlink()
    # Results are remembered in memory as well: not in the memory of another flow run.
    assert flow(lambda: price().name, name="it")() == "Completed"
    assert flow(lambda: price().name, name="it")() == "Cached"
    assert len(entries()) == 1


def test_a_value_that_was_cut_off_is_a_miss(place: pathlib.Path) -> None:
    price = Priced("global")
    price()
    (file,) = (file for file in place.rglob("*") if file.is_file())
    file.write_bytes(file.read_bytes()[:-1])
    assert flow(lambda: price().name, name="it")() == "Completed"


def test_what_has_expired_or_is_to_be_refreshed_is_computed_anew(place: pathlib.Path) -> None:
    price = Priced("global", cache_expiration=timedelta(milliseconds=200))
    price()
    while entries():
        pass
    assert price().result() == "a2"
    fresh = Priced("global", refresh_cache=True)
    assert [fresh().result(), fresh().result()] == ["a1", "a2"]


def test_only_success_is_shared(place: pathlib.Path) -> None:
    def same(context: TaskRunContext, arguments: dict[str, Any]) -> str:
        return "k"

    policy = CacheKeyFnPolicy(cache_key_fn=same).configure(cache_scope=CacheScope.GLOBAL)

    @task(cache_policy=policy)
    def bad() -> None:
        raise ValueError("no")

    bad(return_state=True)
    assert entries() == []


def test_of_many_runs_with_one_key_one_computes(place: pathlib.Path) -> None:
    price = Priced("global", configured={"isolation_level": "SERIALIZABLE"})
    with ThreadPoolExecutor(6) as pool:
        states = list(pool.map(price, ["a"] * 6))
    assert price.runs == 1
    assert sorted(state.name for state in states) == ["Cached"] * 5 + ["Completed"]
    with get_client(sync_client=True) as client:
        assert list(client.iter_locks("global/")) == []


def test_transactions_with_one_key_come_one_after_the_other(place: pathlib.Path) -> None:
    store = ResultStore(lock_manager=ServerLockManager())
    trace: list[str] = []

    def load(_: int) -> Any:
        with transaction(key="rows", store=store, isolation_level="SERIALIZABLE") as txn:
            if not txn.is_committed():
                trace.append("began")
                txn.stage([1, 2])
                trace.append("ends")
            return None if (record := txn.read()) is None else record.result

    with ThreadPoolExecutor(3) as pool:
        read = list(pool.map(load, range(3)))
    assert trace == ["began", "ends"]
    assert sorted(map(str, read)) == ["None", "[1, 2]", "[1, 2]"]


async def test_coroutines_share_too(place: pathlib.Path) -> None:
    runs = 0

    @task(cache_policy=INPUTS.configure(cache_scope="global", isolation_level="SERIALIZABLE"))
    async def price(sku: str) -> int:
        nonlocal runs
        runs += 1
        return runs

    assert [await price("a"), await price("a"), await price("b")] == [1, 1, 2]


def test_without_a_server_the_task_runs(place: pathlib.Path, caplog: Any) -> None:
    price = Priced("global")
    with temporary_settings({"api_url": "off"}):
        assert [price().name, price().name] == ["Completed", "Completed"]
    assert "The server cannot be asked for a cached result" in caplog.text
    assert "is kept, but not shared" in caplog.text


def test_a_scope_that_is_none_and_one_with_a_storage_for_keys() -> None:
    with pytest.raises(ValueError, match="'nobody' is not a valid CacheScope"):
        INPUTS.configure(cache_scope="nobody")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'cache_scope' must be one of run, flow, project, global"):
        task(cache_policy=CacheKeyFnPolicy(cache_scope="nobody"))(print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave 'key_storage' out"):
        task(cache_policy=INPUTS.configure(cache_scope="flow", key_storage="memory"))(print)
    with pytest.raises(ValueError, match="different cache scopes"):
        _ = INPUTS.configure(cache_scope="flow") + INPUTS.configure(cache_scope="run")
    scoped = (INPUTS + NO_CACHE).configure(cache_scope="flow") - "x"
    assert scoped.cache_scope is CacheScope.FLOW
    with pytest.raises(ValueError, match="from 1 to 3600"):
        ServerLockManager(lease_seconds=0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


HOLDER = """
import sys
from headrace import flow, task
from headrace.cache_policies import CacheKeyFnPolicy
from headrace.locking.server import ServerLockManager

policy = CacheKeyFnPolicy(cache_key_fn=lambda *_: "expensive").configure(
    cache_scope="global", isolation_level="SERIALIZABLE", lock_manager=ServerLockManager(lease_seconds=1)
)

@task(cache_policy=policy)
def expensive():
    print("computing", flush=True)
    input()
    return sys.argv[0]

@flow
def it():
    return expensive(return_state=True)

state = it()
print(state.name, flush=True)
"""


def script(server: ServerProcess, path: pathlib.Path) -> Script:
    return Script(path, HOLDER, server.environment)


def test_of_two_processes_one_computes_and_the_other_waits_for_its_result(
    server: ServerProcess, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    one = script(server, tmp_path / "one.py")
    one.reached("computing")
    with get_client(sync_client=True) as client:
        held = client.get_lock("global/expensive")
        two = script(server, tmp_path / "two.py")
        # Its lease has been renewed meanwhile: the other one cannot have it.
        while client.get_lock("global/expensive").expire_time.ToMicroseconds() < (
            held.expire_time.ToMicroseconds() + 600_000
        ):
            pass
    one.go_on()
    assert one.finish().split() == ["Completed"]
    assert two.finish().split() == ["Cached"]


def test_the_lock_of_a_killed_process_passes_on_after_its_lease(
    server: ServerProcess, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    one = script(server, tmp_path / "one.py")
    one.reached("computing")
    two = script(server, tmp_path / "two.py")
    one.kill()
    two.reached("computing")
    two.go_on()
    assert two.finish().split() == ["Completed"]
    (entry,) = entries()
    assert (entry.task_name, entry.flow_name) == ("expensive", "it")


def test_a_server_that_was_away_longer_than_the_lease_gives_the_lock_to_nobody_else(
    tmp_path: pathlib.Path,
) -> None:
    server = ServerProcess(tmp_path / "server", settings={"HEADRACE_SERVER_API_PORT": str(free_port())})
    server.start()
    environment = {**server.environment, "HEADRACE_API_URL": server.address}
    one = Script(tmp_path / "one.py", HOLDER, environment)
    one.reached("computing")
    with temporary_settings({"api_url": server.address}):
        with get_client(sync_client=True) as client:
            held = client.get_lock("global/expensive")
            two = Script(tmp_path / "two.py", HOLDER, environment)
            # It is past its start, and about to ask for the lock.
            until(lambda: len([run for run in client.iter_runs() if run.kind == RUN_KIND_FLOW]) == 2)
        server.kill()
        # Nobody hears of the lease while it runs out.
        until(lambda: time.time() > held.expire_time.ToMicroseconds() / 1e6)
        with server, get_client(sync_client=True) as client:

            def renewed() -> bool:
                lock = client.get_lock("global/expensive")
                assert (lock.holder, lock.fence) == (held.holder, held.fence)
                return lock.expire_time.ToMicroseconds() > held.expire_time.ToMicroseconds()

            until(renewed)
            one.go_on()
            assert one.finish(60).split() == ["Completed"]
            assert two.finish(60).split() == ["Cached"]
