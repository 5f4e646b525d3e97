"""Environments of a project file: what differs from place to place, by name.

environments:
  prod:
    protected: true             # deployed only by who says --yes-to prod
    name_suffix: -prod          # nightly is called nightly-prod there
    work_pool: {name: prod}     # all else is merged over every deployment
    "+tags": [prod]             # appended to a list
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from headrace.core.errors import HeadraceException

__all__ = ["ProjectError", "in_environment", "is_protected", "long_form", "merge"]


class ProjectError(ValueError, HeadraceException):
    """The file is not there, is no YAML, or says something that has no meaning."""


def in_environment(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The content of a project file in one of its environments.

    Args:
        content: as it was read.
        name: of the environment.
        path: of the file, for messages.

    Raises:
        ProjectError: there is no such environment, or what it says has no meaning.
    """
    over = dict(_environment(content, name, path))
    suffix = over.pop("name_suffix", None) or ""
    over.pop("protected", None)
    if not isinstance(suffix, str):
        raise ProjectError(f"{path}: environments.{name}.name_suffix is a text.")
    deployments = cast("list[Any]", content.get("deployments") or [])
    try:
        over = long_form(over)
        merged = [merge(long_form(one), over) for one in deployments]
    except ValueError as error:
        raise ProjectError(f"{path}: {error}") from None
    if suffix:
        merged = [{**one, "name": f"{one['name']}{suffix}"} if one.get("name") else one for one in merged]
    return {**content, "deployments": merged}


def is_protected(content: Mapping[str, Any], name: str, path: Path) -> bool:
    """Whether the environment is deployed only by who says that it is meant.

    Args:
        content: of the file.
        name: of the environment.
        path: of the file, for messages.

    Raises:
        ProjectError: there is no such environment, or `protected` is neither true nor false.
    """
    said: object = _environment(content, name, path).get("protected", False)
    if not isinstance(said, bool):
        raise ProjectError(f"{path}: environments.{name}.protected is true or false.")
    return said


def _environment(content: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    known = cast("dict[str, Any]", content.get("environments") or {})
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]}?" if near else f" It has: {', '.join(known) or 'none'}."
        raise ProjectError(f"{path} has no environment {name}.{hint}")
    found: object = known[name] or {}
    if not isinstance(found, Mapping):
        raise ProjectError(f"{path}: environments.{name} holds keys and values, as a deployment does.")
    return cast("Mapping[str, Any]", found)


def merge(base: Any, over: Any) -> Any:
    """One value over another: mappings key by key, everything else whole; `+name` appends to a list, once."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    merged = dict(cast("Mapping[str, Any]", base))
    for key, value in cast("Mapping[str, Any]", over).items():
        if key.startswith("+"):
            there: object = merged.get(key[1:]) or []
            if not isinstance(there, list) or not isinstance(value, list):
                raise ProjectError(f"{key} appends to a list, and {key[1:]} or what it appends is none.")
            base_list, more = cast("list[Any]", there), cast("list[Any]", value)
            merged[key[1:]] = [*base_list, *(one for one in more if one not in base_list)]
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def long_form(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment with every shorthand written out.

    Raises:
        ValueError: it has `schedule` and `schedules`.
    """
    entry = dict(entry)
    if "schedule" in entry:
        if entry.get("schedules") is not None:
            raise ValueError("schedule and schedules exclude each other: use schedules")
        one = entry.pop("schedule")
        entry["schedules"] = [] if one is None else [one]
    for name, key in (("concurrency_limit", "limit"), ("work_pool", "name"), ("overlap", "mode")):
        if isinstance(entry.get(name), int | str):
            entry[name] = {key: entry[name]}
    if isinstance(entry.get("overlap"), dict):
        entry["overlap"]["mode"] = str(entry["overlap"].get("mode", "allow")).replace("-", "_")
    for name in ("parameters", "work_pool"):
        if entry.get(name, ...) is None:
            del entry[name]
    return entry
