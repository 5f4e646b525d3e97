"""Writes `headrace.client.sync_client` from `headrace.client.api`: the same methods, blocking.

Methods that the client has from its bases, one for each service, are found where the bases are.

`python tools/clientgen.py` writes the file; a test compares it with what would be written.
"""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

CLIENT = pathlib.Path(__file__).resolve().parent.parent / "sdk" / "headrace" / "client"
SOURCE = CLIENT / "api.py"
TARGET = CLIENT / "sync_client.py"

HEAD = '''"""The blocking client, written by `tools/clientgen.py` from `headrace.client.api`: change that."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.client.blocking import BlockingClient
{imports}

__all__ = ["SyncHeadraceClient"]


class SyncHeadraceClient(BlockingClient):
    """`HeadraceClient` for code without an event loop: a context manager whose methods block.

    The calls run on an event loop in a thread of the client's own; any thread may use it.
    """
'''


def method(node: ast.AsyncFunctionDef) -> str:
    """The blocking method for an async one."""
    arguments = node.args
    passed = [arg.arg for arg in arguments.args[1:]] + [f"{a.arg}={a.arg}" for a in arguments.kwonlyargs]
    returns = ast.unparse(node.returns) if node.returns else "None"
    is_iterator = returns.startswith("AsyncIterator[")
    runner = "_iterate" if is_iterator else "_run"
    doc = ast.get_docstring(node, clean=False) or ""
    return (
        f"    def {node.name}({ast.unparse(arguments)}) -> {returns.removeprefix('Async')}:\n"
        f'        """{doc}"""\n'
        f"        return self.{runner}(self._client.{node.name}({', '.join(passed)}))\n"
    )


def imports_of(tree: ast.Module, used: set[str]) -> list[str]:
    """The source's imports of names that the methods use."""
    lines: list[str] = []
    for node in tree.body:
        is_stdlib = isinstance(node, ast.ImportFrom) and node.module in ("collections.abc", "datetime")
        if isinstance(node, ast.ImportFrom) and (is_stdlib or (node.module or "").startswith("headrace.")):
            kept = [alias for alias in node.names if (alias.asname or alias.name) in used]
            if kept:
                lines.append(ast.unparse(ast.ImportFrom(node.module, kept, 0)))
    return lines


def class_of(tree: ast.Module, name: str) -> ast.ClassDef:
    """The class with the name."""
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def sources() -> list[tuple[ast.Module, ast.ClassDef]]:
    """Every module with a part of the client, and the part: the client itself, then its bases."""
    tree = ast.parse(SOURCE.read_text())
    client = class_of(tree, "HeadraceClient")
    found = [(tree, client)]
    bases = {base.id for base in client.bases if isinstance(base, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in bases.intersection(alias.name for alias in node.names):
                part = ast.parse((CLIENT / f"{node.module.rpartition('.')[2]}.py").read_text())
                found.append((part, class_of(part, name)))
    return found


def generate() -> str:
    """What the target should hold."""
    bodies: list[str] = []
    imports: list[str] = []
    for tree, part in sources():
        methods = [n for n in part.body if isinstance(n, ast.AsyncFunctionDef) and n.name[0] != "_"]
        used = {
            n.id
            for m in methods
            for side in (m.args, m.returns)
            if side
            for n in ast.walk(side)
            if isinstance(n, ast.Name)
        }
        bodies.extend(method(node) for node in methods)
        imports.extend(imports_of(tree, used - {"AsyncIterator"}))
    text = HEAD.format(imports="\n".join(imports)) + "\n" + "\n".join(bodies)
    for arguments in (["check", "--fix", "-q", "--select", "I,F811"], ["format", "-q"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    TARGET.write_text(generate())
