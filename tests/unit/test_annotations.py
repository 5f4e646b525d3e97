"""Arguments that are valid without pydantic are those that pydantic would leave as they are."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any, Optional

import pytest
from pydantic import Field

from headrace.annotations import exact_types
from headrace.validation import Validator


def plain(a: int, b: str = "x", *rest: int, c: float = 1.0, d: Any = None, e=None, **more: str) -> None:
    """Nothing here but exact types, Any, no annotation, and variadic ones."""


def optional(a: Optional[int] = None) -> None: ...  # noqa: UP045
def bounded(a: Annotated[int, Field(gt=3)]) -> None: ...
def unhashable(a: Annotated[int, []]) -> None: ...
def by_default(a: int = Field(default=3, gt=2)) -> None: ...  # pyright: ignore[reportArgumentType]
def container(a: list[int]) -> None: ...
def nothing(a: None) -> None: ...
def unknown(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_exact_types_are_found() -> None:
    assert exact_types(plain, inspect.signature(plain)) == {"a": int, "b": str, "c": float}


@pytest.mark.parametrize("fn", [optional, bounded, unhashable, by_default, container, nothing])
def test_whatever_says_more_is_left_to_pydantic(fn: Callable[..., None]) -> None:
    assert exact_types(fn, inspect.signature(fn)) is None


def test_an_annotation_that_cannot_be_resolved_says_nothing() -> None:
    assert exact_types(unknown, inspect.signature(unknown)) == {}


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        0,
        -1,
        10**400,
        0.0,
        -0.0,
        math.inf,
        math.nan,
        1e-310,
        "",
        "ü\0",
        "x" * 10_000,
        b"",
        b"\xff",
    ],
)
def test_pydantic_leaves_values_of_exact_types_as_they_are(value: Any) -> None:
    def fn(argument: Any) -> None: ...

    fn.__annotations__["argument"] = type(value)
    signature = inspect.signature(fn)
    assert exact_types(fn, signature) == {"argument": type(value)}
    assert Validator(fn, signature).validate({"argument": value})["argument"] is value


def test_a_script_of_plain_arguments_does_not_import_pydantic() -> None:
    script = (
        "import sys\n"
        "from headrace import flow\n"
        "@flow\n"
        "def hello(name: str, times: int = 1) -> str:\n"
        "    return name * times\n"
        "assert hello('a', 3) == 'aaa'\n"
        "assert 'pydantic' not in sys.modules\n"
        "assert hello('a', '3') == 'aaa'\n"  # what needs coercion still gets it
        "assert 'pydantic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
