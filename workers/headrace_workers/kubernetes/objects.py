"""Reading what Kubernetes answers: JSON objects in which much may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

__all__ = ["Object", "part", "parts"]

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object, or a part of one."""


def part(item: object, *path: str) -> Object:
    """The object at a path of keys; an empty one if there is none."""
    for key in path:
        item = cast("Mapping[str, object]", item).get(key) if isinstance(item, Mapping) else None
    return cast("Object", item) if isinstance(item, dict) else {}


def parts(item: object, *path: str) -> list[Object]:
    """The list of objects at a path of keys; an empty one if there is none."""
    *above, last = path
    found: object = part(item, *above).get(last)
    return cast("list[Object]", found) if isinstance(found, list) else []
