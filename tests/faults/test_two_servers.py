"""Two servers on one PostgreSQL: one is killed, or told to stop, while runs are handed out. Nothing is lost,
nothing is done twice, and no limit is exceeded; although the clock of the other one is an hour off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ground import Ground, lease_settings
from tests.faults.test_networks import until
from tests.support.clocks import wrong_clock
from tests.support.invariants import limit_is_kept, log_is_clean
from tests.support.robots import robots
from tests.support.servers import ServerProcess

# One after the other: each of them keeps the machine busy.
pytestmark = pytest.mark.xdist_group("faults-servers")
RUNS, LIMIT, WORKERS = 36, 5, 6
HOUR_SECONDS = 3600


@pytest.fixture
def pair(tmp_path: Path, postgresql_url: str) -> Iterator[list[ServerProcess]]:
    """Two servers on one database; the second one's clock is an hour ahead."""
    # Long enough for a busy machine: a worker that is not heard of in time has lost its runs rightly.
    right = lease_settings(20.0)
    wrong = {**right, **wrong_clock(tmp_path / "clock", HOUR_SECONDS)}
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(ServerProcess(tmp_path / name, postgresql_url, settings))
            for name, settings in (("a", right), ("b", wrong))
        ]


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_server_that_goes_costs_no_run_and_repeats_no_attempt(
    pair: list[ServerProcess], one_event_loop: None, how: str
) -> None:
    first, second = pair
    both = [server.address for server in pair]
    ground = Ground(lambda: both)
    await ground.make_pool(limit=LIMIT)
    async with robots(WORKERS, lambda: both) as workers:
        await until(lambda: all(worker.session.is_connected for worker in workers))
        asking = asyncio.create_task(ground.ask(RUNS))
        await until(lambda: sum(len(worker.executions) for worker in workers) > RUNS // 4)
        await asyncio.to_thread(first.kill if how == "killed" else first.stop)
        await asking
        await ground.until_done()
        executions = [one for worker in workers for one in worker.executions]
    # Once under a fence: a worker whose answer is late on a busy machine has lost its offer to another.
    assert {one.run_id for one in executions} == set(ground.asked)
    assert await ground.violations(executions) == []
    assert limit_is_kept([(one.begin, one.end) for one in executions], LIMIT) == []
    assert log_is_clean(first.log + second.log) == []
