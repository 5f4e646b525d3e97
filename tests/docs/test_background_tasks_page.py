"""The programs on the page about background tasks, with a server: one serves what the other asks for."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

from tests.support.servers import ServerProcess
from tests.support.tools import ROOT
from tests.support.worker_processes import until

FENCE = re.compile(r"^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = [fence["code"] for fence in FENCE.finditer((ROOT / "docs" / "background-tasks.md").read_text())]


def test_one_program_serves_what_the_other_asks_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mail.py").write_text(PROGRAMS[0].replace(" ...", '\n    return f"to {to}: {text}"'))
    (tmp_path / "asking.py").write_text(PROGRAMS[1] + PROGRAMS[2] + "print(future.result())\n")
    log = tmp_path / "worker.log"
    with ServerProcess(tmp_path / "server") as server, log.open("wb") as lines:
        serving = subprocess.Popen(
            [sys.executable, "mail.py"], cwd=tmp_path, env=server.environment, stderr=lines
        )
        try:
            until(lambda: "Connected" in log.read_text())
            asked = subprocess.run(
                [sys.executable, "-W", "error", "asking.py"],
                cwd=tmp_path,
                env=server.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert asked.stdout == "to ada@example.com: Hello\n", asked.stderr
            serving.terminate()
            assert serving.wait(60) == 0
        finally:
            serving.kill()
            serving.wait()
