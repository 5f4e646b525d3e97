"""Flows by the words that say where their code is: `path/file.py:flow`, `package.module:flow`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headrace.exceptions import MissingFlowError, ScriptError, UnspecifiedFlowError

if TYPE_CHECKING:
    from headrace.flows import Flow

__all__ = ["flows_of", "is_file", "load_flow_from_entrypoint", "load_module_at"]


def load_flow_from_entrypoint(entrypoint: str) -> Flow[..., Any]:
    """The flow that an entrypoint means.

    The module, or the file, is executed, as `import` and `python path/file.py` do: a file can import its
    neighbours, and its `if __name__ == "__main__":` is left out.

    Args:
        entrypoint: `path/file.py:flow`, `package.module:flow` or `package.module.flow`. The flow is named by
            its variable, or by its own name.

    Raises:
        UnspecifiedFlowError: no flow is named; it is a MissingFlowError.
        MissingFlowError: there is no flow of that name.
        ScriptError: the code cannot be executed, or there is no such file; `user_exc` says why.
        ModuleNotFoundError: there is no such module.
    """
    separator = ":" if ":" in entrypoint or is_file(entrypoint) else "."
    place, _, name = entrypoint.rpartition(separator)
    if not place:
        raise UnspecifiedFlowError(
            f"'{entrypoint}' does not name a flow. Write path/file.py:flow or package.module:flow."
        )
    module = load_module_at(place)
    flows = flows_of(module)
    found = flows.get(name) or next((flow for flow in flows.values() if flow.name == name), None)
    if found is not None:
        return found
    if hasattr(module, name):
        raise MissingFlowError(
            f"Function with name {name!r} is not a flow. Make sure that it is decorated with '@flow'."
        )
    raise MissingFlowError(f"Flow function with name {name!r} not found in {place!r}.")


def is_file(place: str) -> bool:
    """Whether the words mean a file, and not a module."""
    return place.endswith(".py") or os.sep in place


def load_module_at(place: str) -> ModuleType:
    """Execute a file, or import a module.

    Raises:
        ScriptError: its code fails, or there is no such file.
        ModuleNotFoundError: there is no such module.
    """
    return _load_file(Path(place).expanduser()) if is_file(place) else _load_module(place)


def flows_of(module: ModuleType) -> dict[str, Flow[..., Any]]:
    """The flows of a module, by the names of their variables."""
    from headrace.flows import Flow

    return {name: value for name, value in vars(module).items() if isinstance(value, Flow)}


def _load_file(typed: Path) -> ModuleType:
    path = typed.resolve()
    # As `python path/file.py` does, so that the file can import its neighbours.
    sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem not in sys.modules else f"headrace_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ScriptError(ImportError(f"{typed} is not a Python file."), str(typed))
    module = importlib.util.module_from_spec(spec)
    # Classes of the file are found under this name when their instances are pickled.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise ScriptError(error, str(typed)) from error
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ScriptError(error, name) from error
    except Exception as error:
        raise ScriptError(error, name) from error
