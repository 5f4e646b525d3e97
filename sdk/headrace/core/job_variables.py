"""From a pool's template and what deployment and run say about the job, to the job: pure functions.

Layers are merged from left to right, later ones win: the template's defaults, the deployment's job
variables, the run's. A value wins as a whole, except

- `env`, which is merged key by key, and in which null takes a variable away;
- what is named by a dotted key, such as `env.LEVEL` or `resources.limits.cpu`, which replaces that part
  of what the layers before it say. Within one layer a nested value wins over a dotted key.

Then the placeholders `{{ name }}` of the template's `job_configuration` are filled, by the rules of
`headrace.core.templating`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from headrace.core.templating import (
    MISSING,
    Lookup,
    TemplateError,
    find_placeholders,
    kept,
    outputs,
    resolve,
)

__all__ = [
    "Problem",
    "expand_dotted_keys",
    "has_placeholder",
    "job_configuration",
    "job_variables",
    "merge_job_variables",
    "template_defaults",
    "template_problems",
    "variable_schema",
]

Variables = Mapping[str, Any]

_STORED: Final = ("headrace.variables.", "headrace.blocks.", "prefect.variables.", "prefect.blocks.")
_CONTEXT: Final = "ctx"
ENV: Final = "env"
LABELS: Final = "labels"


class Problem(NamedTuple):
    """What is wrong with a template.

    Attributes:
        path: where, e.g. `job_configuration.image`; empty for the template as a whole.
        reason: what is wrong, as a clause that follows the path.
    """

    path: str
    reason: str


# The template


def variable_schema(template: Variables) -> dict[str, Any]:
    """The JSON Schema of the template's variables; of a template without one, one that takes none."""
    found = template.get("variables")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {"properties": {}}


def _properties(template: Variables) -> dict[str, Any]:
    found = variable_schema(template).get("properties")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def template_defaults(template: Variables) -> dict[str, Any]:
    """The defaults of the template's variables that are not null."""
    defaults = ((name, _mapping(schema).get("default")) for name, schema in _properties(template).items())
    return {name: copy.deepcopy(default) for name, default in defaults if default is not None}


def template_problems(template: object) -> list[Problem]:
    """What is wrong with a base job template; nothing when it is fine."""
    if not isinstance(template, dict):
        return [Problem("", "must be an object with `job_configuration` and `variables`")]
    whole = cast("dict[str, Any]", template)
    problems = [
        Problem(part, "must be an object")
        for part in ("job_configuration", "variables")
        if not isinstance(whole.get(part), dict)
    ]
    unknown = sorted(set(whole) - {"job_configuration", "variables"})
    problems += [Problem(name, "is no part of a template") for name in unknown]
    if problems:
        return problems
    if not isinstance(whole["variables"].get("properties", {}), dict):
        return [Problem("variables.properties", "must be an object")]
    known = set(_properties(whole))
    for path, name in _placeholders(whole["job_configuration"], "job_configuration"):
        root = name.split(".", 1)[0].split("[", 1)[0]
        if root not in known and root != _CONTEXT and not name.startswith((*_STORED, "$")):
            problems.append(Problem(path, f"uses '{root}', which is not one of the variables"))
    return problems


