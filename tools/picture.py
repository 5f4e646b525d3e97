"""Draws what a command shows on a terminal as an SVG file.

    .venv/bin/uv run --with pyte python tools/picture.py docs/images/pipeline.svg -- headrace run …

The command runs in a pseudo-terminal; the picture is the terminal's last screen.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
from itertools import groupby
from typing import Any

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

FONT_FROM_ELSEWHERE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
NAMES = {"brown": "yellow", "default": None}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=pathlib.Path)
    arguments.add_argument("--columns", type=int, default=100)
    arguments.add_argument("--lines", type=int, default=60)
    arguments.add_argument("--title", default="")
    arguments.add_argument("command", nargs="+")
    given = arguments.parse_args()
    screen = pyte.Screen(given.columns, given.lines)
    code = show(given.command, screen)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=given.columns, record=True, file=io.StringIO())
    for line in lines_of(screen):
        console.print(line, no_wrap=True, overflow="crop")
    drawn = console.export_svg(title=given.title or " ".join(given.command))
    given.file.write_text(FONT_FROM_ELSEWHERE.sub("", drawn))
    return code


def show(command: list[str], screen: pyte.Screen) -> int:
    """Run `command` with `screen` as its terminal; returns its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", screen.lines, screen.columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    stream = pyte.ByteStream(screen)
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        stream.feed(read)
    return process.wait()


def lines_of(screen: pyte.Screen) -> list[Text]:
    """The screen's lines with their colours, without the empty ones at its end."""
    lines = [line_of(screen.buffer[number], screen.columns) for number in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def line_of(cells: Any, columns: int) -> Text:
    line = Text()
    for style, run in groupby((cells[column] for column in range(columns)), key=style_of):
        line.append("".join(cell.data for cell in run), style)
    line.rstrip()
    return line


def style_of(cell: Any) -> Style:
    return Style(color=colour(cell.fg), bold=cell.bold, italic=cell.italics)


def colour(name: str) -> str | None:
    """A colour of pyte's as rich knows it."""
    if name in NAMES:
        return NAMES[name]
    if name.startswith("bright"):
        return f"bright_{NAMES.get(name.removeprefix('bright')) or name.removeprefix('bright')}"
    return f"#{name}" if len(name) == 6 and not name.isalpha() else name


if __name__ == "__main__":
    sys.exit(main())
