"""Runs the programs of a folder; knows nothing of the product that they use."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["facts_of", "load_programs"]

Program = Callable[[], dict[str, Any]]


def load_programs(folder: pathlib.Path, *more: pathlib.Path) -> dict[str, Program]:
    """Every `program_…` of the modules in `folder`, by what follows that.

    Args:
        folder: of the modules; they import each other as top-level ones, and stay imported.
        more: folders with what they import besides.
    """
    sys.path[:0] = [str(folder), *map(str, more)]
    try:
        modules = [importlib.import_module(file.stem) for file in sorted(folder.glob("*.py"))]
    finally:
        del sys.path[: 1 + len(more)]
    return {
        name.removeprefix("program_"): found
        for module in modules
        for name, found in vars(module).items()
        if name.startswith("program_")
    }


def facts_of(program: Program) -> dict[str, Any]:
    """What the program found out, as it comes back from JSON."""
    facts: dict[str, Any] = json.loads(json.dumps(program(), default=lambda value: type(value).__name__))
    return facts
