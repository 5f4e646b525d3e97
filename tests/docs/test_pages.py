"""The Python code of the documentation runs, page by page, in a process of its own without a server."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.tools import ROOT

FENCE = re.compile(r"^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS_MORE = re.compile("<!-- (server|cluster) -->\n```python")
"""Before code that a page cannot run without a server or a cluster: such a page has a test of its own."""
PAGES = [
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if FENCE.search(page.read_text()) and not NEEDS_MORE.search(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_code_of_a_page_runs(page: pathlib.Path, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(fence["code"] for fence in FENCE.finditer(page.read_text())))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**os.environ, "HEADRACE_HOME": str(tmp_path / "home"), "HEADRACE_API_URL": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
