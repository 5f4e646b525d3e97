"""Placeholders in `headrace.yaml`, in steps and in job templates: `{{ name }}`.

A value that is nothing but one placeholder takes the type of what it stands for; within text the value is put
as text. What is missing goes: the whole key or item when the placeholder stands alone, nothing in its place
within text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from headrace.core.errors import HeadraceException

__all__ = [
    "KEEP",
    "MISSING",
    "Lookup",
    "Placeholder",
    "TemplateError",
    "environment",
    "find_placeholders",
    "kept",
    "outputs",
    "resolve",
]

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([\w.\-\[\]$]+)\s*\}\}")
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_log = logging.getLogger(__name__)


class TemplateError(ValueError, HeadraceException):
    """A placeholder that cannot be filled where it stands."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""What a lookup answers when there is nothing of that name."""
KEEP: Final = _Missing()
"""What a lookup answers when somebody else will fill the placeholder later."""

Lookup = Callable[[str], Any]
"""From a placeholder's name to its value, to MISSING, or to KEEP."""


class Placeholder(NamedTuple):
    """One placeholder as it was written.

    Attributes:
        text: all of it, braces included.
        name: what is between the braces.
    """

    text: str
    name: str


def find_placeholders(value: object) -> Iterator[Placeholder]:
    """Every placeholder in a value, however deep, keys of mappings included."""
    if isinstance(value, str):
        for match in _PLACEHOLDER.finditer(value):
            yield Placeholder(match[0], match[1])
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            yield from find_placeholders(key)
            yield from find_placeholders(item)
    elif isinstance(value, list | tuple):
        for item in cast("list[object]", value):
            yield from find_placeholders(item)


def resolve(value: Any, *lookups: Lookup) -> Any:
    """The value with every placeholder filled by the first lookup that knows it.

    Args:
        value: text, lists and mappings of it; anything else is taken as it is.
        lookups: asked in their order.

    Returns:
        A new value, or MISSING when `value` is one placeholder that nobody knows.

    Raises:
        TemplateError: a list or a mapping stands within text.
    """
    if isinstance(value, str):
        return _resolve_text(value, lookups)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        filled = {key: resolve(item, *lookups) for key, item in mapping.items()}
        return {key: item for key, item in filled.items() if item is not MISSING}
    if isinstance(value, list | tuple):
        items = [resolve(item, *lookups) for item in cast("list[Any]", value)]
        return [item for item in items if item is not MISSING]
    return value


def _resolve_text(text: str, lookups: tuple[Lookup, ...]) -> Any:
    alone = _PLACEHOLDER.fullmatch(text.strip())
    if alone is not None:
        found = _look_up(alone[1], lookups)
        return text if found is KEEP else found

    def fill(match: re.Match[str]) -> str:
        found = _look_up(match[1], lookups)
        if found is KEEP:
            return match[0]
        if found is MISSING:
            _log.warning("there is nothing for %s in %r: it is left out", match[0], text)
            return ""
        if isinstance(found, list | dict):
            raise TemplateError(
                f"{match[0]} is a {type(cast('object', found)).__name__} and cannot stand within text: "
                f"{text!r}. Let it stand alone, or name a part of it, e.g. {{{{ {match[1]}.name }}}}."
            )
        return "" if found is None else str(found)

    return _PLACEHOLDER.sub(fill, text)


def _look_up(name: str, lookups: tuple[Lookup, ...]) -> Any:
    for lookup in lookups:
        found = lookup(name)
        if found is not MISSING:
            return found
    return MISSING


def outputs(values: Mapping[str, Any]) -> Lookup:
    """Looks names up in what earlier steps have put out: `name`, `step-id.name`, `a.b[0].c`."""

    def look_up(name: str) -> Any:
        if name.startswith("$"):
            return MISSING
        if name in values:
            return values[name]
        found: Any = values
        for index, key in _STEP.findall(name):
            if index and isinstance(found, list | tuple):
                items = cast("list[Any]", found)
                found = items[int(index)] if int(index) < len(items) else MISSING
            elif key and isinstance(found, Mapping):
                found = cast("Mapping[str, Any]", found).get(key, MISSING)
            else:
                return MISSING
            if found is MISSING:
                return MISSING
        return found

    return look_up


def environment(variables: Mapping[str, str]) -> Lookup:
    """Looks `$NAME` up in environment variables."""
    return lambda name: variables.get(name[1:], MISSING) if name.startswith("$") else MISSING


def kept(*prefixes: str) -> Lookup:
    """Leaves placeholders of these beginnings for somebody else, e.g. `ctx.`."""
    return lambda name: KEEP if name.startswith(prefixes) else MISSING
