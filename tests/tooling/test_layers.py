"""The import contracts catch what they are there for: one breach of each, in a copy of the source."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.tools import ROOT

BREACHES = {
    "services/headrace_services/domain/breach.py": "import headrace_services.storage.breach",
    "services/headrace_services/storage/breach.py": "",
    "services/headrace_services/rpc/breach.py": "import headrace_services.loops.breach",
    "services/headrace_services/loops/breach.py": "import headrace.settings",
    "sdk/headrace/breach.py": "import headrace_services.loops.breach",
    "sdk/headrace/cli/breach.py": "import sqlalchemy",
    "sdk/headrace/engine/breach.py": "import grpc",
    "sdk/headrace/client/breach.py": "import headrace.flows",
    "sdk/headrace/core/breach.py": "import asyncio",
    "workers/headrace_workers/breach.py": "import headrace_services.domain.breach",
    "workers/headrace_workers/session.py": "import grpc",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `lint-imports` says of a copy of the source with every breach in it."""
    copy = tmp_path_factory.mktemp("breaches")
    for folder in ("sdk", "services", "workers"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", copy / "pyproject.toml")
    for path, line in BREACHES.items():
        (copy / path).write_text(f"{line}\n")
    return _lint_imports(copy)


@pytest.mark.parametrize(
    "chain",
    [
        "headrace_services.domain.breach -> headrace_services.storage.breach",
        "headrace_services.rpc.breach -> headrace_services.loops.breach",
        "headrace_services.loops.breach -> headrace.settings",
        "headrace.breach -> headrace_services.loops.breach",
        "headrace.cli.breach -> sqlalchemy",
        "headrace.engine.breach -> grpc",
        "headrace.client.breach -> headrace.flows",
        "headrace.core.breach -> asyncio",
        "headrace_workers.breach -> headrace_services.domain.breach",
        "headrace_workers.session -> grpc",
    ],
)
def test_a_breach_is_named(broken: str, chain: str) -> None:
    assert f"{chain} (l.1)" in broken


def _lint_imports(root: pathlib.Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / folder) for folder in ("sdk", "services", "workers")),
        "PYTHONWARNINGS": "default",
    }
    done = subprocess.run(
        [pathlib.Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout
