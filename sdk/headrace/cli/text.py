"""Text for people: times, durations, colours, tables that fit the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TextIO

__all__ = [
    "Cell",
    "age",
    "ago",
    "clean",
    "colours",
    "details",
    "elapsed",
    "local_time",
    "state_cell",
    "table",
]

_COLOUR_OF_TYPE = {
    "SCHEDULED": "33",
    "PENDING": "33",
    "RUNNING": "34",
    "PAUSED": "36",
    "CANCELLING": "35",
    "COMPLETED": "32",
    "FAILED": "31",
    "CANCELLED": "90",
    "CRASHED": "91",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Cell(str):
    """A text with the ANSI colour it may be shown in."""

    colour: str

    def __new__(cls, text: str, colour: str = "") -> Cell:
        cell = super().__new__(cls, text)
        cell.colour = colour
        return cell


def colours(stream: TextIO | None = None) -> bool:
    """Whether to colour what goes to `stream` (stdout if None): a terminal, and nobody has said no."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if os.environ.get("HEADRACE_CLI_COLORS", "true").lower() in ("0", "false", "no", "off"):
        return False
    return (stream or sys.stdout).isatty()


def clean(text: str, *, keep_breaks: bool = False) -> str:
    """`text` without anything that moves a terminal's cursor or colours it."""
    if text.isprintable():
        return text
    kept = "\n\t" if keep_breaks else ""
    return "".join(c if c.isprintable() or c in kept else " " if c.isspace() else "\ufffd" for c in text)


def _instant(stamp: Any) -> datetime:
    from headrace.core.clock import from_micros

    return from_micros(stamp.seconds * 1_000_000 + stamp.nanos // 1000)


def local_time(stamp: Any, *, millis: bool = False) -> str:
    """A Timestamp in the machine's zone, to the second or millisecond."""
    instant = _instant(stamp).astimezone()
    return f"{instant:%Y-%m-%d %H:%M:%S}" + (f".{instant.microsecond // 1000:03d}" if millis else "")


def age(stamp: Any, now: datetime) -> str:
    """How long ago a Timestamp was, or how long from now it is: "3m ago", "in 2h"."""
    return ago(_instant(stamp), now)


def ago(instant: datetime, now: datetime) -> str:
    """The same for an aware datetime."""
    seconds = (now - instant).total_seconds()
    if abs(seconds) < 1:
        return "now"
    size = abs(seconds)
    unit = next((u for u in _UNITS if size >= u[0]), _UNITS[-1])
    amount = f"{int(size // unit[0])}{unit[1]}"
    return f"{amount} ago" if seconds > 0 else f"in {amount}"


def elapsed(duration: Any) -> str:
    """A Duration, a timedelta or seconds to three digits or so: "850ms", "4.2s", "3m 07s", "2h 05m"."""
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, (int, float)):
        seconds = float(duration)
    else:
        seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def state_cell(type_word: str | None, name: str) -> Cell:
    """A state's name in the colour of its type."""
    return Cell(name or (type_word or "-").capitalize(), _COLOUR_OF_TYPE.get(type_word or "", ""))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept, used = "", 0
    for c in text:
        used += _width(c)
        if used > width - 1:
            break
        kept += c
    return kept + "…"


def _padded(cell: str, width: int, coloured: bool) -> str:
    shown = _cut(cell, width)
    filled = shown + " " * (width - _width(shown))
    colour = getattr(cell, "colour", "")
    return f"\x1b[{colour}m{filled}\x1b[0m" if coloured and colour else filled


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, shrink: Sequence[str] = ()) -> str:
    """Columns with headers, ending in a line break.

    Args:
        headers: the columns' names.
        rows: one text a column; a `Cell` may be coloured.
        shrink: the columns to narrow first, in this order, when a terminal is too narrow. Never applied
            when stdout is not a terminal, so that nothing is cut from what a program reads.
    """
    cleaned = [[c if isinstance(c, Cell) else clean(c) for c in row] for row in rows]
    widths = [max([_width(h), *(_width(row[i]) for row in cleaned)]) for i, h in enumerate(headers)]
    if sys.stdout.isatty():
        _fit(widths, headers, shrink)
    coloured = colours()
    lines = ["  ".join(_padded(h, w, False) for h, w in zip(headers, widths, strict=True)).rstrip()]
    lines.extend(
        "  ".join(_padded(c, w, coloured) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    )
    return "\n".join(lines) + "\n"


def _fit(widths: list[int], headers: Sequence[str], shrink: Sequence[str]) -> None:
    room = shutil.get_terminal_size((100, 24)).columns
    for name in shrink:
        index = headers.index(name)
        over = sum(widths) + 2 * (len(widths) - 1) - room
        if over > 0:
            widths[index] = max(len(name), 8, widths[index] - over)


def details(pairs: Sequence[tuple[str, str]]) -> str:
    """Labels and values below each other, ending in a line break; pairs without a value are left out."""
    kept = [(label, value) for label, value in pairs if value]
    width = max((len(label) for label, _ in kept), default=0)
    coloured = colours()
    lines: list[str] = []
    for label, value in kept:
        first, *others = (value if isinstance(value, Cell) else clean(value, keep_breaks=True)).split("\n")
        colour = getattr(value, "colour", "")
        shown = f"\x1b[{colour}m{first}\x1b[0m" if coloured and colour else first
        lines.append(f"{label:<{width}}  {shown}")
        lines.extend(" " * (width + 2) + other for other in others)
    return "\n".join(lines) + "\n"
