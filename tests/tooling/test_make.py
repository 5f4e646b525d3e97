"""The Makefile: bare `make` explains, and every target for people is explained."""

from __future__ import annotations

import re
import subprocess

from tests.support.tools import ROOT

INTERNAL = {"tools"}


def test_bare_make_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    listed = set(re.findall(r"^  make ([\w-]+) +\S", shown, re.MULTILINE))
    [phony] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(phony.split()) - INTERNAL


def test_every_tool_the_makefile_calls_is_there() -> None:
    scripts = re.findall(r"tools/\w+\.(?:sh|py)", (ROOT / "Makefile").read_text())
    assert scripts
    assert [script for script in scripts if not (ROOT / script).exists()] == []
