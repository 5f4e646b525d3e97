"""What is done to a world: each fault begins, lasts a while, and is over when its coroutine returns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from typing import Final

from headrace_services.storage.failpoints import VARIABLE
from tests.chaos.world import LEASE_SECONDS, World
from tests.support.proxy import Lane, Proxy
from tests.support.servers import ServerProcess

__all__ = ["FAULTS", "HARMLESS"]

Fault = Callable[[World], Awaitable[None]]
_POINTS: Final = [
    f"{name}.{side}" for name in ("claim", "finish", "schedule", "expire") for side in ("before", "after")
]
_DEATH_SECONDS: Final = 20.0


def _some_seconds(world: World) -> float:
    """From a moment to twice a lease."""
    return world.chance.uniform(0.3, 2 * LEASE_SECONDS)


async def _begin_again(world: World, server: ServerProcess) -> None:
    await asyncio.to_thread(server.start)
    world.direct()


async def server_killed(world: World) -> None:
    server = world.chance.choice(world.servers)
    server.kill()
    world.direct()
    await asyncio.sleep(_some_seconds(world))
    await _begin_again(world, server)


async def server_stopped(world: World) -> None:
    server = world.chance.choice(world.servers)
    # The file that names its address goes with it: who asks asks the other one.
    world.servers.remove(server)
    await asyncio.to_thread(server.stop)
    world.direct()
    await asyncio.sleep(_some_seconds(world))
    await asyncio.to_thread(server.start)
    world.servers.append(server)
    world.direct()


async def both_servers_killed(world: World) -> None:
    for server in world.servers:
        server.kill()
    await asyncio.sleep(_some_seconds(world))
    for server in world.servers:
        await asyncio.to_thread(server.start)
    world.direct()


async def server_frozen(world: World) -> None:
    process = world.chance.choice(world.servers).process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(_some_seconds(world))
    finally:
        process.send_signal(signal.SIGCONT)


async def server_dies_around_a_commit(world: World) -> None:
    server = world.chance.choice(world.servers)
    settings = dict(server.settings or {})
    point = f"{world.chance.choice(_POINTS)}=kill@{world.chance.randrange(1, 5)}"
    server.kill()
    server.settings = {**settings, VARIABLE: point}
    await _begin_again(world, server)
    assert server.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(server.process.wait, _DEATH_SECONDS)
    server.kill()
    server.settings = settings
    await _begin_again(world, server)


async def database_stopped(world: World) -> None:
    await asyncio.to_thread(world.postgres.stop_immediately)
    await asyncio.sleep(_some_seconds(world))
    await asyncio.to_thread(world.postgres.start)


async def database_killed(world: World) -> None:
    await asyncio.to_thread(world.postgres.kill)
    await asyncio.sleep(_some_seconds(world))
    await asyncio.to_thread(world.postgres.start)


async def database_frozen(world: World) -> None:
    world.postgres.freeze()
    try:
        await asyncio.sleep(_some_seconds(world))
    finally:
        world.postgres.thaw()


async def database_cut_off_from_a_server(world: World) -> None:
    way = world.chance.choice(world.database_ways)
    target = way.target
    way.strand(to_server=True, to_client=True)
    way.target = "127.0.0.1:1"
    await asyncio.sleep(_some_seconds(world))
    way.send_to(target)


async def answers_of_commits_lost(world: World) -> None:
    way = world.chance.choice(world.database_ways)
    way.to_client = Lane(cut_at=lambda data: b"COMMIT\0" in data and world.chance.random() < 0.15)
    way.reset()
    await asyncio.sleep(_some_seconds(world))
    way.to_client.cut_at = None
    way.to_client = Lane()


def _ways(world: World) -> list[Proxy]:
    return world.chance.sample(world.worker_ways, world.chance.randrange(1, len(world.worker_ways)))


async def streams_reset(world: World) -> None:
    for way in _ways(world):
        way.reset()


async def streams_swallow(world: World) -> None:
    for way in _ways(world):
        lane = world.chance.choice(["to_server", "to_client"])
        way.strand(**{lane: True})
    await asyncio.sleep(_some_seconds(world))


async def workers_cut_off(world: World) -> None:
    ways = _ways(world)
    for way in ways:
        way.swallows = True
    await asyncio.sleep(_some_seconds(world))
    for way in ways:
        way.swallows = False
        way.reset()


async def link_slow(world: World) -> None:
    ways = _ways(world)
    for way in ways:
        way.to_server = Lane(delay_seconds=world.chance.uniform(0.05, 0.5))
        way.to_client = Lane(delay_seconds=world.chance.uniform(0.05, 0.5), bytes_per_second=8000)
        way.reset()
    await asyncio.sleep(_some_seconds(world))
    for way in ways:
        way.to_server, way.to_client = Lane(), Lane()
        way.reset()


async def _signal_worker(world: World, signum: signal.Signals) -> None:
    if world.worker is not None and world.worker.process.poll() is None:
        world.worker.send(signum)


async def worker_killed(world: World) -> None:
    await _signal_worker(world, signal.SIGKILL)


async def worker_told_to_leave(world: World) -> None:
    await _signal_worker(world, signal.SIGTERM)


async def worker_frozen(world: World) -> None:
    await _signal_worker(world, signal.SIGSTOP)
    try:
        await asyncio.sleep(_some_seconds(world))
    finally:
        await _signal_worker(world, signal.SIGCONT)


async def run_process_killed(world: World) -> None:
    for pid in world.run_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


FAULTS: Final[dict[str, Fault]] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        server_killed,
        server_stopped,
        both_servers_killed,
        server_frozen,
        server_dies_around_a_commit,
        database_stopped,
        database_killed,
        database_frozen,
        database_cut_off_from_a_server,
        answers_of_commits_lost,
        streams_reset,
        streams_swallow,
        workers_cut_off,
        link_slow,
        worker_killed,
        worker_told_to_leave,
        worker_frozen,
        run_process_killed,
    )
}
HARMLESS: Final = frozenset(
    name
    for name in FAULTS
    if name.startswith(("server", "both servers", "database", "answers", "streams reset"))
)
"""What workers, and the runs they have, are not to suffer from: nothing is executed again because of it."""
