"""Whether a JSON value fits a JSON Schema (2020-12): what pydantic writes, and what people write by hand.

A keyword that is not known here is not checked, as the standard says; `format` is checked for the instants,
ids and addresses that forms offer. References are followed within the schema only.

A check ends in bounded time, whatever schema and value are: after `_STEPS_MAX` steps it gives up and says
so, and a `pattern` that may take long is left to whoever uses the value.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from typing import Any, Final, NamedTuple, cast

__all__ = ["ANYTHING", "Fault", "faults", "target_of"]

ANYTHING: Final = object()
"""A value, or a part of one, that is known only later: it fits."""
_DEPTH_MAX: Final = 64
_STEPS_MAX: Final = 50_000
_PATTERN_TEXT_MAX: Final = 256


class Fault(NamedTuple):
    """What does not fit.

    Attributes:
        path: where, e.g. `address.lines[2]`; empty for the value as a whole.
        reason: what is wrong, as a clause that follows the path.
    """

    path: str
    reason: str


def faults(value: object, schema: object) -> Iterator[Fault]:
    """Everything in `value` that does not fit `schema`; nothing when it fits."""
    return _Check(schema).run(value, schema, "", 0)


_Schema = Mapping[str, Any]


class _Check:
    """One check: keeps the root that references point into."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0

    def run(self, value: object, schema: object, path: str, depth: int) -> Iterator[Fault]:
        self._steps += 1
        if value is ANYTHING or schema is True or (isinstance(schema, Mapping) and not schema):
            return
        if schema is False:
            yield Fault(path, "is not allowed")
            return
        if not isinstance(schema, Mapping) or depth > _DEPTH_MAX or self._steps > _STEPS_MAX:
            yield Fault(path, "cannot be checked: the schema is not valid, or too involved")
            return
        rules = cast("_Schema", schema)
        if "$ref" in rules:
            yield from self.run(value, target_of(self._root, rules["$ref"]), path, depth + 1)
        fault = _type_fault(value, rules)
        if fault is not None:
            yield Fault(path, fault)
            return
        yield from (Fault(path, reason) for reason in _plain_faults(value, rules))
        yield from self._combined(value, rules, path, depth)
        if isinstance(value, dict):
            yield from self._object(cast("dict[str, Any]", value), rules, path, depth)
        elif isinstance(value, list):
            yield from self._array(cast("list[Any]", value), rules, path, depth)

    def _object(self, value: dict[str, Any], rules: _Schema, path: str, depth: int) -> Iterator[Fault]:
        properties: _Schema = rules.get("properties") or {}
        patterns: _Schema = rules.get("patternProperties") or {}
        for name in rules.get("required") or ():
            if name not in value:
                yield Fault(_under(path, name), "is required")
        for name, item in value.items():
            place = _under(path, name)
            matched = [schema for pattern, schema in patterns.items() if _matches(pattern, name)]
            if name in properties:
                matched.append(properties[name])
            for schema in matched:
                yield from self.run(item, schema, place, depth + 1)
            if not matched and "additionalProperties" in rules:
                extra = rules["additionalProperties"]
                if extra is False:
                    yield Fault(place, "is not one of the fields")
                else:
                    yield from self.run(item, extra, place, depth + 1)
            if "propertyNames" in rules:
                yield from self.run(name, rules["propertyNames"], place, depth + 1)

    def _array(self, value: list[Any], rules: _Schema, path: str, depth: int) -> Iterator[Fault]:
        prefix: list[Any] = rules.get("prefixItems") or []
        for index, item in enumerate(value):
            schema = prefix[index] if index < len(prefix) else rules.get("items", True)
            yield from self.run(item, schema, f"{path}[{index}]", depth + 1)
        if "contains" in rules and not any(self._fits(item, rules["contains"], depth) for item in value):
            yield Fault(path, "has no item of the kind that it must contain")

    def _combined(self, value: object, rules: _Schema, path: str, depth: int) -> Iterator[Fault]:
        for schema in rules.get("allOf") or ():
            yield from self.run(value, schema, path, depth + 1)
        if "anyOf" in rules and not any(self._fits(value, s, depth) for s in rules["anyOf"]):
            yield from self._best(value, rules["anyOf"], path, depth)
        if "oneOf" in rules:
            fitting = sum(self._fits(value, schema, depth) for schema in rules["oneOf"])
            if fitting == 0:
                yield from self._best(value, rules["oneOf"], path, depth)
            elif fitting > 1:
                yield Fault(path, "fits more than one of the alternatives")
        if "not" in rules and self._fits(value, rules["not"], depth):
            yield Fault(path, "is of a kind that is not allowed")
        if "if" in rules:
            branch = "then" if self._fits(value, rules["if"], depth) else "else"
            yield from self.run(value, rules.get(branch, True), path, depth + 1)

    def _fits(self, value: object, schema: object, depth: int) -> bool:
        return next(self.run(value, schema, "", depth + 1), None) is None

    def _best(self, value: object, schemas: list[Any], path: str, depth: int) -> Iterator[Fault]:
        """The faults in the one alternative that may have been meant; else that none fits."""
        tried = [list(self.run(value, schema, path, depth + 1)) for schema in schemas]
        inner = [found for found in tried if all(fault.path != path for fault in found)]
        if len(inner) == 1:
            yield from inner[0]
            return
        reasons = list(dict.fromkeys(fault.reason for found in tried for fault in found[:1]))
        yield Fault(path, " or ".join(reasons) or "fits none of the alternatives")


