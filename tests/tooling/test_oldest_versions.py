"""The project works on the oldest versions that `pyproject.toml` allows."""

from __future__ import annotations

import json
import pathlib
import subprocess

from tests.support.servers import ServerProcess, run_headrace
from tests.support.tools import ROOT, tool_python

WEATHER = f"{ROOT / 'examples' / 'weather.py'}:pipeline"


def test_the_example_runs_on_them(tmp_path: pathlib.Path) -> None:
    python = tool_python("oldest")
    with ServerProcess(tmp_path / "home", python=python) as server:

        def headrace(*words: str) -> subprocess.CompletedProcess[str]:
            done = run_headrace(*words, environment=server.environment, cwd=tmp_path, python=python)
            assert done.returncode == 0, done.stderr
            return done

        ran = headrace("run", WEATHER, "-p", "years=[2013]", "-p", f"output={tmp_path}")
        listed = json.loads(headrace("flow-run", "ls", "-o", "json").stdout)
    assert "| 2013 |" in ran.stdout + ran.stderr
    assert {run["flow_name"]: run["state"]["type"] for run in listed} == {
        "pipeline": "COMPLETED",
        "summarise-year": "COMPLETED",
    }
