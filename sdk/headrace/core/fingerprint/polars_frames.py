"""Polars: names, types and values; not chunks. Imported when the first value of Polars is met."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from headrace.core.fingerprint.nodes import HashError, Node, fields, leaf, qualified, sequence

__all__ = ["encode"]

pl: Any = import_module("polars")

_SLICE_ITEMS: Final = 1 << 16


def encode(value: Any) -> bytes | Node | None:
    """The token or node of a frame, a series or a type; None for everything else of Polars.

    Raises:
        HashError: a lazy frame: its values are not there yet.
    """
    if isinstance(value, pl.DataFrame):
        columns = sequence(b"[", value.get_columns())
        return fields(b"Q", qualified(type(value)), ("columns", "rows"), (columns, value.height))
    if isinstance(value, pl.Series):
        return _of_series(value)
    if isinstance(value, pl.LazyFrame):
        raise HashError("", "is a query that has not run: collect it first, or give it a __headrace_key__")
    if isinstance(value, pl.DataType):
        return leaf(b"e", repr(value).encode())
    return None


def _of_series(series: Any) -> Node:
    kind = repr(series.dtype)
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    missing = None
    if series.dtype.is_numeric() and not series.dtype.is_decimal():
        numbers = series
    elif series.dtype.is_temporal():
        numbers = series.to_physical()
    else:
        numbers = None
    if numbers is None:
        values: Any = sequence(b"[", _items(series))
    else:
        missing = series.is_null().to_numpy() if series.null_count() else None
        values = numbers.fill_null(0).to_numpy() if series.null_count() else numbers.to_numpy()
    names = ("name", "type", "missing", "values")
    return fields(b"Q", b"polars column", names, (series.name, kind, missing, values))


def _items(series: Any) -> Iterator[Any]:
    for start in range(0, len(series), _SLICE_ITEMS):
        for item in series.slice(start, _SLICE_ITEMS).to_list():
            # A list within a list comes as a series, which has a name that is nobody's.
            yield item.to_list() if isinstance(item, pl.Series) else item
