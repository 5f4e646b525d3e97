"""Compares the protos with those of the main branch: a change that breaks old clients fails.

The main branch is `main`, else `origin/main`; where neither exists or it has no protos yet, there is
nothing to compare with, and that is said.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO

BRANCHES = ("main", "origin/main")
SCHEMA = ("proto", "buf.yaml")


def main() -> int:
    branch = next((name for name in BRANCHES if _has_schema(name)), None)
    if branch is None:
        print("no main branch with protos here: nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory() as before:
        archive = subprocess.run(["git", "archive", branch, *SCHEMA], capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as schema:
            schema.extractall(before, filter="data")
        return subprocess.run(["buf", "breaking", "--against", before], check=False).returncode


def _has_schema(branch: str) -> bool:
    paths = [f"{branch}:{path}" for path in SCHEMA]
    return all(
        subprocess.run(["git", "cat-file", "-e", path], capture_output=True, check=False).returncode == 0
        for path in paths
    )


if __name__ == "__main__":
    sys.exit(main())
