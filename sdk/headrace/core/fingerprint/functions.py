"""Functions and classes: their names and what their code does."""

from __future__ import annotations

import functools
import inspect
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from headrace.core.codehash import code_digest
from headrace.core.fingerprint.leaves import LEAVES
from headrace.core.fingerprint.nodes import Node, fields, leaf, qualified, sequence
from headrace.core.source import source_digest

__all__ = ["of_builtin", "of_class", "of_code", "of_function", "source_of"]


def of_function(fn: FunctionType) -> Node:
    """Module, name, normalised code, defaults and the values that it closes over."""
    code = fn.__code__
    parts: dict[str, Any] = {
        "code": source_digest(fn) or code_digest(code, fn.__doc__),
        "defaults": fn.__defaults__,
        "keyword_defaults": fn.__kwdefaults__,
    }
    for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
        try:
            parts[f"<{name}>"] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return fields(b"F", qualified(fn), list(parts), parts.values())


def source_of(fn: Any) -> bytes:
    """What the source of a function or other callable says; its code where there is no source.

    Decorators above it do not count; for a partial or a callable object, it is what they call that does.
    """
    inner = innermost(fn)
    if isinstance(inner, FunctionType):
        return source_digest(inner) or code_digest(inner.__code__, inner.__doc__)
    return qualified(inner if hasattr(inner, "__qualname__") else type(inner))


def innermost(fn: Any) -> Any:
    """The author's function below partials, wrappers and bound methods, or in a callable object."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            call = inspect.getattr_static(fn, "__call__", None) if not inspect.isroutine(fn) else None
            return call if isinstance(call, FunctionType) and not isinstance(fn, type) else fn


def of_code(code: CodeType) -> bytes:
    """What the code does."""
    return leaf(b"k", code_digest(code, None))


def of_builtin(fn: BuiltinFunctionType) -> Node:
    """The name, and for a method its object."""
    owner = fn.__self__
    bound = () if owner is None or hasattr(owner, "__spec__") else (owner,)
    return sequence(b"B", bound, header=qualified(fn))


def of_class(cls: type) -> Node:
    """Module and name, bases by name, own methods by code, own constants by value."""
    parts: dict[str, Any] = {"bases": sequence(b"(", [qualified(base) for base in cls.__bases__])}
    for name, member in vars(cls).items():
        inner = getattr(member, "fget", None) or getattr(member, "func", None) or member
        member = innermost(inner)
        # What a decorator such as `dataclass` writes has no file, and differs between versions of Python.
        if isinstance(member, FunctionType):
            if not member.__code__.co_filename.startswith("<") or member.__module__ == "__main__":
                parts[f"{name}()"] = member
        elif type(member) in LEAVES and not name.startswith("__"):
            parts[name] = member
    return fields(b"C", qualified(cls), list(parts), parts.values())
