"""`make chaos`: real servers, workers and a database, with something going wrong all the time.

Prints what was done and how long it took until a run that was asked for afterwards had completed; in the end,
what did not hold. The seed decides on the faults; when exactly they strike is up to the machine. Exit code 0:
everything held.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.chaos.faults import FAULTS, HARMLESS
from tests.chaos.world import World


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=None, help="of the faults; any by default")
    arguments.add_argument("--minutes", type=float, default=5.0, help="how long faults go on")
    arguments.add_argument("--only", default="", help="faults whose name has this word")
    arguments.add_argument(
        "--harmless",
        action="store_true",
        help="nothing is done to workers: nothing may be executed twice",
    )
    given = arguments.parse_args()
    seed = random.randrange(10_000) if given.seed is None else given.seed
    print(f"seed {seed}, {given.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(_live(Path(folder), seed, given.minutes * 60, given.only, given.harmless))


async def _live(folder: Path, seed: int, seconds: float, only: str, is_harmless: bool) -> int:
    chance = random.Random(seed)
    names = [name for name in FAULTS if only in name and (name in HARMLESS or not is_harmless)]
    recoveries: dict[str, list[float]] = defaultdict(list)
    async with World(folder, chance).living() as world:
        await world.recovered()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            name = chance.choice(names)
            at = time.monotonic() - began
            await FAULTS[name](world)
            healed = time.monotonic()
            await world.recovered()
            took = time.monotonic() - healed
            recoveries[name].append(took)
            print(f"{at:7.1f} s  {name:32} well again after {took:5.1f} s", flush=True)
            await asyncio.sleep(chance.uniform(0.0, 2.0))
        print("quiet: everything that was asked for is to end", flush=True)
        violations = await world.violations(may_repeat=not HARMLESS.issuperset(recoveries))
        runs = world.runs
    _report(recoveries, runs, violations)
    return 1 if violations else 0


def _report(recoveries: dict[str, list[float]], runs: int, violations: list[str]) -> None:
    print(f"\n{'fault':34}{'times':>6}{'median':>9}{'longest':>9}   seconds until well again")
    for name in sorted(recoveries):
        took = recoveries[name]
        print(f"{name:34}{len(took):6}{statistics.median(took):9.1f}{max(took):9.1f}")
    count = sum(len(took) for took in recoveries.values())
    print(f"\n{count} faults, {runs} runs, {len(violations)} violations")
    for violation in violations:
        print(f"  {violation}")


if __name__ == "__main__":
    sys.exit(main())
