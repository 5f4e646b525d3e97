"""Whether something is a JSON Schema that values can be checked against, and in bounded time.

A schema comes from outside: its keywords may hold anything, its references may lead nowhere, out of the
schema, or in a circle that no value can get out of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from headrace_services.domain.json_schema import Fault, target_of

__all__ = ["ParsedSchema", "parse_schema", "schema_faults"]

_DEPTH_MAX: Final = 64
_NODES_MAX: Final = 20_000

_SCHEMAS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Objects of schemas."""
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Lists of schemas."""
_SINGLE: Final = frozenset(
    {"items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else"}
)
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf")
"""What applies to the same value, as a reference does."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))


_KEYWORDS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(_SCHEMAS, (lambda v: isinstance(v, dict), "an object of schemas")),
    **dict.fromkeys(_LISTS, (lambda v: isinstance(v, list), "a list of schemas")),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        (_is_count, "a whole number from 0"),
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    "multipleOf": (lambda v: _is_number(v) and v > 0, "a number above 0"),
    "required": (_are_texts, "a list of names"),
    "enum": (lambda v: isinstance(v, list), "a list"),
    "pattern": (lambda v: isinstance(v, str), "text"),
    "format": (lambda v: isinstance(v, str), "text"),
    "$ref": (lambda v: isinstance(v, str), "text"),
    "type": (lambda v: isinstance(v, str) or _are_texts(v), "the name of a type, or a list of them"),
}


def schema_faults(schema: object) -> list[Fault]:
    """What is wrong with the schema; nothing when values can be checked against it."""
    return _Walk(schema).faults()


class _Walk:
    def __init__(self, root: object) -> None:
        self._root = root
        self._nodes = 0

    def faults(self) -> list[Fault]:
        found = list(self._visit(self._root, "", 0))
        return found or list(self._circles())

    def _visit(self, schema: object, path: str, depth: int) -> Iterator[Fault]:
        self._nodes += 1
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            yield Fault(path, "must be a schema: an object, or true or false")
            return
        if depth > _DEPTH_MAX or self._nodes > _NODES_MAX:
            yield Fault(path, "is nested too deep, or too large")
            return
        rules = cast("dict[str, Any]", schema)
        wrong = [Fault(_under(path, name), f"must be {words}") for name, words in _misused(rules)]
        yield from wrong
        if not wrong:
            yield from self._reference(rules, path)
            for name, inner in _inner(rules):
                yield from self._visit(inner, _under(path, name), depth + 1)

    def _reference(self, rules: Mapping[str, Any], path: str) -> Iterator[Fault]:
        reference = rules.get("$ref")
        if reference is None:
            return
        if not reference.startswith("#"):
            yield Fault(_under(path, "$ref"), f"points outside of the schema: {reference}")
        elif target_of(self._root, reference) is None:
            yield Fault(_under(path, "$ref"), f"points at nothing: {reference}")

    def _circles(self) -> Iterator[Fault]:
        """References that lead back to where they stand without going into the value."""
        done: set[int] = set()

        def follow(schema: object, open: set[int]) -> bool:
            """Whether following it in place comes back to one that is open."""
            if not isinstance(schema, dict):
                return False
            rules = cast("dict[str, Any]", schema)
            if id(rules) in done or id(rules) in open:
                return id(rules) in open
            inside = open | {id(rules)}
            if len(inside) > _DEPTH_MAX or any(follow(s, inside) for s in self._in_place(rules)):
                return True
            done.add(id(rules))
            return False

        for path, schema in self._with_references(self._root, ""):
            if follow(schema, set()):
                yield Fault(_under(path, "$ref"), "leads back to itself: the schema is circular")
                return

    def _in_place(self, rules: Mapping[str, Any]) -> Iterator[object]:
        if "$ref" in rules:
            yield target_of(self._root, rules["$ref"])
        for name in _IN_PLACE:
            yield from rules.get(name, ())
        for name in ("not", "if", "then", "else"):
            yield rules.get(name)

    def _with_references(self, schema: object, path: str) -> Iterator[tuple[str, object]]:
        if not isinstance(schema, dict):
            return
        rules = cast("dict[str, Any]", schema)
        if "$ref" in rules:
            yield path, rules
        for name, inner in _inner(rules):
            yield from self._with_references(inner, _under(path, name))


def _misused(rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in rules.items():
        fits, words = _KEYWORDS.get(name, (None, ""))
        if fits is not None and not fits(value):
            yield name, words


def _inner(rules: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The schemas directly within a schema, and where they stand."""
    for name, value in rules.items():
        if name in _SINGLE:
            yield name, value
        elif name in _SCHEMAS:
            for key, inner in value.items():
                yield f"{name}.{key}", inner
        elif name in _LISTS:
            for index, inner in enumerate(value):
                yield f"{name}[{index}]", inner


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class ParsedSchema(NamedTuple):
    """A schema that was read once.

    Attributes:
        schema: an object; not to be changed.
        faults: what is wrong with it; then it must not be used.
    """

    schema: dict[str, Any]
    faults: tuple[Fault, ...]


@lru_cache(maxsize=512)
def parse_schema(text: str) -> ParsedSchema:
    """The schema of JSON text; empty text is one that takes everything."""
    try:
        schema = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return ParsedSchema({}, (Fault("", "must be JSON"),))
    if not isinstance(schema, dict):
        return ParsedSchema({}, (Fault("", "must be a JSON object"),))
    found = cast("dict[str, Any]", schema)
    return ParsedSchema(found, tuple(schema_faults(found)))
