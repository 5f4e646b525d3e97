"""Annotations of functions as types, and which of them need no pydantic to be checked."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["exact_types", "resolved_annotations"]

_EXACT: Final = (bool, bytes, float, int, str)
"""Types of which pydantic leaves every instance, though not of a subclass, as it is."""
_EMPTY: Final = inspect.Parameter.empty
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def resolved_annotations(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations with their forward references resolved, as far as they can be."""
    inner: Any = inspect.unwrap(fn)
    inner = getattr(inner, "func", inner)
    inner = inner if inspect.isroutine(inner) else getattr(inner, "__call__", inner)  # noqa: B004
    try:
        return typing.get_type_hints(inner, include_extras=True)
    except Exception:  # a name that exists only for type checkers, or anything that an annotation evaluates
        return {name: _resolved(inner, text) for name, text in getattr(inner, "__annotations__", {}).items()}


def _resolved(fn: Any, annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(fn, "__globals__", {}))  # noqa: S307 - the author's own annotation
    except Exception:  # see above
        return Any


def exact_types(fn: Callable[..., Any], signature: inspect.Signature) -> Mapping[str, type] | None:
    """The types of annotated parameters, if arguments of exactly these types are valid as they are.

    None when the annotation or the default of any parameter says more than that. Most flows take a few
    numbers and texts: their scripts need not wait until pydantic is imported.
    """
    annotations = resolved_annotations(fn)
    types: dict[str, type] = {}
    for name, parameter in signature.parameters.items():
        annotation = annotations.get(name, parameter.annotation)
        if type(parameter.default).__name__ == "FieldInfo":
            return None
        if annotation is _EMPTY or annotation is Any or parameter.kind in _VARIADIC:
            continue
        if not any(annotation is each for each in _EXACT):
            return None
        types[name] = annotation
    return types
