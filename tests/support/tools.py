"""Programs that `make setup` fetches for development, and the environments it makes beside `.venv`."""

from __future__ import annotations

import pathlib
import shutil

import pytest

__all__ = ["ROOT", "tool", "tool_python"]

ROOT = pathlib.Path(__file__).resolve().parents[2]
_FOLDER = ROOT / ".tools"


def tool(name: str) -> str:
    """Path of a program such as `grpcurl` or `buf`; the test is skipped where there is none."""
    fetched = _FOLDER / "bin" / name
    found = str(fetched) if fetched.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, which `make setup` could not fetch here")
    return found


def tool_python(environment: str) -> str:
    """The interpreter of an environment below `.tools`; the test is skipped where it was not made."""
    python = _FOLDER / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"needs .tools/{environment}: run `make setup`")
    return str(python)
