"""Parameters of a flow from the command line."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from headrace.cli.failures import CliError, ExitCode, nearest

if TYPE_CHECKING:
    from headrace.flows import Flow

__all__ = ["check_parameters", "read_parameters"]


def read_parameters(assignments: Sequence[str], document: str | None) -> dict[str, Any]:
    """The values of `-p NAME=VALUE`, over those of `--params`.

    A value is what it says as JSON, or its text if it is not JSON: `1` is a number, `01` and `"1"` are texts.

    Args:
        assignments: each of the form NAME=VALUE.
        document: a JSON object; "-" reads it from stdin.

    Raises:
        CliError: one is not of that form.
    """
    values: dict[str, Any] = {}
    if document is not None:
        text = sys.stdin.read() if document == "-" else document
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise CliError(f"--params is not JSON: {error}.", code=ExitCode.USAGE) from None
        if not isinstance(parsed, dict):
            raise CliError('--params must be a JSON object, such as {"name": "value"}.', code=ExitCode.USAGE)
        values.update(cast("dict[str, Any]", parsed))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise CliError(f"'{assignment}' is not of the form NAME=VALUE.", code=ExitCode.USAGE)
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def check_parameters(flow: Flow[..., Any], given: dict[str, Any]) -> None:
    """See that `given` fits the flow's signature and annotations.

    Raises:
        CliError: with a line for each parameter that does not fit.
    """
    signature = inspect.signature(flow.fn)
    problems = [*_unknown(signature, given), *_missing(signature, given)]
    if not problems:
        problems = list(_mistyped(flow, given))
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CliError(f"The parameters do not fit flow '{flow.name}':{lines}", code=ExitCode.USAGE)


def _unknown(signature: inspect.Signature, given: dict[str, Any]) -> list[str]:
    kinds = {p.kind for p in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return []
    known = list(signature.parameters)
    has = f"It has: {', '.join(known)}." if known else "The flow has no parameters."
    return [
        f"{name}: there is no such parameter. {nearest(name, known) or has}"
        for name in given
        if name not in known
    ]


def _missing(signature: inspect.Signature, given: dict[str, Any]) -> list[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        f"{name}: a value is needed. Give -p {name}=VALUE."
        for name, p in signature.parameters.items()
        if p.default is inspect.Parameter.empty and p.kind not in variadic and name not in given
    ]


def _mistyped(flow: Flow[..., Any], given: dict[str, Any]) -> list[str]:
    from headrace.exceptions import ParameterTypeError

    if not flow.should_validate_parameters:
        return []
    try:
        flow.validate_parameters(flow.binder.bind((), given))
    except ParameterTypeError as error:
        # Its message is a heading, then one line for each field.
        return [line.removeprefix(" - ") for line in str(error).splitlines()[1:]]
    return []
