"""The arguments of a run as they go on the record, for people and for running it again.

What JSON can say is said in JSON. Anything else is named by its type, e.g. `"<DataFrame>"`: recording the
arguments must neither fail a run nor take long.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Final, cast

from headrace.core.limits import INLINE_PAYLOAD_BYTES
from headrace.utilities.annotations import BaseAnnotation

__all__ = ["recorded_parameters"]

_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_SIMPLE: Final = frozenset({str, int, bool, type(None)})
_VALUES_MAX: Final = 2000
_DEPTH_MAX: Final = 32
_TEXT_MAX: Final = 16_384


def recorded_parameters(parameters: Mapping[str, Any]) -> bytes:
    """A JSON object of the parameters, in at most `limits.INLINE_PAYLOAD_BYTES`."""
    shown = {name: _shown(value) for name, value in parameters.items()}
    blob = _ENCODE(shown).encode("ascii")
    while len(blob) > INLINE_PAYLOAD_BYTES:
        largest = max(shown, key=lambda name: len(_ENCODE(shown[name])))
        if isinstance(shown[largest], str) and len(shown[largest]) < 200:
            return _ENCODE({"...": f"<{len(shown)} parameters>"}).encode("ascii")
        shown[largest] = _named(parameters[largest])
        blob = _ENCODE(shown).encode("ascii")
    return blob


def _shown(value: Any) -> Any:
    kind = cast("type[Any]", type(value))
    if kind in _SIMPLE and (kind is not str or len(value) <= _TEXT_MAX) and (kind is not int or _fits(value)):
        return value
    try:
        return _Encoder().of(value, 0)
    except Exception:  # a property or method of a user's class raises
        return _named(value)


def _fits(number: int) -> bool:
    # Longer ones cannot be turned into text (sys.set_int_max_str_digits), and nobody reads them.
    return number.bit_length() <= 1024


def _named(value: Any) -> str:
    return f"<{type(value).__name__}>"


class _TooMuch(Exception):
    pass


class _Encoder:
    """Turns one argument into what JSON can say, as long as it is not too much."""

    def __init__(self) -> None:
        self._left = _VALUES_MAX

    def of(self, value: Any, depth: int) -> Any:
        try:
            return self._of(value, depth)
        except _TooMuch:
            if depth:
                raise
            return _named(value)

    def _of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH_MAX:
            raise _TooMuch
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, BaseAnnotation):
            return self._of(cast("BaseAnnotation[Any]", value).value, depth + 1)
        kind = cast("type[Any]", type(value))
        if kind is str:
            return value if len(value) <= _TEXT_MAX else _named(value)
        if kind is int:
            return int(value) if _fits(value) else _named(value)
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if kind in (list, tuple, set, frozenset):
            return [self._of(item, depth + 1) for item in self._bounded(value)]
        if kind is dict:
            return {_key(key): self._of(item, depth + 1) for key, item in self._bounded(value).items()}
        return self._by_pydantic(value, depth)

    def _bounded(self, container: Any) -> Any:
        if len(container) > self._left:
            raise _TooMuch
        return container

    def _by_pydantic(self, value: Any, depth: int) -> Any:
        """Models, dataclasses, enums, dates, paths, decimals and so on, the way pydantic writes them."""
        if sys.getsizeof(value, 0) > INLINE_PAYLOAD_BYTES or _is_opaque(value):
            return _named(value)
        from pydantic_core import to_jsonable_python

        plain = to_jsonable_python(value, fallback=_named, inf_nan_mode="strings")
        return self._of(plain, depth + 1) if type(plain) is not type(value) else _named(value)


def _key(key: Any) -> str:
    return key if type(key) is str else str(key)


def _is_opaque(value: Any) -> bool:
    """Whether the value is better named than looked into: an upstream, or something that would be used up."""
    return hasattr(value, "__next__") or hasattr(value, "task_run_id") or hasattr(value, "state_details")
