"""The programs on the page about serving define deployments that a server takes."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.tools import ROOT

FENCE = re.compile(r"^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = [fence["code"] for fence in FENCE.finditer((ROOT / "docs" / "serving.md").read_text())]
# Everything but the serving itself, which never returns.
STAND_IN = """
import headrace.runner, sys
def serve(*deployments, **options):
    for deployment in deployments:
        message = deployment.to_message()
        print(message.flow_name, message.name, len(message.schedules), message.entrypoint, sorted(options))
headrace.runner.serve = serve
sys.argv = [sys.argv[1]]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (
            0,
            [
                "nightly nightly 1 page.py:nightly ['limit', 'pause_on_shutdown', 'print_starting_message', "
                "'webserver']"
            ],
        ),
        (1, ["hourly h 1 page.py:hourly ['limit']", "daily d 1 page.py:daily ['limit']"]),
    ],
)
def test_a_program_of_the_page_declares_what_it_says(
    number: int, printed: list[str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "page.py").write_text(PROGRAMS[number])
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    done = subprocess.run(
        [sys.executable, "stand_in.py", "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == printed
