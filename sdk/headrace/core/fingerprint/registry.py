"""Types whose owners say what counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["register_cache_encoder", "registered"]

T = TypeVar("T")

_encoders: dict[type, Callable[[Any], Any]] = {}


def register_cache_encoder(cls: type[T], fn: Callable[[T], Any]) -> None:
    """Say what counts in the fingerprint of a class's instances, in the place of their fields.

        register_cache_encoder(Connection, lambda connection: connection.url)

    Args:
        cls: the class; subclasses are covered, unless they are registered themselves.
        fn: gives a value that stands for the instance; the class's name is added to it.

    Raises:
        TypeError: not a class, or not callable.
    """
    if not isinstance(cast("Any", cls), type):
        raise TypeError(f"a class is needed, got {cls!r}")
    if not callable(cast("Any", fn)):
        raise TypeError(f"a function is needed, got {fn!r}")
    _encoders[cls] = fn


def registered(cls: type) -> Callable[[Any], Any] | None:
    """The function for a class or the nearest of its bases."""
    if not _encoders:
        return None
    for base in cls.__mro__:
        found = _encoders.get(base)
        if found is not None:
            return found
    return None
