"""`CacheService` over a real socket, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from headrace.client.api import HeadraceClient
from headrace.core.errors import FieldsInvalid, LockLost, PageTokenInvalid
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter
from headrace.v1.cache_service_pb2 import ListCacheEntriesRequest
from tests.rpc.servers import Client

pytestmark = pytest.mark.usefixtures("one_event_loop")


@pytest.fixture
async def cache(client: Client) -> Any:
    """A client of a server on a fresh database."""
    with temporary_settings({"api_url": client.server.address}):
        async with HeadraceClient() as opened:
            yield opened


def entry(key: str, **fields: Any) -> CacheEntry:
    given = CacheEntry(key=key, producer_run_id=new_id(), **fields)
    given.result.encoding = "json"
    given.result.blob.uri = f"file:///results/{key}"
    given.result.blob.size_bytes = 3
    given.result.blob.sha256 = bytes(32)
    return given


async def keys(cache: HeadraceClient, **filter: Any) -> list[str]:
    return [found.key async for found in cache.iter_cache_entries(CacheFilter(**filter))]


async def test_an_entry_is_found_until_another_takes_its_place(cache: HeadraceClient) -> None:
    assert await cache.look_up_cache_entry("k") is None
    given = entry("k", task_name="price", flow_name="shop", tags=["b", "a"])
    first = await cache.put_cache_entry(given)
    found = await cache.look_up_cache_entry("k")
    assert found is not None and found == first
    assert (found.task_name, found.flow_name, list(found.tags)) == ("price", "shop", ["a", "b"])
    assert found.result == given.result and found.producer_run_id == given.producer_run_id
    assert found.HasField("create_time") and not found.HasField("expire_time")
    second = await cache.put_cache_entry(entry("k"))
    assert second.id != first.id
    assert await cache.look_up_cache_entry("k") == second


async def test_an_entry_expires_by_the_clock_of_the_server(cache: HeadraceClient) -> None:
    written = await cache.put_cache_entry(entry("short"), lifetime=timedelta(milliseconds=300))
    assert written.expire_time.ToMicroseconds() - written.create_time.ToMicroseconds() == 300_000
    await cache.put_cache_entry(entry("long"), lifetime=timedelta(hours=1))
    while await cache.look_up_cache_entry("short") is not None:
        pass
    assert await keys(cache) == ["long"]


async def test_entries_are_found_and_invalidated_by_what_they_say(cache: HeadraceClient) -> None:
    written = [
        await cache.put_cache_entry(entry("flow/shop/1", task_name="price", flow_name="shop", tags=["eu"])),
        await cache.put_cache_entry(
            entry("flow/shop/2", task_name="price", flow_name="shop", tags=["eu", "b2b"])
        ),
        await cache.put_cache_entry(entry("global/3", task_name="stock", tags=["EU"])),
    ]
    one, two, three = (found.key for found in written)
    assert await keys(cache) == [one, two, three]
    assert await keys(cache, task_names=["price"]) == [one, two]
    assert await keys(cache, task_names=["price", "stock"], tags=["EU"]) == [three]
    assert await keys(cache, tags=["eu", "b2b"]) == [two]
    assert await keys(cache, flow_names=["shop"], keys=[two, three]) == [two]
    assert await keys(cache, producer_run_ids=[written[2].producer_run_id.upper()]) == [three]
    # An entry that has been replaced is left alone.
    assert await cache.invalidate_cache_entries(CacheFilter(keys=[one], entry_ids=[new_id()])) == 0
    assert await cache.invalidate_cache_entries(CacheFilter(keys=[one], entry_ids=[written[0].id])) == 1
    assert await cache.invalidate_cache_entries(CacheFilter(tags=["eu"])) == 1
    assert await keys(cache) == [three]
    assert await cache.invalidate_cache_entries(all=True) == 1
    assert await keys(cache) == []


async def test_pages_by_key(cache: HeadraceClient) -> None:
    for number in range(5):
        await cache.put_cache_entry(entry(f"k{number}"))
    request = ListCacheEntriesRequest(page_size=2)
    first = await cache.list_cache_entries(request)
    assert [found.key for found in first.entries] == ["k0", "k1"]
    assert [found.key async for found in cache.iter_cache_entries(page_size=2)] == [f"k{n}" for n in range(5)]
    request.page_token, request.filter.keys[:] = first.next_page_token, ["k1"]
    with pytest.raises(PageTokenInvalid):
        await cache.list_cache_entries(request)


async def test_what_is_written_without_the_lock_any_more_is_refused(cache: HeadraceClient) -> None:
    mine = (await cache.acquire_lock("k", "a", lease_seconds=30)).lock.fence
    await cache.put_cache_entry(entry("k"), fence=mine)
    await cache.release_lock("k", "a")
    theirs = (await cache.acquire_lock("k", "b", lease_seconds=30)).lock.fence
    assert theirs > mine
    with pytest.raises(LockLost, match="'k' has been given to somebody else"):
        await cache.put_cache_entry(entry("k"), fence=mine)
    kept = await cache.put_cache_entry(entry("k"), fence=theirs)
    await cache.release_lock("k", "b")
    with pytest.raises(LockLost):
        await cache.put_cache_entry(entry("k"), fence=mine)
    assert await cache.look_up_cache_entry("k") == kept


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_makes_no_sense_is_refused(cache: HeadraceClient) -> None:
    inline = entry("k")
    inline.result.inline = b"3"
    for call, field in (
        (cache.put_cache_entry(inline), "entry.result"),
        (cache.put_cache_entry(entry("")), "entry.key"),
        (cache.put_cache_entry(entry("k" * 2001)), "entry.key"),
        (cache.put_cache_entry(entry("k"), lifetime=timedelta(0)), "lifetime"),
        (cache.look_up_cache_entry(""), "key"),
        (cache.invalidate_cache_entries(), "filter"),
        (cache.invalidate_cache_entries(CacheFilter(keys=["k"]), all=True), "all"),
        (cache.invalidate_cache_entries(CacheFilter(entry_ids=["x"])), "filter.entry_ids[0]"),
    ):
        with pytest.raises(FieldsInvalid) as caught:
            await call
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_what_has_expired_goes_when_others_are_written(cache: HeadraceClient, client: Client) -> None:
    backend = client.server.database._backend  # pyright: ignore[reportPrivateUsage]
    await cache.put_cache_entry(entry("old"), lifetime=timedelta(microseconds=1))
    kept = ["k0", "k1", "k2"]
    for number in range(200):
        await cache.put_cache_entry(entry(f"k{number % 3}"))
        if [row[0] for row in await backend.fetch("SELECT name FROM cache_entries ORDER BY name")] == kept:
            return
    raise AssertionError("the old entry is still there")
