"""The fingerprints of all kinds of values are those of the file beside this one, wherever they are made."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from tests.support.fingerprinted import fingerprints
from tests.support.tools import ROOT

GOLDEN = pathlib.Path(__file__).parent / "goldens.json"
_PROGRAM = (
    "import json; from tests.support.fingerprinted import fingerprints; print(json.dumps(fingerprints()))"
)


def test_fingerprints_are_the_ones_of_the_file() -> None:
    """A change here means that every cache key changes: raise VERSION of the encoder with it."""
    assert fingerprints() == json.loads(GOLDEN.read_text())


def test_no_two_kinds_share_a_fingerprint() -> None:
    found = fingerprints()
    assert len(set(found.values())) == len(found)


def test_processes_with_other_hash_seeds_agree() -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
        )
        for seed in (1, 4294967295)
    ]
    found = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert found == [json.loads(GOLDEN.read_text())] * len(children)
