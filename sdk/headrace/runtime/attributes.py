"""Module attributes that are worked out when they are read, and can be given in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["Attributes"]


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


_CASTS: Final[dict[type, Callable[[str], Any]]] = {
    bool: lambda text: text.strip().lower() in {"1", "true", "yes", "on"},
    int: int,
    float: float,
    str: str,
    type(None): str,
    datetime: _instant,
}


class Attributes:
    """The attributes of one module.

    Args:
        module: its name, e.g. `headrace.runtime.flow_run`.
        readers: what gives each attribute.
    """

    def __init__(self, module: str, readers: Mapping[str, Callable[[], Any]]) -> None:
        self._module = module
        self._readers = readers
        self._prefix = f"HEADRACE__RUNTIME__{module.rpartition('.')[2].upper()}__"

    def get(self, name: str) -> Any:
        """The value of an attribute: the environment's, as the type that it really has, else the real one.

        Raises:
            AttributeError: there is no such attribute, and none in the environment.
            ValueError: the environment's text cannot be turned into what the attribute is.
        """
        given = os.environ.get(self._prefix + name.upper())
        reader = self._readers.get(name)
        if reader is None:
            if given is None:
                raise AttributeError(f"{self._module} has no attribute {name!r}")
            return given
        real = reader()
        return real if given is None else self._cast(name, given, real)

    def names(self) -> list[str]:
        """Every attribute."""
        return sorted(self._readers)

    def _cast(self, name: str, given: str, real: Any) -> Any:
        variable = self._prefix + name.upper()
        cast = next((cast for kind, cast in _CASTS.items() if type(real) is kind), None)
        if cast is None:
            raise ValueError(
                f"{variable} is set, but {self._module}.{name} is a {type(real).__name__}, which cannot be"
                " given in the environment. Please use monkeypatch instead."
            )
        try:
            return cast(given)
        except ValueError:
            raise ValueError(f"{variable}={given!r} cannot be read as a {type(real).__name__}.") from None
