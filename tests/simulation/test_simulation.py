"""Fifty hours of workers, replicas and a database, with everything going wrong, in the real code.

The servers' storage, hub, dispatcher, reaper and streams and the workers' sessions are the real ones; time is
virtual, and a seed decides what happens. Then the same with one rule taken away at a time: that must be
noticed, or the simulation proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from headrace_services.storage import migrations
from tests.simulation.defects import DEFECTS
from tests.simulation.running import simulate
from tests.simulation.world import Faults

HOURS = 5.0
HISTORIES: list[tuple[Faults, int]] = [
    ("none", 0),
    *(("server", seed) for seed in range(3)),
    *(("all", seed) for seed in range(6)),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulation") / "template.db"
    asyncio.run(migrations.upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What the servers have to say of their troubles would fill pages."""
    caplog.set_level(logging.CRITICAL, logger="headrace_services")


def test_it_is_fifty_hours() -> None:
    assert HOURS * len(HISTORIES) == 50


@pytest.mark.parametrize(("faults", "seed"), HISTORIES, ids=lambda value: str(value))
def test_nothing_is_lost_and_nothing_done_twice(
    template: Path, tmp_path: Path, faults: Faults, seed: int
) -> None:
    outcome = simulate(template, tmp_path, seed, faults, hours=HOURS)
    assert not outcome.violations, (outcome.violations, outcome.notes[-20:])


def test_the_same_seed_is_the_same_history(template: Path, tmp_path: Path) -> None:
    first, second = (simulate(template, tmp_path, 1, "all", hours=1.5, runs=15) for _ in range(2))
    assert first == second


# The first seed that notices each defect, and one of the things that it notices.
NOTICED: dict[str, tuple[Faults, int, str]] = {
    "no fence check": ("all", 3, "a stale writer was accepted"),
    "no amnesty": ("server", 2, "executed twice"),
    "no reconciliation": ("server", 0, "slots are still taken"),
    "slots as a counter": ("all", 0, "runs are still queued"),
    "terminal overwrite": ("server", 0, "a run that had ended went on"),
    "read-then-write claim": ("server", 3, "a run is not done"),
}


def test_every_defect_is_planted() -> None:
    assert NOTICED.keys() == DEFECTS.keys()


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_noticed(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: str
) -> None:
    faults, seed, violation = NOTICED[defect]
    DEFECTS[defect](monkeypatch)
    outcome = simulate(template, tmp_path, seed, faults, hours=HOURS)
    assert any(violation in name for name in outcome.violations), outcome
