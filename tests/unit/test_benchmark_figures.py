"""The arithmetic of the benchmark's report; nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import machine, table
from benchmarks.figures import FIGURES, Summary, figure, ratio, summarise

RATE = figure("tasks.sequential")
CPU = figure("tasks.sequential.server_cpu")


def once(value: float) -> Summary:
    return summarise([value])


def test_a_summary_is_the_median_and_the_extremes() -> None:
    assert summarise([5.0, 1.0, 9.0, 2.0]) == Summary(median=3.5, least=1.0, most=9.0, repeats=4)


def test_nothing_measured_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarise([])


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("tasks.sequential", 2500.0, True),
        ("tasks.sequential", 2499.9, False),
        ("tasks.sequential.server_cpu", 250.0, True),
        ("tasks.sequential.server_cpu", 250.1, False),
        ("import.forbidden", 0.0, True),
        ("import.forbidden", 1.0, False),
    ],
)
def test_a_gate_is_a_floor_for_rates_and_a_ceiling_for_costs(name: str, value: float, passes: bool) -> None:
    assert figure(name).passes(value) is passes


def test_a_goal_is_never_easier_than_its_gate() -> None:
    for each in FIGURES:
        if each.gate is not None and each.goal is not None:
            assert each.passes(each.goal), each.name


def test_one_database_below_the_gate_fails_the_row() -> None:
    assert table.verdict(RATE, [once(4000), once(3000)]) == "pass"
    assert table.verdict(RATE, [once(4000), once(2000)]) == "FAIL"
    assert table.verdict(RATE, []) == ""


def test_a_ratio_says_how_many_times_better_in_either_direction() -> None:
    assert ratio(RATE, own=3000, peer=30) == 100
    assert ratio(CPU, own=100, peer=20_000) == 200


def test_the_table_sets_own_figures_limits_and_the_peer_side_by_side() -> None:
    results = {
        ("headrace", "sqlite"): {"tasks.sequential": summarise([3000, 3100, 2900])},
        ("headrace", "postgresql"): {"tasks.sequential": once(2000)},
        ("peer", "sqlite"): {"tasks.sequential": once(30)},
    }
    head, _, row = table.as_table(results, "headrace", "peer").splitlines()
    assert " ".join(head.split()) == (
        "unit headrace SQLite headrace PostgreSQL gate goal peer SQLite better, SQLite"
    )
    assert row.startswith(RATE.title)
    assert "3,000 (2,900..3,100)" in row
    assert row.split()[-8:] == [">=", "2,500", ">=", "5,000", "FAIL", "30", "100", "x"]


def test_json_carries_every_figure_and_the_machine() -> None:
    results = {("headrace", "sqlite"): {"tasks.sequential.server_cpu": summarise([90, 110, 100])}}
    report = json.loads(table.as_json(results, {"cores": "2"}, "headrace"))
    assert report["machine"] == {"cores": "2"}
    (only,) = report["figures"]
    assert (only["median"], only["least"], only["most"], only["repeats"]) == (100, 90, 110, 3)
    assert (only["unit"], only["gate"], only["goal"], only["verdict"]) == ("us", 250, 100, "pass")


def test_cpu_time_counts_the_process_and_its_children() -> None:
    spin = "import time\nwhile time.process_time() < 0.05: pass\nprint('spun', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"spun\n"
        tree = list(machine.process_tree(process.pid))
        assert len(tree) == 2
        assert machine.cpu_seconds(process.pid) > machine.cpu_seconds(tree[1]) >= 0.05
        assert machine.resident_bytes(process.pid) > machine.resident_bytes(tree[1])
        process.communicate(b"\n")


def test_cpu_time_of_this_process_never_goes_back() -> None:
    before = machine.cpu_seconds(os.getpid())
    sum(range(100_000))
    assert machine.cpu_seconds(os.getpid()) > before
