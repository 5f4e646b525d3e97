"""Arrow: names, types and values; not chunks, offsets, metadata or what lies below a null.

Imported when the first value of pyarrow is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from headrace.core.fingerprint.nodes import Node, fields, qualified, sequence

__all__ = ["encode"]

pa: Any = import_module("pyarrow")
pc: Any = import_module("pyarrow.compute")

_SLICE_ITEMS: Final = 1 << 16


def encode(value: Any) -> Node | None:
    """The node of a table, batch, array or scalar; None for everything else of pyarrow."""
    if isinstance(value, pa.Table | pa.RecordBatch):
        names = tuple(value.schema.names)
        parts = (names, sequence(b"[", value.columns), value.num_rows)
        return fields(b"Q", qualified(type(value)), ("names", "columns", "rows"), parts)
    if isinstance(value, pa.ChunkedArray | pa.Array):
        return _of_column(value)
    if isinstance(value, pa.Scalar):
        return fields(b"Q", b"arrow scalar", ("type", "value"), (str(value.type), value.as_py()))
    return None


def _of_column(column: Any) -> Node:
    name = str(column.type)
    if pa.types.is_dictionary(column.type):
        # By value: the numbers of the dictionary's entries differ from one to the next.
        column = column.cast(column.type.value_type)
    bare = _as_numbers(column)
    if bare is None:
        values: Any = sequence(b"[", _items(column))
        missing = None
    else:
        missing = _array(pc.is_null(column)) if column.null_count else None
        values = _array(pc.fill_null(bare, _zero(bare.type)) if column.null_count else bare)
    return fields(b"Q", b"arrow column", ("type", "missing", "values"), (name, missing, values))


def _as_numbers(column: Any) -> Any:
    """The column as one of numbers or truth values; None where it is neither."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    return None


def _zero(kind: Any) -> Any:
    return pa.scalar(False if pa.types.is_boolean(kind) else 0).cast(kind)


def _array(column: Any) -> Any:
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def _items(column: Any) -> Iterator[Any]:
    for start in range(0, len(column), _SLICE_ITEMS):
        yield from column.slice(start, _SLICE_ITEMS).to_pylist()
