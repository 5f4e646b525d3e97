"""Schemas from outside: refused in words, and never followed for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_services.domain.json_schema import faults
from headrace_services.domain.run_parameters import (
    hydrated,
    job_variable_violations,
    parameter_violations,
)
from headrace_services.domain.schema_checks import parse_schema, schema_faults

TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            }
        }
    },
}

SOUND: list[Any] = [
    {},
    True,
    {"type": ["string", "null"], "maxLength": 3},
    {"properties": {"a": {"const": {"$ref": 1}}}},
    {"additionalProperties": False, "if": {"required": ["a"]}, "then": True, "else": False},
    TREE,
]


@pytest.mark.parametrize("schema", SOUND, ids=str)
def test_sound_schemas(schema: Any) -> None:
    assert schema_faults(schema) == []


def deep(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


UNSOUND: list[tuple[Any, str, str]] = [
    (3, "", "must be a schema"),
    ({"properties": {"a": 3}}, "properties.a", "must be a schema"),
    ({"properties": ["a"]}, "properties", "an object of schemas"),
    ({"anyOf": {}}, "anyOf", "a list of schemas"),
    ({"items": [1]}, "items", "must be a schema"),
    ({"minimum": "1"}, "minimum", "a number"),
    ({"minLength": -1}, "minLength", "a whole number from 0"),
    ({"multipleOf": 0}, "multipleOf", "above 0"),
    ({"required": "a"}, "required", "a list of names"),
    ({"enum": "a"}, "enum", "a list"),
    ({"pattern": 1}, "pattern", "text"),
    ({"type": 1}, "type", "the name of a type"),
    ({"$ref": "#/$defs/none"}, "$ref", "points at nothing"),
    ({"$ref": "file:///etc/passwd"}, "$ref", "outside of the schema"),
    ({"$ref": "#"}, "$ref", "circular"),
    ({"properties": {"a": {"$ref": "#/properties/a"}}}, "properties.a.$ref", "circular"),
    (
        {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"allOf": [{"$ref": "#/$defs/A"}]}}},
        "$defs.A.$ref",
        "circular",
    ),
    ({"$defs": {"A": {"not": {"$ref": "#/$defs/A"}}}}, "$defs.A.not.$ref", "circular"),
    (deep(100), ".".join(["items"] * 65), "nested too deep"),
]


@pytest.mark.parametrize(("schema", "path", "reason"), UNSOUND)
def test_unsound_schemas(schema: Any, path: str, reason: str) -> None:
    fault = schema_faults(schema)[0]
    assert fault.path == path
    assert reason in fault.reason


def test_a_schema_of_trees_checks_trees() -> None:
    value: Any = {"value": 1, "next": {"value": 2, "next": None}, "children": [{"value": "x"}]}
    assert [(fault.path, fault.reason) for fault in faults(value, TREE)] == [
        ("children[0].value", "must be a whole number")
    ]


def test_a_schema_is_read_once() -> None:
    text = '{"type": "object"}'
    assert parse_schema(text) is parse_schema(text)
    assert parse_schema("").schema == {}
    assert parse_schema("[" * 100_000).faults[0].reason == "must be JSON"
    assert parse_schema("[]").faults[0].reason == "must be a JSON object"


# Parameters

TWO = json.dumps({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]})
EXTRA = json.dumps({"properties": {}, "additionalProperties": {"type": "integer"}})

PARAMETERS: list[tuple[dict[str, Any], str, bool, list[str]]] = [
    ({"a": 1}, TWO, True, []),
    ({}, TWO, True, ["parameters.a"]),
    ({}, TWO, False, []),
    ({"a": "1"}, TWO, False, ["parameters.a"]),
    ({"a": 1, "c": 2}, TWO, True, ["parameters.c"]),
    ({"anything": 1}, "", True, []),
    ({"anything": 1}, "{}", True, []),
    ({"x": 1, "y": "2"}, EXTRA, True, ["parameters.y"]),
    ({"a": {"$ref": {"block_document_id": "1"}}}, TWO, True, []),
    ({"a": 1, "self": 1}, json.dumps({"properties": {"a": {}, "self": {}}}), True, []),
]


@pytest.mark.parametrize(("parameters", "schema", "complete", "fields"), PARAMETERS)
def test_parameters_against_their_schema(
    parameters: dict[str, Any], schema: str, complete: bool, fields: list[str]
) -> None:
    found = parameter_violations(parameters, schema, complete=complete)
    assert [violation.field for violation in found] == fields


HYDRATED: list[tuple[Any, Any]] = [
    (3, 3),
    ({"a": [{"__prefect_kind": "json", "value": "[1, 2]"}]}, {"a": [[1, 2]]}),
    ({"__headrace_kind": "json", "value": '{"__headrace_kind": "none", "value": 1}'}, 1),
    ({"__prefect_kind": None, "value": {"x": 1}}, {"x": 1}),
    ({"kind": "json", "value": "1"}, {"kind": "json", "value": "1"}),
]


@pytest.mark.parametrize(("value", "filled"), HYDRATED)
def test_values_that_are_described(value: Any, filled: Any) -> None:
    assert hydrated(value, "parameters") == filled


# Job variables

TEMPLATE: dict[str, Any] = {
    "job_configuration": {},
    "variables": {
        "properties": {"env": {"type": "object"}, "cpu": {"type": "integer"}, "image": {"type": "string"}},
        "required": ["image"],
    },
}

VARIABLES: list[tuple[list[dict[str, Any]], bool, list[str]]] = [
    ([{}], False, []),
    ([{}], True, ["job_variables.image"]),
    ([{"image": "i"}, {}], True, []),
    ([{"cpu": "1"}], False, ["job_variables.cpu"]),
    ([{"cpu": "{{ ctx.flow_run.id }}"}], False, []),
    ([{"env.A": 1}], False, []),
    ([{"environ.A": 1}], False, ["job_variables.environ"]),
    # What the deployment says was checked when it was applied.
    ([{"old": 1, "image": "i"}, {"new": 1}], True, ["job_variables.new"]),
]


@pytest.mark.parametrize(("layers", "complete", "fields"), VARIABLES)
def test_job_variables_against_their_template(
    layers: list[dict[str, Any]], complete: bool, fields: list[str]
) -> None:
    found = job_variable_violations(TEMPLATE, layers, complete=complete)
    assert [violation.field for violation in found] == fields
