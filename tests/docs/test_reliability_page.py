"""`docs/reliability.md` has every row, and every test that a row names exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_features import TEST, functions_of
from tests.support.tools import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text()
FAILURES = [str(number) for number in (*range(1, 25), *range(32, 41))]
FAULTS = [f"F{number}" for number in (*range(1, 10), 14, 15, 19)]
ROW = re.compile(r"^\| (?P<key>F?\d+)(?: [^|]*)?\|(?P<rest>.*)\|$", re.MULTILINE)
ROWS = {row["key"]: row["rest"] for row in ROW.finditer(PAGE)}


def test_every_failure_and_fault_has_its_row() -> None:
    assert list(ROWS) == [*FAILURES, *FAULTS]


@pytest.mark.parametrize("key", ROWS)
def test_a_row_names_tests_that_exist(key: str) -> None:
    proofs = list(TEST.finditer(ROWS[key].rpartition("|")[2]))
    assert proofs, "name the test"
    for proof in proofs:
        assert proof["name"] in functions_of((ROOT / proof["path"]).read_text())
