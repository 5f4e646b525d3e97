"""A list of steps, run one after the other.

A step is a mapping with one key, the name of a function; the value holds its keyword arguments, besides
`id`, which names its outputs, and `requires`, packages that are installed when the function cannot be
imported. What a step returns can be used by the steps after it.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from typing import Any, Final, cast

import anyio

from headrace.core.errors import HeadraceException
from headrace.deployments.templating import MISSING, Lookup, environment, outputs, resolve

__all__ = ["StepExecutionError", "parse_step", "run_step", "run_steps"]

_RESERVED: Final = ("id", "requires")
_HOME: Final = "headrace.deployments.steps"
# A file that was written for the peer names its steps so.
_FOREIGN: Final = (
    "prefect.deployments.steps",
    "prefect.projects.steps",
    "prefect_docker.deployments.steps",
    "prefect_docker.projects.steps",
)


class StepExecutionError(HeadraceException):
    """A step failed; the ones after it were not run."""


def parse_step(step: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a step's function and its arguments, `id` and `requires` among them.

    Raises:
        ValueError: the step is not a mapping with one key.
    """
    if len(step) != 1:
        raise ValueError(
            f"A step has one key, the name of its function; this one has {len(step)}: {', '.join(step)}. "
            "Put each step into an item of its own."
        )
    [(name, arguments)] = step.items()
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ValueError(f"The step {name} takes names and values, not {arguments!r}.")
    return name, dict(cast("Mapping[str, Any]", arguments or {}))


async def run_steps(
    steps: Sequence[Mapping[str, Any]],
    upstream: Mapping[str, Any] | None = None,
    *,
    lookups: Sequence[Lookup] = (),
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Run the steps in their order.

    Args:
        steps: each a mapping with one key.
        upstream: outputs of steps that ran before.
        lookups: asked for placeholders after the outputs and before the environment.
        report: told the name of each step before it runs.

    Returns:
        All outputs, by their names and, for a step with an `id`, under that too.

    Raises:
        StepExecutionError: a step is malformed, is not there, or failed.
    """
    known = dict(upstream or {})
    for step in steps:
        try:
            name, arguments = parse_step(step)
        except ValueError as error:
            raise StepExecutionError(str(error)) from None
        if report is not None:
            report(name)
        result = await run_step(step, known, lookups=lookups)
        known.update(result)
        if arguments.get("id"):
            known[str(arguments["id"])] = result
    return known


async def run_step(
    step: Mapping[str, Any], upstream: Mapping[str, Any] | None = None, *, lookups: Sequence[Lookup] = ()
) -> dict[str, Any]:
    """Run one step; see `run_steps`.

    Raises:
        StepExecutionError: the step is malformed, is not there, or failed.
    """
    try:
        name, arguments = parse_step(step)
        function = await _function(name, arguments.get("requires"))
        filled = resolve(
            {key: value for key, value in arguments.items() if key not in _RESERVED},
            *(outputs(upstream or {}), *lookups, environment(os.environ)),
        )
        inspect.signature(function).bind(**filled)
    except (ValueError, TypeError, ImportError) as error:
        raise StepExecutionError(f"The step {', '.join(step)} cannot be run: {error}") from error
    try:
        result = function(**filled)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        raise StepExecutionError(f"The step {name} failed: {error}") from error
    if result is None:
        return {}
    if not isinstance(result, Mapping):
        raise StepExecutionError(
            f"The step {name} returned a {type(result).__name__}; a step returns a mapping or nothing."
        )
    return {key: value for key, value in cast("Mapping[str, Any]", result).items() if value is not MISSING}


async def _function(name: str, requires: str | Sequence[str] | None) -> Callable[..., Any]:
    """The function a step names, after installing what it requires when it cannot be imported."""
    try:
        return _import(name)
    except ImportError:
        if not requires:
            raise
    packages = [requires] if isinstance(requires, str) else list(requires)
    installed = await anyio.run_process(
        [sys.executable, "-m", "pip", "install", "--quiet", *packages], check=False
    )
    if installed.returncode:
        text = installed.stderr.decode(errors="replace").strip()
        raise ImportError(f"{shlex.join(packages)} could not be installed: {text}")
    invalidate_caches()
    return _import(name)


def _import(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.rpartition(".")
    for foreign in _FOREIGN:
        if module_name == foreign or module_name.startswith(f"{foreign}."):
            module_name = _HOME
    module = import_module(module_name or _HOME)
    found = getattr(module, attribute, None)
    if not callable(found):
        near = get_close_matches(attribute, getattr(module, "__all__", dir(module)), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ImportError(f"{module.__name__} has no step {attribute}.{hint}")
    return cast("Callable[..., Any]", found)
