"""Marks that an author puts round an argument to say how the engine should treat it."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

__all__ = ["BaseAnnotation", "allow_failure", "opaque", "quote", "unmapped"]

T_co = TypeVar("T_co", covariant=True)


class BaseAnnotation(Generic[T_co]):
    """A value with a mark. The body of a task or flow receives the bare value."""

    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value: Final = value

    def unwrap(self) -> T_co:
        """The bare value."""
        return self.value

    def rewrap(self, value: Any) -> BaseAnnotation[Any]:
        """The same mark round another value."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return bool(self.value == getattr(other, "value"))  # noqa: B009

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.value,))


class unmapped(BaseAnnotation[T_co]):
    """In `map`: pass the value whole to every call, even though it could be iterated over."""

    __slots__ = ()

    def __getitem__(self, _: object) -> T_co:
        # As if it were a sequence of any length that holds the value everywhere.
        return self.value


class allow_failure(BaseAnnotation[T_co]):
    """Run although an upstream in the value has failed: its exception is passed in place of its result."""

    __slots__ = ()


class quote(BaseAnnotation[T_co]):
    """Do not look into the value: futures and states inside stay what they are, and give no edge."""

    __slots__ = ()

    def unquote(self) -> T_co:
        """The bare value."""
        return self.value


class opaque(BaseAnnotation[T_co]):
    """Resolve the value when it is a future or a state itself, but do not look inside it."""

    __slots__ = ()
