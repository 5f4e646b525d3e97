"""The tests that the documentation shows pass."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from tests.docs.test_pages import FENCE
from tests.support.tools import ROOT


def test_the_tests_of_the_page_pass(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    (tmp_path / "test_page.py").write_text("\n\n".join(fence["code"] for fence in FENCE.finditer(page)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "6 passed" in done.stdout, done.stdout + done.stderr
