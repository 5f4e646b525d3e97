"""What `make run` does: run the weather pipeline with live progress, then say how to look further.

`headrace run` starts a server for the home folder if none runs there; it leaves by itself when idle.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
HEADRACE = pathlib.Path(sys.executable).with_name("headrace")
LIST_RUNS = "headrace.v1.RunService/ListRuns"


def main(words: list[str]) -> int:
    environment = {"HEADRACE_TRACES_EXPORTER": "server", **os.environ}
    command = [HEADRACE, "run", f"{HERE / 'weather.py'}:pipeline", *words]
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode == 0:
        print(further())
    return done.returncode


def further() -> str:
    """Commands that show what the run has left, with its name and the server's address in them."""
    [run] = ask("flow-run", "ls", "--flow-name", "pipeline", "--limit", "1")
    name, address = run["name"], ask("server", "status")["address"]
    headrace = os.path.relpath(HEADRACE)
    return f"""
The run is recorded. To look further:

  {headrace} flow-run ls
  {headrace} flow-run graph {name}
  {headrace} flow-run logs {name}
  {headrace} flow-run spans {name}
  {headrace} task-run ls --task-name read_rows
  grpcurl -plaintext -d '{{"page_size": 3}}' {address} {LIST_RUNS}
  make rpc ADDRESS={address} CALL={LIST_RUNS} DATA='{{"page_size": 3}}'   # the same, with grpcurl from .tools

The server at {address} leaves when idle; `{headrace} server start` keeps one."""


def ask(*words: str) -> Any:
    done = subprocess.run([HEADRACE, *words, "-o", "json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
