"""Programs do here what they do on Prefect, except where a difference is meant, named and documented.

`make parity` asks Prefect anew (`expected.json`). A difference that is not in `differences.py` is a bug.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.testing import headrace_test_harness
from tests.parity.differences import DIFFERENCES
from tests.parity.execute import facts_of, load_programs
from tests.support.tools import ROOT

FOLDER = pathlib.Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text())
PROGRAMS = load_programs(FOLDER / "programs", FOLDER / "ours")
MISSING = object()


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with headrace_test_harness():
        yield


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_a_program_finds_the_same(name: str) -> None:
    found = facts_of(PROGRAMS[name])
    wrong = {
        case: {"prefect": EXPECTED[name].get(case, "no such fact"), "headrace": fact}
        for case, fact in found.items()
        if fact != DIFFERENCES.get((name, case), (EXPECTED[name].get(case, MISSING),))[0]
    }
    assert wrong == {}, json.dumps(wrong, indent=1)
    assert found.keys() == EXPECTED[name].keys()


def test_every_program_has_been_asked_of_the_peer() -> None:
    assert PROGRAMS.keys() == EXPECTED.keys()


@pytest.mark.parametrize("key", DIFFERENCES, ids="/".join)
def test_a_difference_is_one_and_is_documented(key: tuple[str, str]) -> None:
    name, case = key
    ours, heading = DIFFERENCES[key]
    assert EXPECTED[name][case] != ours, "it is no difference any longer"
    page = (ROOT / "docs" / "moving-from-prefect.md").read_text()
    assert f"| {heading} |" in page
