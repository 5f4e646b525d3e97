"""The identity of a task's code: the same on every machine, wherever the file lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, cast

__all__ = ["code_digest", "code_hash"]

_DEPTH_MAX = 8


def code_hash(fn: Callable[..., Any], code: CodeType | None) -> str:
    """Sixteen hexadecimal digits that change with what `fn` does.

    Comments, line numbers, file names and documentation do not count; constants, nested functions and the
    functions that it closes over do.

    Args:
        fn: the function or other callable.
        code: its code; None when it is not written in Python.
    """
    digest = hashlib.blake2b(digest_size=8)
    if code is None:
        digest.update(f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn))}".encode())
        return digest.hexdigest()
    for part in _parts(code, getattr(fn, "__doc__", None), 0):
        digest.update(part)
        digest.update(b"\0")
    for cell in getattr(fn, "__closure__", None) or ():
        digest.update(_of_cell(cell))
    return digest.hexdigest()


def code_digest(code: CodeType, doc: str | None) -> bytes:
    """Thirty-two bytes that change with what `code` does; the same rules as for `code_hash`.

    Args:
        code: the code of one function.
        doc: its documentation, which does not count.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in _parts(code, doc, 0):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _of_cell(cell: Any) -> bytes:
    try:
        value = cell.cell_contents
    except ValueError:  # not assigned yet
        return b"?"
    if isinstance(value, FunctionType):
        return b"\0".join(_parts(value.__code__, value.__doc__, 0))
    return b"-"


def _parts(code: CodeType, doc: str | None, depth: int) -> list[bytes]:
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    parts = [code.co_code, code.co_exceptiontable, repr(names).encode(), str(code.co_flags).encode()]
    for const in code.co_consts:
        if const is doc and isinstance(const, str):
            continue
        if isinstance(const, CodeType):
            parts += _parts(const, None, depth + 1) if depth < _DEPTH_MAX else [b"..."]
        else:
            parts.append(_of_constant(const).encode("utf-8", "backslashreplace"))
    return parts


def _of_constant(const: object) -> str:
    if isinstance(const, frozenset):
        return f"frozenset({sorted(map(_of_constant, cast('frozenset[object]', const)))})"
    if isinstance(const, tuple):
        return f"({', '.join(map(_of_constant, cast('tuple[object, ...]', const)))})"
    return f"{type(const).__name__}:{const!r}"
