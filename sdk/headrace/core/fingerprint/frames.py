"""pandas: labels, index and values with their types. Imported when the first value of pandas is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from headrace.core.fingerprint.nodes import Node, fields, leaf, qualified, sequence

__all__ = ["encode"]

np: Any = import_module("numpy")
pd: Any = import_module("pandas")


def encode(value: Any) -> bytes | Node | None:
    """The token or node of a frame, series, index, column, or scalar; None for everything else of pandas."""
    if value is pd.NA or value is pd.NaT:
        return leaf(b"j", b"NA" if value is pd.NA else b"NaT")
    if isinstance(value, pd.DataFrame):
        columns = [column.array for _, column in value.items()]
        parts = (value.columns, value.index, sequence(b"[", columns))
        return fields(b"Q", qualified(type(value)), ("columns", "index", "values"), parts)
    if isinstance(value, pd.Series):
        parts = (value.name, value.index, value.array)
        return fields(b"Q", qualified(type(value)), ("name", "index", "values"), parts)
    if isinstance(value, pd.Index):
        return _of_index(value)
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _of_column(value)
    return _of_scalar(value)


def _of_index(index: Any) -> Node:
    if isinstance(index, pd.MultiIndex):
        levels = [index.get_level_values(number).array for number in range(index.nlevels)]
    else:
        levels = [index.array]
    return fields(b"Q", b"index", ("names", "levels"), (tuple(index.names), sequence(b"[", levels)))


def _of_column(column: Any) -> Node:
    parts = _parts(column)
    return fields(b"Q", b"column", list(parts), parts.values())


def _parts(column: Any) -> dict[str, Any]:
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories.array if dtype.ordered else None
        return {"kind": "category", "order": categories, "values": np.asarray(column)}
    if isinstance(dtype, pd.DatetimeTZDtype):
        return {"kind": "instants", "zone": dtype.tz, "unit": dtype.unit, "values": column.asi8}
    if isinstance(dtype, pd.PeriodDtype):
        return {"kind": "periods", "frequency": dtype.freq.freqstr, "values": column.asi8}
    if isinstance(dtype, pd.IntervalDtype):
        return {"kind": "intervals", "closed": dtype.closed, "left": column.left, "right": column.right}
    if isinstance(dtype, pd.SparseDtype):
        return {"kind": "sparse", "values": np.asarray(column)}
    if isinstance(dtype, np.dtype):
        return {"kind": "plain", "values": column.to_numpy()}
    bare: Any = getattr(dtype, "numpy_dtype", None)
    if hasattr(column, "_mask") and bare is not None and bare.kind in "biuf":
        values = column.to_numpy(dtype=bare, na_value=bare.type(0))
        return {"kind": str(dtype), "missing": np.asarray(column.isna()), "values": values}
    return {"kind": str(dtype), "values": np.asarray(column, dtype=object)}


def _of_scalar(value: Any) -> Node | None:
    if isinstance(value, pd.Timestamp):
        return fields(b"Q", b"instant", ("zone", "value"), (value.tzinfo, value.asm8))
    if isinstance(value, pd.Timedelta):
        return fields(b"Q", b"duration", ("value",), (value.asm8,))
    if isinstance(value, pd.Period):
        return fields(b"Q", b"period", ("frequency", "number"), (value.freqstr, value.ordinal))
    if isinstance(value, pd.Interval):
        return fields(b"Q", b"interval", ("closed", "left", "right"), (value.closed, value.left, value.right))
    return None
