"""`make simulate`: as many histories as wanted, one line each; the seed of a bad one shows it again."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from headrace_services.storage import migrations
from tests.simulation.running import simulate


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=20, help="how many histories")
    arguments.add_argument("--first", type=int, default=1000, help="seed of the first")
    arguments.add_argument("--hours", type=float, default=5.0, help="how long each is, in virtual time")
    arguments.add_argument("--faults", choices=["none", "server", "all"], default="all")
    given = arguments.parse_args()
    logging.disable(logging.CRITICAL)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template.db"
        asyncio.run(migrations.upgrade(f"sqlite+aiosqlite:///{template}"))
        for seed in range(given.first, given.first + given.seeds):
            began = time.perf_counter()
            outcome = simulate(template, folder, seed, given.faults, hours=given.hours)
            took = time.perf_counter() - began
            print(
                f"seed {seed}: {outcome.executions} executions, {outcome.commits} commits, {took:.1f} s",
                end="",
            )
            print("" if not outcome.violations else f" VIOLATIONS {dict(outcome.violations)}", flush=True)
            if outcome.violations:
                bad += 1
                print("\n".join(f"    {note}" for note in outcome.notes))
    print(f"{given.seeds - bad} of {given.seeds} histories without a violation")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
