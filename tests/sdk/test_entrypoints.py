"""Flows by the words that say where their code is."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

from headrace.exceptions import MissingFlowError, ScriptError, UnspecifiedFlowError
from headrace.flows import load_flow_from_entrypoint

CODE = """
from headrace import flow
import neighbour_of_entrypoints

@flow(name="nice name")
def f():
    return neighbour_of_entrypoints.WORD

number = 3
if __name__ == "__main__":
    raise AssertionError
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    (tmp_path / "entrypoint_code.py").write_text(CODE)
    (tmp_path / "neighbour_of_entrypoints.py").write_text("WORD = 'found'")
    (tmp_path / "broken_entrypoint.py").write_text("raise ValueError('bad')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if "entrypoint" in name:
            del sys.modules[name]


@pytest.mark.parametrize(
    "entrypoint",
    [
        "entrypoint_code.py:f",
        "./entrypoint_code.py:f",
        "entrypoint_code.py:nice name",
        "entrypoint_code:f",
        "entrypoint_code.f",
    ],
)
def test_a_flow_is_found(entrypoint: str) -> None:
    flow = load_flow_from_entrypoint(entrypoint)
    assert (flow.name, flow.fn()) == ("nice name", "found")


def test_by_the_whole_path(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load_flow_from_entrypoint(f"{folder}/entrypoint_code.py:f").fn() == "found"


@pytest.mark.parametrize(
    ("entrypoint", "error", "text"),
    [
        ("entrypoint_code.py:nope", MissingFlowError, "'nope' not found in 'entrypoint_code.py'"),
        ("entrypoint_code.py:number", MissingFlowError, "is not a flow"),
        ("entrypoint_code.py", UnspecifiedFlowError, "does not name a flow"),
        ("entrypoint_code", UnspecifiedFlowError, "does not name a flow"),
        ("absent_entrypoint.py:f", ScriptError, "FileNotFoundError"),
        ("broken_entrypoint.py:f", ScriptError, r"ValueError\('bad'\)"),
        ("broken_entrypoint:f", ScriptError, r"ValueError\('bad'\)"),
        ("absent_entrypoint:f", ModuleNotFoundError, "absent_entrypoint"),
        ("absent_entrypoint.f", ModuleNotFoundError, "absent_entrypoint"),
    ],
)
def test_or_it_says_why_not(entrypoint: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load_flow_from_entrypoint(entrypoint)


def test_what_the_code_ended_with_is_kept() -> None:
    with pytest.raises(ScriptError) as raised:
        load_flow_from_entrypoint("broken_entrypoint.py:f")
    assert isinstance(raised.value.user_exc, ValueError)
    assert raised.value.path == "broken_entrypoint.py"
    assert raised.value.__cause__ is raised.value.user_exc
