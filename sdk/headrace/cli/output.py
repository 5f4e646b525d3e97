"""Where a command's data goes: stdout, in the format asked for. What is said about it goes to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.cli import text
from headrace.cli.options import Format
from headrace.core.limits import PAGE_SIZE_MAX

__all__ = ["Listing", "emit_document", "emit_json", "emit_list", "first", "iterate", "page_size", "say"]

T = TypeVar("T")


@dataclass(frozen=True)
class Listing(Generic[T]):
    """How the items of a list are shown.

    Attributes:
        headers: the table's columns.
        row: an item's texts for them.
        key: what `--quiet` prints of an item.
        json: an item as what `json.dumps` takes.
        none: what to say on stderr, instead of a table, when there are none.
        shrink: the columns that may be cut to fit a terminal.
    """

    headers: Sequence[str]
    row: Callable[[T], Sequence[str]]
    key: Callable[[T], str]
    json: Callable[[T], Any]
    none: str
    shrink: Sequence[str] = ()


def say(message: str) -> None:
    """A message for the person at the keyboard, on stderr."""
    print(message, file=sys.stderr)


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON value on stdout, in one line if `indent` is None."""
    separators = (",", ":") if indent is None else None
    print(json.dumps(value, indent=indent, ensure_ascii=False, separators=separators))


async def emit_list(
    items: AsyncIterable[T], listing: Listing[T], output: Format, *, quiet: bool = False
) -> int:
    """Print the items; `--quiet` and `jsonl` do so as they come.

    Returns:
        How many there were.
    """
    kept: list[T] = []
    count = 0
    async for item in items:
        count += 1
        if quiet:
            print(listing.key(item))
        elif output == "jsonl":
            emit_json(listing.json(item), indent=None)
        else:
            kept.append(item)
    if quiet or output == "jsonl":
        return count
    if output == "json":
        emit_json([listing.json(item) for item in kept])
    elif kept:
        rows = [listing.row(item) for item in kept]
        print(text.table(listing.headers, rows, shrink=listing.shrink), end="")
    else:
        say(listing.none)
    return count


def page_size(limit: int) -> int:
    """The size of pages that reads no more than is shown."""
    return min(limit, PAGE_SIZE_MAX) if limit else PAGE_SIZE_MAX


async def first(count: int, items: AsyncIterable[T]) -> AsyncIterator[T]:
    """At most the first `count` of the items; 0 for all."""
    left = count
    async for item in items:
        yield item
        left -= 1
        if left == 0:
            return


async def iterate(items: Iterable[T]) -> AsyncIterator[T]:
    """What is at hand already, for `emit_list`."""
    for item in items:
        yield item


def emit_document(value: Any, pairs: Callable[[], Sequence[tuple[str, str]]], output: Format) -> None:
    """Print one thing: its `pairs` of label and text for people, `value` for programs."""
    if output == "table":
        print(text.details(pairs()), end="")
    else:
        emit_json(value, indent=2 if output == "json" else None)
