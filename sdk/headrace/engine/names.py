"""Names of runs, from templates and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.engine.api import Ops

__all__ = ["run_name"]


async def run_name(
    ops: Ops, option: str, template: str | Callable[..., Any], parameters: Mapping[str, Any]
) -> str:
    """The name of a run.

    Args:
        ops: calls a function.
        option: name of the option that `template` comes from.
        template: a format string over the parameters, or a function that gives the name; it is given the
            parameters if it has a parameter called `parameters`.
        parameters: the arguments of the run.

    Raises:
        KeyError: the template names a parameter that there is none of.
        TypeError: the function gave something else than a string.
    """
    if isinstance(template, str):
        return template.format(**parameters)
    if "parameters" in inspect.signature(template).parameters:
        name = await ops.call(template, parameters=dict(parameters))
    else:
        name = await ops.call(template)
    if not isinstance(name, str):
        raise TypeError(
            f"Callable {template} for '{option}' returned type {type(name).__name__}; a string is required."
        )
    return name
