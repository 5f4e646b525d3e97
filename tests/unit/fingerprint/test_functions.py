"""Functions in fingerprints, and the source that TASK_SOURCE goes by."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import linecache
import os
import pathlib
import types
from collections.abc import Callable
from typing import Any

import pytest

from headrace.core.fingerprint import HashError, fingerprint
from headrace.core.fingerprint.functions import source_of
from headrace.core.source import source_digest

BASE = """
def f(a, b=1):
    return a + b
"""


@pytest.fixture
def written(tmp_path: pathlib.Path) -> Callable[[str], types.ModuleType]:
    """Imports a text as a module, always of the same name and from a file of its own."""
    numbers = itertools.count()

    def load(text: str, path: pathlib.Path | None = None) -> types.ModuleType:
        path = path or tmp_path / f"module_{next(numbers)}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("written", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    "text",
    [
        "# why\ndef f(a, b=1):\n    # how\n    return (a\n        + b)\n",
        'def f(a, b=1):\n    """Adds."""\n    return a + b\n',
        "import functools\n@functools.lru_cache\ndef f(a, b=1):\n    return a + b\nf = f.__wrapped__\n",
        "if True:\n    def f(a, b = 1): return a + b\n",
    ],
    ids=["layout", "documentation", "decorator", "place"],
)
def test_what_says_the_same_is_the_same(written: Any, text: str) -> None:
    assert source_of(written(text).f) == source_of(written(BASE).f)
    assert fingerprint(written(text).f) == fingerprint(written(BASE).f)


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b=1):\n    return a - b\n",
        "def f(a, b=2):\n    return a + b\n",
        "def f(a, c=1):\n    return a + c\n",
        "def f(a, *, b=1):\n    return a + b\n",
        "async def f(a, b=1):\n    return a + b\n",
        "def f(a, b=1):\n    return a + b + 0\n",
        'def f(a, b=1):\n    return f"{a}{b}"\n',
    ],
)
def test_what_does_something_else_differs(written: Any, text: str) -> None:
    assert source_of(written(text).f) != source_of(written(BASE).f)
    assert fingerprint(written(text).f) != fingerprint(written(BASE).f)


def test_a_file_that_was_changed_after_its_import_is_not_believed(
    written: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "edited.py"
    old = written(BASE.replace("a + b", "a * b"), path)
    path.write_text(BASE.replace("a + b", "a - b"))
    linecache.checkcache(os.fspath(path))
    assert source_digest(old.f) is None
    assert source_of(old.f) != source_of(written(BASE.replace("a + b", "a - b")).f)


def test_without_a_file_the_code_counts() -> None:
    names: list[dict[str, Any]] = [{}, {}, {}]
    for place, text in zip(names, (BASE, "\n\n" + BASE, BASE.replace("+", "-")), strict=True):
        exec(compile(text, "<text>", "exec"), place)
    one, moved, other = (place["f"] for place in names)
    assert source_digest(one) is None
    assert source_of(one) == source_of(moved) != source_of(other)


def test_lambdas_on_one_line_are_told_apart() -> None:
    one, other, third = (lambda a: a + 1), (lambda a: a + 2), (lambda a: a + 1)
    assert source_of(one) != source_of(other)
    assert source_of(one) == source_of(third)


def test_what_a_function_closes_over_counts() -> None:
    def made(factor: Any) -> Callable[[int], Any]:
        def scale(number: int) -> Any:
            return number * factor

        return scale

    assert fingerprint(made(2)) == fingerprint(made(2)) != fingerprint(made(3))
    assert source_of(made(2)) == source_of(made(3))
    with pytest.raises(HashError, match=r"inputs\.<factor>: .*generator"):
        fingerprint(made(n for n in ()), name="inputs")


def test_a_function_that_calls_itself_ends() -> None:
    def down(number: int) -> int:
        return down(number - 1) if number else 0

    assert fingerprint(down) == fingerprint(down)


class Adder:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, number: int) -> int:
        return number + self.by

    def add(self, number: int) -> int:
        return number + self.by


def test_the_source_of_other_callables_is_that_of_their_function() -> None:
    method = source_of(Adder.add)
    assert source_of(Adder(1).add) == source_of(functools.partial(Adder(2).add, 1)) == method
    assert source_of(Adder(1)) == source_of(Adder.__call__)
    assert source_of(functools.lru_cache(Adder.add)) == method
    assert source_of(len) != source_of(max)
    assert source_of(Adder) != source_of(dict)


def test_methods_and_partials_take_their_object_along() -> None:
    assert fingerprint(Adder(1).add) == fingerprint(Adder(1).add) != fingerprint(Adder(2).add)
    one, other = functools.partial(Adder.add, number=1), functools.partial(Adder.add, number=2)
    assert fingerprint(one) != fingerprint(other)


def test_a_class_is_its_name_and_its_methods(written: Any) -> None:
    text = "class C:\n    size = 1\n    def f(self): return 1\n    @property\n    def g(self): return 2\n"
    same = fingerprint(written(text).C)
    assert fingerprint(written(text.replace("    def f", "    # why\n    def f")).C) == same
    for old, new in (("size = 1", "size = 2"), ("return 2", "return 3"), ("class C", "class D")):
        module = written(text.replace(old, new))
        assert fingerprint(getattr(module, "D", None) or module.C) != same


@pytest.mark.parametrize(
    "decorator",
    ["@property", "@staticmethod", "@classmethod", "@functools.cached_property", "@functools.cache", "@task"],
)
def test_methods_of_a_class_count_below_their_decorators(written: Any, decorator: str) -> None:
    text = (
        f"import functools\nfrom headrace import task\nclass C:\n    {decorator}\n    def f(self): return 1\n"
    )
    same = fingerprint(written(text).C)
    assert fingerprint(written(text).C) == same
    assert fingerprint(written(text.replace("return 1", "return 2")).C) != same


def test_a_long_expression_in_the_source_is_no_obstacle(written: Any) -> None:
    text = "def f(a):\n    return " + " + ".join(["a"] * 900) + "\n"
    assert source_digest(written(text).f)
