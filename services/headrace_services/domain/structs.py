"""Objects of the wire, whose numbers are all floats."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["whole_numbers"]


def whole_numbers(value: Any) -> Any:
    """The value with floats that have no fraction as integers, as they were before they travelled."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [whole_numbers(item) for item in cast("list[Any]", value)]
    return value
