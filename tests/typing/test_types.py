"""What type checkers see: each case file goes through pyright and mypy, both strict.

`# R: type` stands behind a `reveal_type` and says what both must reveal; `# E: why` stands behind a line in
which both must find an error. Anything else they find is a failure.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

CASES = pathlib.Path(__file__).parent / "cases"
FILES = sorted(path.name for path in CASES.glob("*.py"))
ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ["pyright", "mypy"]

_MARK = re.compile(r"# (R|E): (.+)$")
_PATH = re.compile(r"\b(?:\w+\.)+(\w+)")
_OPTIONAL = re.compile(r"Union\[(.+), (.+)\]$")


@dataclass
class Findings:
    """What was expected of one file, or found in it, by line.

    Attributes:
        types: what `reveal_type` says.
        errors: lines with an error, and the messages.
    """

    types: dict[int, str] = field(default_factory=dict[int, str])
    errors: dict[int, str] = field(default_factory=dict[int, str])


def expected(name: str) -> Findings:
    findings = Findings()
    for number, line in enumerate((CASES / name).read_text().splitlines(), start=1):
        mark = _MARK.search(line)
        if mark is not None:
            (findings.types if mark[1] == "R" else findings.errors)[number] = mark[2]
    return findings


def plain(revealed: str) -> str:
    """A type in the words both tools share: without modules and quotes."""
    text = _PATH.sub(r"\1", revealed).replace("?", "").replace("CoroutineType[", "Coroutine[")
    return " | ".join(sorted(text.split(" | "), key=lambda part: (part == "None", part == "BaseException")))


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Findings]]:
    """What each tool finds in each file; both run at the same time, each once."""
    pyright = _start("pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(CASES.parent))
    mypy = _start(
        "mypy",
        "--strict",
        "--output=json",
        "--no-error-summary",
        "--config-file=",
        "--python-version=3.11",
        "--follow-imports=silent",
        f"--cache-dir={ROOT / '.mypy_cache' / 'cases'}",
        *(str(CASES / name) for name in FILES),
    )
    return {"pyright": _of_pyright(_output(pyright)), "mypy": _of_mypy(_output(mypy))}


def _start(tool: str, *arguments: str) -> subprocess.Popen[str]:
    program = pathlib.Path(sys.executable).with_name(tool)
    return subprocess.Popen(
        [str(program), *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=110)
    assert process.returncode in (0, 1), f"{out}\n{err}"
    return out


def _of_pyright(output: str) -> dict[str, Findings]:
    by_file: dict[str, Findings] = {name: Findings() for name in FILES}
    for said in json.loads(output)["generalDiagnostics"]:
        _note_pyright(by_file[pathlib.Path(said["file"]).name], said)
    return by_file


def _note_pyright(findings: Findings, said: dict[str, Any]) -> None:
    line = said["range"]["start"]["line"] + 1
    revealed = re.match(r'Type of ".*" is "(.*)"$', said["message"], re.S)
    if said["severity"] == "information" and revealed is not None:
        findings.types[line] = plain(revealed[1])
    else:
        findings.errors[line] = said["message"]


def _of_mypy(output: str) -> dict[str, Findings]:
    by_file: dict[str, Findings] = {name: Findings() for name in FILES}
    for row in output.splitlines():
        said = json.loads(row)
        findings = by_file[pathlib.Path(said["file"]).name]
        revealed = re.match(r'Revealed type is "(.*)"$', said["message"])
        if revealed is not None:
            findings.types[said["line"]] = plain(revealed[1])
        elif said["severity"] == "error":
            findings.errors[said["line"]] = said["message"]
    return by_file


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", FILES)
def test_the_revealed_types_are_the_expected_ones(
    found: dict[str, dict[str, Findings]], tool: str, name: str
) -> None:
    assert found[tool][name].types == {line: plain(text) for line, text in expected(name).types.items()}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", FILES)
def test_errors_are_found_where_they_are_and_nowhere_else(
    found: dict[str, dict[str, Findings]], tool: str, name: str
) -> None:
    errors, wanted = found[tool][name].errors, expected(name).errors
    assert {line: errors[line] for line in errors.keys() - wanted.keys()} == {}, "not expected"
    assert {line: wanted[line] for line in wanted.keys() - errors.keys()} == {}, "not found"


def test_the_cases_say_something() -> None:
    for name in FILES:
        assert expected(name).types
        assert expected(name).errors
