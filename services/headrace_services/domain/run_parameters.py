"""Parameters and job variables of runs of deployments: filled in, merged, and checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from headrace.core.errors import FieldsInvalid, FieldViolation, ParametersInvalid
from headrace.core.job_variables import (
    expand_dotted_keys,
    has_placeholder,
    merge_job_variables,
    template_defaults,
    variable_schema,
)
from headrace_services.domain.json_schema import ANYTHING, Fault, faults
from headrace_services.domain.schema_checks import ParsedSchema, parse_schema

__all__ = ["hydrated", "invalid", "job_variable_violations", "json_object", "parameter_violations"]

_KINDS: Final = ("__headrace_kind", "__prefect_kind")
_DEPTH_MAX: Final = 64
_SHOWN: Final = 50


def json_object(text: str, field: str) -> dict[str, Any]:
    """The object of JSON text; empty text is an empty one.

    Raises:
        ParametersInvalid: it is none.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise _at(field, "must be JSON") from None
    if not isinstance(value, dict):
        raise _at(field, "must be a JSON object, with a value for each parameter")
    return cast("dict[str, Any]", value)


def _at(field: str, reason: str) -> ParametersInvalid:
    return ParametersInvalid(f"{field}: {reason}", violations=[FieldViolation(field, reason)])


def hydrated(value: Any, path: str, depth: int = 0) -> Any:
    """The value with what only describes one replaced by it: `{"__headrace_kind": "json", "value": "[1]"}`.

    Raises:
        ParametersInvalid: it describes nothing that can be had.
    """
    if depth > _DEPTH_MAX:
        raise _at(path, "is nested too deep")
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [hydrated(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(items)]
    if not isinstance(value, dict):
        return value
    said = cast("dict[str, Any]", value)
    mark = next((name for name in _KINDS if name in said), None)
    if mark is None:
        return {name: hydrated(item, f"{path}.{name}", depth + 1) for name, item in said.items()}
    return _described(said, said[mark], path, depth)


def _described(said: Mapping[str, Any], kind: object, path: str, depth: int) -> Any:
    if kind in (None, "none"):
        return hydrated(said.get("value"), path, depth + 1)
    if kind == "json":
        text = said.get("value")
        if not isinstance(text, str):
            raise _at(path, "is of kind 'json', whose 'value' is JSON text")
        try:
            return hydrated(json.loads(text), path, depth + 1)
        except (ValueError, RecursionError):
            raise _at(path, "is of kind 'json', and its 'value' is not JSON") from None
    if kind == "workspace_variable":
        raise _at(path, f"names the variable {said.get('variable_name')!r}, and the server has none")
    if kind == "jinja":
        raise _at(path, "is a template, which only automations can fill")
    raise _at(path, f"is of the unknown kind {kind!r}; kinds are 'json' and 'none'")


# Parameters


def parameter_violations(
    parameters: Mapping[str, Any], schema_text: str, *, complete: bool
) -> list[FieldViolation]:
    """What in the parameters does not fit the deployment's schema.

    Args:
        parameters: as a run gets them.
        schema_text: JSON Schema; empty: everything fits.
        complete: those that are required must be there.
    """
    parsed = parse_schema(schema_text)
    if parsed.faults:
        return [FieldViolation("parameter_schema", "cannot be used: " + parsed.faults[0].reason)]
    found = [*_unknown(parameters, parsed), *_unfitting(parameters, parsed, complete)]
    return [FieldViolation(_under("parameters", fault.path), fault.reason) for fault in found[:_SHOWN]]


def _unknown(parameters: Mapping[str, Any], parsed: ParsedSchema) -> Iterator[Fault]:
    """Names that the flow does not take."""
    properties = parsed.schema.get("properties")
    if properties is None or parsed.schema.get("additionalProperties", False) is not False:
        return
    for name in parameters:
        if name not in properties:
            yield Fault(name, "is no parameter of the flow" + _hint(name, properties))


def _hint(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; it takes {', '.join(known)}" if known else "; it takes none"


def _unfitting(parameters: Mapping[str, Any], parsed: ParsedSchema, complete: bool) -> Iterator[Fault]:
    schema = parsed.schema
    if not complete:
        schema = {key: value for key, value in schema.items() if key != "required"}
    # Names that the flow does not take are told already, in better words.
    takes_more = schema.get("additionalProperties", "properties" not in schema) is not False
    named: Mapping[str, Any] = schema.get("properties") or {}
    known = {name: _open(value) for name, value in parameters.items() if takes_more or name in named}
    yield from faults(known, schema)


def _open(value: Any) -> Any:
    """The value with what is looked up when the run starts taken for anything."""
    if isinstance(value, dict):
        said = cast("dict[str, Any]", value)
        if set(said) == {"$ref"} and isinstance(said["$ref"], dict):
            return ANYTHING  # a stored block
        return {name: _open(item) for name, item in said.items()}
    if isinstance(value, list):
        return [_open(item) for item in cast("list[Any]", value)]
    return value


# Job variables


def job_variable_violations(
    template: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], *, complete: bool
) -> list[FieldViolation]:
    """What in the job variables does not fit the pool's template.

    Args:
        template: of the pool.
        layers: the deployment's, then the run's; what is said is checked as it ends up.
        complete: those that are required must be there.
    """
    schema = variable_schema(template)
    properties: Mapping[str, Any] = schema.get("properties") or {}
    found = [
        Fault(name, "is no variable of the work pool" + _hint_of_pool(name, properties))
        for layer in layers[-1:]
        for name in expand_dotted_keys(layer)
        if name not in properties
    ]
    merged = merge_job_variables(template_defaults(template), *layers)
    known = {name: _unfilled(value) for name, value in merged.items() if name in properties}
    rules = schema if complete else {key: value for key, value in schema.items() if key != "required"}
    found += faults(known, rules)
    return [FieldViolation(_under("job_variables", fault.path), fault.reason) for fault in found[:_SHOWN]]


def _hint_of_pool(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(known) or 'none'}"


def _unfilled(value: Any) -> Any:
    """The value with placeholders taken for anything."""
    if has_placeholder(value):
        return ANYTHING
    if isinstance(value, dict):
        return {name: _unfilled(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_unfilled(item) for item in cast("list[Any]", value)]
    return value


def _under(root: str, path: str) -> str:
    return f"{root}.{path}" if path else root


def invalid(violations: Sequence[FieldViolation], *, parameters: bool = False) -> FieldsInvalid:
    """The error that tells of all of them."""
    message = "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
    if len(violations) > 3:
        message += f"; and {len(violations) - 3} more"
    cls = ParametersInvalid if parameters else FieldsInvalid
    return cls(message, violations=violations)
