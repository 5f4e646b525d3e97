"""A flow from a file or a module, by the words a person types."""

from __future__ import annotations

import importlib.util
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headrace import entrypoints
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.core.errors import HeadraceException
from headrace.entrypoints import flows_of, is_file, load_module_at
from headrace.exceptions import ScriptError as FailingScript

if TYPE_CHECKING:
    from headrace.flows import Flow
    from headrace.tasks import Task

__all__ = ["ScriptError", "load_flow", "load_tasks"]


class ScriptError(CliError, HeadraceException):
    """The file or module of a flow cannot be loaded, or does not hold the flow."""


def load_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow that `path/file.py:flow`, `package.module:flow` or `package.module.flow` means.

    The name may be left out when the file defines exactly one flow. It is the variable's name or the
    flow's own.

    Raises:
        ScriptError: there is no such file, module or flow, or loading it fails.
    """
    place, _, name = entrypoint.rpartition(":") if ":" in entrypoint else (entrypoint, "", "")
    if "." in place and not (name or is_file(place) or _is_module(place)):
        place, _, name = place.rpartition(".")
    module = _loaded(place)
    return _named_flow(module, place, name) if name else _only_flow(module, place)


def load_tasks(entrypoint: str) -> list[Task[..., Any]]:
    """The tasks that `path/file.py:task` or `package.module:task` means; without a name: every one there.

    Raises:
        ScriptError: there is no such file, module or task, or loading it fails.
    """
    from headrace.tasks import Task

    place, _, name = entrypoint.rpartition(":") if ":" in entrypoint else (entrypoint, "", "")
    module = _loaded(place)
    tasks: dict[str, Task[..., Any]] = {
        key: value for key, value in vars(module).items() if isinstance(value, Task)
    }
    if name in tasks:
        return [tasks[name]]
    if not name and tasks:
        return list(tasks.values())
    listed = f"Name one of its tasks: {', '.join(tasks)}." if tasks else "A task is a function under @task."
    missing = f"There is no task '{name}' in {place}." if name else f"There is no task in {place}."
    raise ScriptError(missing, nearest(name, tasks) or listed, code=ExitCode.NOT_FOUND)


def _is_module(name: str) -> bool:
    """Whether a dotted name is a module's, and not that of something in one."""
    if Path(*name.split(".")).with_suffix(".py").is_file() or Path(*name.split(".")).is_dir():
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _loaded(place: str) -> ModuleType:
    if is_file(place):
        _check_file(Path(place).expanduser())
    try:
        return load_module_at(place)
    except FailingScript as error:
        raise _broken(place, error.user_exc) from error
    except ModuleNotFoundError:
        file = Path(f"{place}.py")
        hint = f"Did you mean '{file}'?" if file.is_file() else "Give a file as path/file.py:flow."
        raise ScriptError(f"There is no module '{place}'.", hint, code=ExitCode.NOT_FOUND) from None


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        near = nearest(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise ScriptError(f"{path} is {what}.", near, code=ExitCode.NOT_FOUND)
    if path.suffix != ".py":
        raise ScriptError(f"{path} is not a Python file.", code=ExitCode.USAGE)


def _broken(place: str, error: Exception) -> ScriptError:
    """The error for code of the user that fails while it is loaded, with the user's own frames."""
    brief = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    shown = "".join(traceback.format_list(frames))
    if isinstance(error, SyntaxError):
        shown += "".join(traceback.format_exception_only(error)[:-1])
    return ScriptError(f"{place} cannot be loaded: {brief}", detail=shown)


def _is_ours(filename: str) -> bool:
    return (
        filename.startswith(("<frozen importlib", str(Path(__file__).parent)))
        or filename == entrypoints.__file__
        or os.sep + "importlib" in filename
    )


def _named_flow(module: ModuleType, place: str, name: str) -> Flow[..., Any]:

    flows = flows_of(module)
    by_name: Mapping[str, Flow[..., Any]] = {flow.name: flow for flow in flows.values()} | flows
    if name in by_name:
        return by_name[name]
    value = getattr(module, name, None)
    if value is not None:
        kind = type(value).__name__.lower()
        raise ScriptError(
            f"'{name}' in {place} is a {kind}, not a flow.", _listed(flows), code=ExitCode.USAGE
        )
    raise ScriptError(
        f"There is no flow '{name}' in {place}.",
        nearest(name, by_name) or _listed(flows),
        code=ExitCode.NOT_FOUND,
    )


def _only_flow(module: ModuleType, place: str) -> Flow[..., Any]:
    flows = flows_of(module)
    own = {name: flow for name, flow in flows.items() if flow.fn.__module__ == module.__name__} or flows
    if len(own) != 1:
        many = "more than one flow" if own else "no flow"
        raise ScriptError(f"There is {many} in {place}.", _listed(own), code=ExitCode.USAGE)
    return next(iter(own.values()))


def _listed(flows: Mapping[str, object]) -> str:
    if not flows:
        return "A flow is a function under @flow."
    return f"Name one of its flows: {', '.join(flows)}."
