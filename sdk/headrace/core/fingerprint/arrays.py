"""NumPy: data type, shape and elements in C order, whatever the layout in memory.

Imported when the first value of NumPy is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from headrace.core.fingerprint.nodes import Node, fields, leaf, new_digest, qualified, sequence, token

__all__ = ["encode"]

np: Any = import_module("numpy")

_CHUNK_ITEMS: Final = 1 << 16
_WIDE_FLOATS: Final = {"f": 8, "c": 16}
"""Beyond this many bytes, the layout of floating-point numbers is the machine's own."""


def encode(value: Any) -> bytes | Node | None:
    """The token or node of an array, a scalar or a data type; None for everything else of NumPy."""
    if isinstance(value, np.ma.MaskedArray):
        return _of_masked(value)
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, np.generic):
        return sequence(b"g", (np.asarray(value),))
    if isinstance(value, np.dtype):
        return leaf(b"e", _name(value)) if value.names is None else None
    return None


def _of_array(array: Any) -> bytes | Node:
    kind = b"" if type(array) in (np.ndarray, np.memmap) else qualified(type(array))
    dtype = array.dtype
    if dtype.names is not None:
        # Field by field: what lies between them in memory is not part of the value.
        columns = [array[name].view(np.ndarray) for name in dtype.names]
        order = [*dtype.names, "\0order"]
        return fields(b"A", _header(array, kind, b"fields"), order, [*columns, dtype.names])
    if dtype.hasobject or dtype.kind == "T":
        return sequence(b"A", array.flat, header=_header(array, kind, dtype.kind.encode()))
    digest = new_digest()
    digest.update(_header(array, kind, _name(dtype)))
    if array.size and dtype.itemsize:
        for part in _contents(array):
            digest.update(part)
    return token(b"a", digest)


def _of_masked(array: Any) -> Node:
    mask = np.ma.getmaskarray(array)
    data = np.ma.getdata(array)
    if mask.any():
        data = data.copy()
        data[mask] = np.zeros((), data.dtype)
    return fields(b"A", b"masked", ("data", "mask"), (data, mask))


def _header(array: Any, kind: bytes, dtype: bytes) -> bytes:
    return b"\0".join((kind, dtype, repr(tuple(map(int, array.shape))).encode()))


def _name(dtype: Any) -> bytes:
    text: str = dtype.newbyteorder("<").str
    return text.encode()


def _contents(array: Any) -> Iterator[Any]:
    """The elements in C order, little-endian, a chunk at a time."""
    dtype = array.dtype
    chunks = np.nditer(
        array,
        flags=["external_loop", "buffered"],
        op_flags=[["readonly", "contig"]],
        op_dtypes=[dtype.newbyteorder("<")],
        order="C",
        casting="equiv",
        buffersize=_CHUNK_ITEMS,
    )
    widest = _WIDE_FLOATS.get(dtype.kind)
    for chunk in chunks:
        if widest is None:
            yield chunk.view(np.uint8)
        elif dtype.itemsize > widest:
            yield _as_text(chunk)
        else:
            yield _with_one_nan(chunk).view(np.uint8)


def _with_one_nan(chunk: Any) -> Any:
    """Floating-point numbers in which all that is not a number is so in the same way."""
    if chunk.dtype.kind == "c":
        chunk = chunk.view(chunk.real.dtype)
    missing = np.isnan(chunk)
    if missing.any():
        chunk = chunk.copy()
        chunk[missing] = np.nan
    return chunk


def _as_text(chunk: Any) -> bytes:
    parts = chunk.view(chunk.real.dtype)
    return ";".join(np.format_float_scientific(part, unique=True) for part in parts).encode() + b";"
