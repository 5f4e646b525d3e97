"""`docs/features.md` is whole, and every row that claims something names a test that exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.tools import ROOT

NUMBERS = [*range(1, 32), *range(40, 59), *range(70, 90)]
ROW = re.compile(
    r"^\| (?P<number>\d+) \| (?P<what>.+?) \| (?P<state>.+?) \| ?(?P<proof>.*?) ?\|$", re.MULTILINE
)
TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+))?`")
ROWS = list(ROW.finditer((ROOT / "docs" / "features.md").read_text()))


def test_every_capability_has_its_row() -> None:
    assert [int(row["number"]) for row in ROWS] == NUMBERS


@pytest.mark.parametrize("row", ROWS, ids=[row["number"] for row in ROWS])
def test_a_row_says_no_more_than_a_test_proves(row: re.Match[str]) -> None:
    state = row["state"].partition(":")[0]
    assert state in {"works", "partly", "not yet"}
    if state == "not yet":
        assert row["proof"] == ""
        return
    if state == "partly":
        assert row["state"] != "partly", "say what there is: `partly: …`"
    proofs = list(TEST.finditer(row["proof"]))
    assert proofs, "name the test"
    for proof in proofs:
        source = (ROOT / proof["path"]).read_text()
        if proof["name"]:
            assert proof["name"] in functions_of(source)


def functions_of(source: str) -> set[str]:
    """The names of the functions and classes of a module."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, definitions)}
