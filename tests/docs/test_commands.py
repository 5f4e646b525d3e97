"""Every `headrace …` command that the documentation shows exists, with the options shown."""

from __future__ import annotations

import re

import pytest

from headrace.cli import main
from tests.support.tools import ROOT

# features.md speaks of what is to come as well.
PAGES = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != "features.md")]
SHOWN = re.compile(r"(?:^\$ |`)headrace (?P<rest>[^`|#\n]+)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--?[a-z][\w-]*")
# Of `headrace` itself, not of a command.
GLOBAL = {"--help", "--profile", "-p", "--no-prompt", "--version"}


def _shown() -> set[tuple[str, ...]]:
    """Commands as their words, then their options."""
    found: set[tuple[str, ...]] = set()
    for page in PAGES:
        for match in SHOWN.finditer(page.read_text()):
            rest = match["rest"]
            words = re.match(r"[a-z][\w-]*( [a-z][\w-]*\b(?![.:/]))?", rest)
            if words:
                found.add((words[0], *OPTION.findall(f" {rest}")))
    return found


@pytest.mark.parametrize("shown", sorted(_shown()), ids=" ".join)
def test_it_exists(shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command, *options = shown
    words = command.split()
    if words[0] == "run":
        words = ["run"]
    assert main([*words, "--help"]) == 0, capsys.readouterr().err
    help = capsys.readouterr().out
    for option in options:
        assert option in GLOBAL or re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help), option


def test_they_were_found() -> None:
    assert {"flow-run ls", "flow-run logs", "server start", "db upgrade"} <= {shown[0] for shown in _shown()}
