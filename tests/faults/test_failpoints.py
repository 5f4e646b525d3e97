"""A server that dies just before, and just after, the commits that matter; and one whose commits are answered
as if they had failed. Runs are begun once under a fence, each is done, and no slot is left."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from headrace.core.errors import ConfigurationError
from headrace_services.storage.failpoints import VARIABLE, Failpoints, armed
from tests.dispatch.stand import Stand, eventually
from tests.faults.ground import LEASES, Ground
from tests.rpc.servers import serving, settings_for
from tests.support.invariants import fires_are_exact
from tests.support.robots import robots
from tests.support.servers import ServerProcess
from tests.support.workers import WireWorker

POINTS = ["claim.after", "finish.after", "schedule.before", "expire.before"]
"""Each kind of commit, and both sides; `make chaos` goes through all pairs."""
RUNS_PER_LIFE = 4


def test_words_that_name_no_point_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("claim", "claim.before", "claim.before=die", "claim.before=kill@0", "claims.after=kill"):
        with pytest.raises(ConfigurationError, match="give one like"):
            Failpoints.parse(text)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert armed() is None


async def test_a_server_that_dies_around_its_commits_loses_and_doubles_nothing(
    tmp_path: Path, one_event_loop: None
) -> None:
    """Five lives of one server on one database; each but the last ends at another point."""
    with ServerProcess(tmp_path / "home", settings=LEASES) as server:
        ground = Ground(lambda: [server.address])
        await ground.make_pool()
        schedules = await ground.schedules(3)
        server.kill()
        async with robots(2, lambda: [server.address]) as workers:
            for point in [*POINTS, ""]:
                points = {VARIABLE: f"{point}=kill@1"} if point else {}
                server.settings = {**LEASES, **points}
                await asyncio.to_thread(server.start)
                asking = asyncio.create_task(ground.ask(RUNS_PER_LIFE))
                if point.startswith("expire"):
                    await _fall_silent(server.address)
                if not point:
                    await asking
                else:
                    assert server.process is not None
                    assert await asyncio.to_thread(server.process.wait, 60) == -9, point
                    server.process = None
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
            await ground.until_done()
        assert not [worker.error for worker in workers if worker.error]
        assert await ground.violations([one for worker in workers for one in worker.executions]) == []
        assert fires_are_exact(*await ground.fires(schedules)) == []


async def _fall_silent(address: str) -> None:
    """A worker comes, and is not heard of again; unless one before it was given up already."""
    with contextlib.suppress(grpc.aio.AioRpcError, EOFError):
        async with grpc.aio.insecure_channel(address) as channel, WireWorker(channel):
            pass


@pytest.mark.parametrize("point", ["claim.after=fail@1", "claim.before=fail@1"])
async def test_a_claim_whose_answer_is_lost_is_handed_out_all_the_same(
    tmp_path: Path, sqlite_url: str, one_event_loop: None, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The commit is made, and its server thinks that it was not: what was claimed waits for nobody."""
    monkeypatch.setenv(VARIABLE, point)
    settings = settings_for(
        tmp_path / "home", sqlite_url, server_worker_heartbeat_seconds=0.5, server_worker_reply_seconds=0.5
    )
    async with serving(settings) as client:
        stand = Stand(client)
        await stand.make_pool(concurrency_limit=2)
        async with stand.worker(credit=2) as worker:
            for _ in range(2):
                await stand.create()
            over = asyncio.Event()
            beats = asyncio.create_task(_beat(worker, over))
            for _ in range(2):
                assignment = await worker.assignment()
                await worker.accept(assignment)
                await stand.complete(assignment.attempt)
                await worker.grant(1)
            over.set()
            await beats

            async def held() -> bool:
                return await stand.held() == 0

            await eventually(held)


async def _beat(worker: WireWorker, over: asyncio.Event) -> None:
    """Beat until it is over. Not until it is cancelled: that would end the stream."""
    while not over.is_set():
        await worker.heartbeat(*(assignment.attempt for assignment in worker.assignments))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.1)
