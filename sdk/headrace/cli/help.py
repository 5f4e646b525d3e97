"""Help as plain text in two columns, for terminals, pipes and screen readers alike."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["HelpFormatter", "columns", "paragraph"]

_LABEL_WIDTH_MAX = 30
_LINE_WIDTH_MAX = 100


def _width() -> int:
    return max(50, min(_LINE_WIDTH_MAX, shutil.get_terminal_size((80, 24)).columns))


def paragraph(text: str) -> str:
    """`text` wrapped to the terminal, blank lines kept, ending in a line break."""
    blocks = [textwrap.fill(block, _width(), break_on_hyphens=False) for block in text.strip().split("\n\n")]
    return "\n\n".join(blocks) + "\n"


def columns(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A titled list of labels and what they mean, ending in a line break."""
    label_width = min(_LABEL_WIDTH_MAX, max((len(label) for label, _ in rows), default=0))
    indent = " " * (label_width + 4)
    lines = [f"{title}:"]
    for label, text in rows:
        wrapped = textwrap.wrap(text, _width() - len(indent), break_on_hyphens=False) or [""]
        if len(label) > label_width:
            lines.append(f"  {label}")
            lines.extend(indent + line for line in wrapped)
        else:
            lines.append(f"  {label:<{label_width}}  {wrapped[0]}".rstrip())
            lines.extend(indent + line for line in wrapped[1:])
    return "\n".join(lines) + "\n"


class HelpFormatter:
    """Renders cyclopts' help of one command in the same form."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        rows = [self._row(entry) for entry in panel.entries]
        if rows:
            print(columns("Options" if panel.title == "Parameters" else str(panel.title), rows))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        text = _plain(usage).strip()
        if text:
            print(f"{text if text.startswith('Usage:') else f'Usage: {text}'}\n")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        text = _plain(description).strip()
        if text:
            print(paragraph(text))

    @staticmethod
    def _row(entry: HelpEntry) -> tuple[str, str]:
        notes = [_plain(entry.description).strip()]
        if entry.choices:
            notes.append(f"[{' | '.join(entry.choices)}]")
        if entry.default not in (None, "False", "()", '""'):
            notes.append(f"[default: {entry.default}]")
        if entry.required and entry.positional_label is None:
            notes.append("[required]")
        if entry.positional_label is not None:
            label = entry.positional_label
        else:
            names = [_both_ways(name, entry.negative_names) for name in entry.positive_names]
            label = ", ".join((*names, *entry.positive_shorts))
            if entry.metavar:
                label = f"{label} {entry.metavar}"
        return label, " ".join(note for note in notes if note)


def _both_ways(name: str, negatives: Sequence[str]) -> str:
    """`--[no-]name` where there is `--no-name` too."""
    return f"--[no-]{name[2:]}" if f"--no-{name[2:]}" in negatives else name


def _plain(text: Any) -> str:
    if text is None:
        return ""
    # cyclopts wraps what it cannot type in rich renderables; all of ours hold plain text.
    inner = getattr(text, "primary_renderable", text)
    return str(getattr(inner, "plain", inner))
