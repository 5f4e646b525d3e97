"""Type variables with defaults, without `typing_extensions`: a third of the time to import `headrace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    import typing

    def TypeVar(name, *, default=None, **options):
        """A type variable; only type checkers know its default."""
        return typing.TypeVar(name, **options)


__all__ = ["TypeVar"]
