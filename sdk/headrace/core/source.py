"""What a function's source says, free of layout: the same under every version of Python.

Comments, white space, documentation, annotations' layout and the decorators on top do not count.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, cast
from weakref import WeakKeyDictionary

from headrace.core.codehash import code_digest

__all__ = ["source_digest"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_digests: WeakKeyDictionary[CodeType, bytes | None] = WeakKeyDictionary()


def source_digest(fn: FunctionType) -> bytes | None:
    """Thirty-two bytes that change with the source of `fn`.

    None where there is no source, or where the file no longer says what was compiled from it.
    """
    code = fn.__code__
    try:
        return _digests[code]
    except KeyError:
        node = _node_of(code, fn.__globals__)
        found = None if node is None else _digest_of(node)
        _digests[code] = found
        return found


def _node_of(code: CodeType, module: dict[str, Any]) -> _Function | None:
    lines = linecache.getlines(code.co_filename, module)
    block = lines[code.co_firstlineno - 1 :]
    if not block:
        return None
    try:
        text = textwrap.dedent("".join(inspect.getblock(block)))
        tree = ast.parse(text)
        found = [node for node in ast.walk(tree) if isinstance(node, _Function) and _is_called(node, code)]
        return found[0] if len(found) == 1 and _agrees(found[0], code) else None
    except (SyntaxError, ValueError, RecursionError):
        return None


def _is_called(node: _Function, code: CodeType) -> bool:
    name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
    return name == code.co_name and code.co_varnames[: len(_arguments(node))] == _arguments(node)


def _arguments(node: _Function) -> tuple[str, ...]:
    listed = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    listed += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    return tuple(one.arg for one in listed)


def _agrees(node: _Function, code: CodeType) -> bool:
    """Whether the source gives the code that runs: files change while a process lives."""
    bare = _without_surroundings(node)
    compiled = next(_codes(compile(bare, "<source>", "exec", code.co_flags & _FUTURE_FLAGS, True)), None)
    if compiled is None:
        return False
    if code.co_freevars or compiled.co_name != code.co_name:
        # Out of its function a free variable is a global one: other instructions, the same constants.
        return compiled.co_varnames == code.co_varnames and _plain(compiled) == _plain(code)
    return code_digest(compiled, None) == code_digest(code, None)


_FUTURE_FLAGS = 0x1FF0000
"""Where `from __future__` leaves its mark."""


def _without_surroundings(node: _Function) -> ast.Module:
    if isinstance(node, ast.Lambda):
        return ast.fix_missing_locations(ast.Module([ast.Expr(node)], []))
    copied = type(node)(**{name: getattr(node, name) for name in node._fields if hasattr(node, name)})
    copied.decorator_list = []
    return ast.fix_missing_locations(ast.Module([ast.copy_location(copied, node)], []))


def _codes(code: CodeType) -> Iterator[CodeType]:
    return (const for const in code.co_consts if isinstance(const, CodeType))


def _plain(code: CodeType) -> list[tuple[type, Any]]:
    return [(type(const), const) for const in code.co_consts if not isinstance(const, CodeType)]


def _digest_of(node: _Function) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for text in _words(node):
        word = text.encode("utf-8", "surrogatepass")
        digest.update(len(word).to_bytes(8, "big"))
        digest.update(word)
    return digest.digest()


class _Mark(str):
    """A word of the tree's shape, unlike those that stand in the source."""


_END = _Mark(")")


def _words(top: _Function) -> Iterator[str]:
    """The tree as words, without recursion: expressions may be long."""
    stack: list[Any] = [top]
    while stack:
        part = stack.pop()
        if isinstance(part, _Mark):
            yield part
        elif isinstance(part, list):
            yield "["
            stack.append(_END)
            stack += reversed(cast("list[Any]", part))
        elif isinstance(part, ast.AST):
            yield f"({type(part).__name__}"
            stack.append(_END)
            for name, child in reversed(list(_counted_fields(part, part is top))):
                stack += [child, _Mark(name)]
        else:
            yield f"{type(part).__name__}:{part!r}"


def _counted_fields(node: ast.AST, is_top: bool) -> Iterator[tuple[str, Any]]:
    """What is empty is left out: versions of Python differ in it."""
    for name in node._fields:
        child: Any = getattr(node, name, None)
        if name in _NOISE or child == [] or (child is None and not isinstance(node, ast.Constant)):
            continue
        if is_top and name in _SURROUNDINGS:
            continue
        if name == "body" and isinstance(node, _DOCUMENTED):
            child = _without_documentation(cast("list[ast.stmt]", child))
        yield name, child


_SURROUNDINGS = frozenset({"decorator_list", "name"})
_NOISE = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _without_documentation(body: list[ast.stmt]) -> list[ast.stmt]:
    match body[0]:
        case ast.Expr(value=ast.Constant(value=str())):
            return body[1:]
        case _:
            return body
