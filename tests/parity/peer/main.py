"""Run in Prefect's environment: `main.py PROGRAMS OUT ONLY` writes what each program found out there.

ONLY is the name of one program, or empty.
"""

from __future__ import annotations

import json
import pathlib
import sys
import traceback

from execute import facts_of, load_programs
from prefect.testing.utilities import prefect_test_harness


def main(folder: pathlib.Path, out: pathlib.Path, only: str) -> None:
    programs = load_programs(folder, pathlib.Path(__file__).parent)
    found, broken = {}, []
    with prefect_test_harness(server_startup_timeout=120):
        for name, program in programs.items():
            if only not in ("", name):
                continue
            try:
                found[name] = facts_of(program)
            except Exception:
                traceback.print_exc()
                broken.append(name)
    out.write_text(json.dumps(found))
    if broken:
        sys.exit(f"These did not come to their end: {', '.join(broken)}")


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3])