def _placeholders(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Where each placeholder stands, and its name."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield from _placeholders(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _placeholders(item, f"{path}[{index}]")
    else:
        for placeholder in find_placeholders(value):
            yield path, placeholder.name


def has_placeholder(value: object) -> bool:
    """Whether the value is text with a placeholder: its type is known only when that is filled."""
    return isinstance(value, str) and any(True for _ in find_placeholders(value))


# Layers


def _split(key: str) -> list[str]:
    """The parts of a dotted key; a name within `env` may have dots of its own."""
    if key.startswith(f"{ENV}."):
        return [ENV, key[len(ENV) + 1 :]]
    return key.split(".")


def expand_dotted_keys(layer: Variables) -> dict[str, Any]:
    """The layer with nested objects in place of dotted keys; what is nested already wins."""
    dotted: dict[str, Any] = {}
    for key, value in layer.items():
        parts = _split(key)
        if len(parts) > 1 and all(parts):
            place = dotted
            for part in parts[:-1]:
                inner = place.get(part)
                if not isinstance(inner, dict):
                    inner = place[part] = {}
                place = cast("dict[str, Any]", inner)
            place[parts[-1]] = copy.deepcopy(value)
    nested = {key: value for key, value in layer.items() if not _is_dotted(key)}
    return _deep_merged(dotted, nested)


def _is_dotted(key: str) -> bool:
    parts = _split(key)
    return len(parts) > 1 and all(parts)


def _deep_merged(under: Variables, over: Variables) -> dict[str, Any]:
    merged = {key: copy.deepcopy(value) for key, value in under.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _deep_merged(cast("Variables", below), cast("Variables", value))
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def merge_job_variables(*layers: Variables) -> dict[str, Any]:
    """The layers as one, later ones over earlier ones; none of them is changed."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in expand_dotted_keys(layer).items():
            below = merged.get(key)
            is_partial = key not in layer or key == ENV
            if is_partial and isinstance(below, dict) and isinstance(value, dict):
                deep = key not in layer and key != ENV
                under, over = cast("Variables", below), cast("Variables", value)
                merged[key] = _deep_merged(under, over) if deep else {**under, **over}
            else:
                merged[key] = value
    return merged


def job_variables(template: Variables, *layers: Variables) -> dict[str, Any]:
    """The template's defaults with the layers over them."""
    return merge_job_variables(template_defaults(template), *layers)


# The job


def job_configuration(
    template: Variables,
    *layers: Variables,
    context: Variables,
    default_command: str,
    base_env: Mapping[str, str] | None = None,
    base_labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The job that a worker starts.

    Args:
        template: the pool's.
        layers: job variables, the deployment's first.
        context: what `{{ ctx.… }}` names, e.g. `{"flow_run": {"name": "brisk-otter"}}`. The run's name is
            the job's when nobody names it.
        default_command: what starts the run when nobody says.
        base_env: environment variables under those of the layers.
        base_labels: labels under those of the layers.

    Returns:
        The template's `job_configuration`, filled. `env` has text only.

    Raises:
        TemplateError: something cannot be filled in.
    """
    configuration: object = template.get("job_configuration") or {}
    if not isinstance(configuration, dict):
        raise TemplateError("job_configuration: must be an object")
    job = cast("dict[str, Any]", configuration)
    about = outputs({_CONTEXT: context})
    variables: dict[str, Any] = resolve(job_variables(template, *layers), _only_context(about))
    variables[ENV] = _environment(base_env or {}, job.get(ENV), variables.get(ENV))
    variables[LABELS] = {**(base_labels or {}), **_texts(job.get(LABELS)), **_texts(variables.get(LABELS))}
    if not variables.get("name"):
        variables["name"] = about("ctx.flow_run.name")
    if not variables.get("command"):
        variables["command"] = default_command
    whole = {**job, ENV: "{{ env }}", LABELS: "{{ labels }}"}
    rendered: dict[str, Any] = resolve(whole, _nothing_stored, _copied(outputs(variables)), about)
    return rendered


def _environment(base: Variables, literal: object, given: object) -> dict[str, str]:
    merged = {**base, **_mapping(literal), **_mapping(given)}
    return {key: str(value) for key, value in merged.items() if value is not None}


def _texts(value: object) -> dict[str, str]:
    return {key: str(item) for key, item in _mapping(value).items() if item is not None}


def _mapping(value: object) -> Variables:
    return cast("Variables", value) if isinstance(value, dict) else {}


def _only_context(about: Lookup) -> Lookup:
    """Fills `{{ ctx.… }}`; other placeholders of a value stay as they are."""
    leave = kept("")
    return lambda name: about(name) if name.startswith(f"{_CONTEXT}.") else leave(name)


def _nothing_stored(name: str) -> Any:
    if name.startswith(_STORED):
        raise TemplateError(f"'{name}' names a variable or a block, and the server has none yet")
    return MISSING


def _copied(look_up: Lookup) -> Lookup:
    """What is put in two places is two values."""

    def copied(name: str) -> Any:
        found = look_up(name)
        return found if found is MISSING else copy.deepcopy(found)

    return copied
