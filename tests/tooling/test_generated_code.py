"""The committed `headrace.v1` under the oldest and the newest runtime that users may have."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from headrace.v1.run_pb2 import Run
from tests.support.tools import ROOT, tool_python

ROUND_TRIP = """
import importlib, json, pathlib, pkgutil
import google.protobuf, grpc
import headrace.v1
names = [module.name for module in pkgutil.iter_modules(headrace.v1.__path__)]
for name in names:
    importlib.import_module(f"headrace.v1.{name}")
from headrace.v1.run_pb2 import Run
run = Run(id="0198b6b0-0000-7000-8000-000000000001", name="steady-otter", tags=["etl"])
run.labels["team"] = "données"
run.create_time.FromMicroseconds(1_800_000_000_000_001)
print(json.dumps({
    "protobuf": google.protobuf.__version__,
    "grpc": grpc.__version__,
    "modules": names,
    "bytes": run.SerializeToString(deterministic=True).hex(),
    "same": Run.FromString(run.SerializeToString()) == run,
}))
"""


def test_it_loads_on_the_oldest_runtime() -> None:
    said = _round_trip("oldest")
    assert (said["protobuf"], said["grpc"]) == ("6.31.1", "1.76.0")
    _check(said)


def test_it_loads_on_protobuf_7() -> None:
    said = _round_trip("newest")
    assert said["protobuf"].startswith("7.")
    _check(said)


def test_it_carries_no_validation_rules() -> None:
    """A second `buf/validate` in a user's process would collide with the first."""
    folder = ROOT / "sdk" / "headrace" / "v1"
    assert [path.name for path in folder.glob("*_pb2.py") if b"buf/validate" in path.read_bytes()] == []


def _round_trip(environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [tool_python(environment), "-W", "error", "-c", ROUND_TRIP],
        env={"PYTHONPATH": str(ROOT / "sdk")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _check(said: dict[str, Any]) -> None:
    assert said["same"]
    assert {"run_pb2", "run_service_pb2_grpc", "record_service_pb2_grpc"} <= set(said["modules"])
    run = Run.FromString(bytes.fromhex(said["bytes"]))
    assert (run.name, list(run.tags), run.labels["team"]) == ("steady-otter", ["etl"], "données")
    assert run.create_time.ToMicroseconds() == 1_800_000_000_000_001
