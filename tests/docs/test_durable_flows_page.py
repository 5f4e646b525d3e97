"""The code of the page on durable flows runs, with the server that it has started for itself."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from tests.docs.test_pages import FENCE
from tests.support.servers import run_headrace
from tests.support.tools import ROOT


def test_the_code_of_the_page_runs_and_starts_its_server(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "durable-flows.md").read_text()
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(fence["code"] for fence in FENCE.finditer(page)))
    environment = {**os.environ, "HEADRACE_HOME": str(tmp_path / "home")}
    try:
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        stopped = run_headrace("server", "stop", environment=environment)
    assert stopped.returncode == 0, stopped.stderr
