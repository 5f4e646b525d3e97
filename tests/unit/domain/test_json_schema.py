"""Values against JSON Schemas, as pydantic writes them and as people do."""

from __future__ import annotations

import datetime
import enum
import json
import time
import uuid
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from headrace_services.domain.json_schema import faults


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")
    street: str = Field(min_length=2)
    tags: list[str] = []


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: Annotated[int, Field(gt=0, le=10)]
    colour: Colour = Colour.RED
    address: Address | None = None
    day: datetime.date | None = None
    id: uuid.UUID | None = None
    pair: tuple[int, str] | None = None
    prices: dict[str, float] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None


ORDERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"count": 1}, []),
    ({"count": 1, "colour": "blue", "address": {"street": "Elm", "tags": ["a"]}}, []),
    ({"count": 1, "day": "2026-01-31", "id": str(uuid.UUID(int=7)), "pair": [1, "x"]}, []),
    ({"count": 1, "prices": {"a": 1.5}, "pet": {"kind": "dog", "name": "Rex"}}, []),
    ({}, ["count"]),
    ({"count": 0}, ["count"]),
    ({"count": 11}, ["count"]),
    ({"count": "many"}, ["count"]),
    ({"count": True}, ["count"]),
    ({"count": 1, "colour": "green"}, ["colour"]),
    ({"count": 1, "address": {"street": "E", "tags": [1]}}, ["address.street", "address.tags[0]"]),
    ({"count": 1, "address": {"street": "Elm", "town": "x"}}, ["address.town"]),
    ({"count": 1, "day": "31.1.2026"}, ["day"]),
    ({"count": 1, "id": "seven"}, ["id"]),
    ({"count": 1, "pair": ["x", "x"]}, ["pair[0]"]),
    ({"count": 1, "prices": {"a": "b"}}, ["prices.a"]),
    ({"count": 1, "pet": {"kind": "dog"}}, ["pet"]),
    ({"count": 1, "more": 2}, ["more"]),
]


@pytest.mark.parametrize(("value", "paths"), ORDERS, ids=[str(i) for i in range(len(ORDERS))])
def test_it_agrees_with_pydantic(value: dict[str, Any], paths: list[str]) -> None:
    found = [fault.path for fault in faults(value, Order.model_json_schema())]
    assert [path if not path.startswith("pet") else "pet" for path in found] == paths
    try:
        TypeAdapter(Order).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        assert paths
    else:
        assert not paths


def test_a_schema_that_refers_to_itself() -> None:
    schema = Tree.model_json_schema()
    assert list(faults({"value": 1, "children": [{"value": 2}]}, schema)) == []
    (fault,) = faults({"value": 1, "children": [{"value": 2, "children": [{"value": "3"}]}]}, schema)
    assert fault == ("children[0].children[0].value", "must be a whole number")


@pytest.mark.parametrize(
    ("value", "schema", "reason"),
    [
        (1, {"const": True}, "must be True"),
        (3, {"multipleOf": 2}, "must be a multiple of 2"),
        (3, {"exclusiveMaximum": 3}, "must be less than 3"),
        ("a", {"pattern": "^b"}, "must match ^b"),
        ("abc", {"maxLength": 2}, "must have at most 2 characters"),
        ([1, 1], {"uniqueItems": True}, "must not have an item twice"),
        ([1], {"minItems": 2}, "must have at least 2 items"),
        ({"a": 1, "b": 2}, {"maxProperties": 1}, "must have at most 1 fields"),
        ({"ab": 1}, {"patternProperties": {"^a": {"type": "string"}}}, "must be text"),
        ({"ab": 1}, {"propertyNames": {"maxLength": 1}}, "must have at most 1 characters"),
        ([1], {"contains": {"type": "string"}}, "has no item of the kind that it must contain"),
        (1, {"oneOf": [{"type": "integer"}, {"minimum": 0}]}, "fits more than one of the alternatives"),
        (1, {"not": {"type": "integer"}}, "is of a kind that is not allowed"),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, "must be text or must be null"),
        (1, {"if": {"minimum": 1}, "then": {"maximum": 0}}, "must be at most 0"),
        (1, False, "is not allowed"),
        (
            1,
            {"$ref": "https://elsewhere/schema"},
            "cannot be checked: the schema is not valid, or too involved",
        ),
        (1, {"type": ["string", "null"]}, "must be text or null"),
    ],
)
def test_one_keyword(value: object, schema: object, reason: str) -> None:
    assert [fault.reason for fault in faults(value, schema)] == [reason]


@pytest.mark.parametrize("schema", [{}, True, {"title": "x", "made-up": 1}, {"type": "made-up"}])
def test_what_is_not_known_is_not_checked(schema: object) -> None:
    assert list(faults({"a": [1]}, schema)) == []


def test_no_schema_keeps_the_server_busy() -> None:
    twice = {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}
    started = time.process_time()
    assert list(faults(1, {"$defs": {"A": twice}, "$ref": "#/$defs/A"}))
    assert list(faults("a" * 60 + "!", {"pattern": "^(a+)+$"})) == []
    assert time.process_time() - started < 5
