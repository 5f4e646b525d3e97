"""The code of the page on clusters: Dask is started by it, Ray is there already."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.docs.test_pages import FENCE
from tests.support.clusters import on_ray
from tests.support.tools import ROOT


@on_ray
def test_the_code_of_the_page_runs(ray: Any, tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "clusters.md").read_text()
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(fence["code"] for fence in FENCE.finditer(page)))
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(tmp_path / "home"),
        "HEADRACE_API_URL": "off",
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