def target_of(root: object, reference: object) -> object:
    """What a reference such as `#/$defs/Address` points at within the schema `root`; None: nothing."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if name:
            found = cast("_Schema", found).get(name) if isinstance(found, Mapping) else None
    return found


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# Types

_TYPES: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "null": ("null", lambda v: v is None),
    "boolean": ("true or false", lambda v: isinstance(v, bool)),
    "integer": (
        "a whole number",
        lambda v: not isinstance(v, bool) and (isinstance(v, int) or (_is_number(v) and v.is_integer())),
    ),
    "number": ("a number", lambda v: _is_number(v)),
    "string": ("text", lambda v: isinstance(v, str)),
    "array": ("a list", lambda v: isinstance(v, list)),
    "object": ("an object", lambda v: isinstance(v, dict)),
}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _type_fault(value: object, rules: _Schema) -> str | None:
    named = rules.get("type")
    if named is None:
        return None
    names: list[str] = [named] if isinstance(named, str) else list(named)
    known = [_TYPES[name] for name in names if name in _TYPES]
    if not known or any(is_of(value) for _, is_of in known):
        return None
    return f"must be {' or '.join(words for words, _ in known)}"


# What a keyword says of a value by itself


def _plain_faults(value: object, rules: _Schema) -> Iterator[str]:
    if "const" in rules and not _equal(value, rules["const"]):
        yield f"must be {rules['const']!r}"
    if "enum" in rules and not any(_equal(value, allowed) for allowed in rules["enum"]):
        yield f"must be one of {', '.join(map(repr, rules['enum']))}"
    if isinstance(value, str):
        yield from _text_faults(value, rules)
    elif _is_number(value):
        yield from _number_faults(cast("float", value), rules)
    elif isinstance(value, (list, dict)):
        yield from _size_faults(cast("list[Any] | dict[str, Any]", value), rules)


def _equal(one: object, other: object) -> bool:
    """Equality as in JSON: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def _text_faults(value: str, rules: _Schema) -> Iterator[str]:
    if len(value) < rules.get("minLength", 0):
        yield f"must have at least {rules['minLength']} characters"
    if len(value) > rules.get("maxLength", math.inf):
        yield f"must have at most {rules['maxLength']} characters"
    if "pattern" in rules and not _matches(rules["pattern"], value):
        yield f"must match {rules['pattern']}"
    check = _FORMATS.get(rules.get("format", ""))
    if check is not None and not _parses(check, value):
        yield f"must be a {rules['format']}"


def _number_faults(value: float, rules: _Schema) -> Iterator[str]:
    if value < rules.get("minimum", -math.inf):
        yield f"must be at least {rules['minimum']}"
    if value > rules.get("maximum", math.inf):
        yield f"must be at most {rules['maximum']}"
    if value <= rules.get("exclusiveMinimum", -math.inf):
        yield f"must be more than {rules['exclusiveMinimum']}"
    if value >= rules.get("exclusiveMaximum", math.inf):
        yield f"must be less than {rules['exclusiveMaximum']}"
    step = rules.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield f"must be a multiple of {step}"


def _size_faults(value: list[Any] | dict[str, Any], rules: _Schema) -> Iterator[str]:
    is_list = isinstance(value, list)
    least, most = ("minItems", "maxItems") if is_list else ("minProperties", "maxProperties")
    what = "items" if is_list else "fields"
    if len(value) < rules.get(least, 0):
        yield f"must have at least {rules[least]} {what}"
    if len(value) > rules.get(most, math.inf):
        yield f"must have at most {rules[most]} {what}"
    if isinstance(value, list) and rules.get("uniqueItems") and _repeats(value):
        yield "must not have an item twice"


def _repeats(items: list[Any]) -> bool:
    return len({json.dumps(item, sort_keys=True, default=id) for item in items}) < len(items)


_REPEATED_GROUP: Final = re.compile(r"\)[*+{]|\\\d")


def _matches(pattern: str, value: str) -> bool:
    if len(value) > _PATTERN_TEXT_MAX or _REPEATED_GROUP.search(pattern):
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # written for another dialect of regular expressions


# Formats

_FORMATS: Final[dict[str, Callable[[str], object]]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "time": time.fromisoformat,
    "uuid": uuid.UUID,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
}


def _parses(parse: Callable[[str], object], value: str) -> bool:
    try:
        parse(value)
    except ValueError:
        return False
    return True
