"""Writes `docs/settings.md` from the settings themselves (`make docs`)."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from headrace import settings as client
from headrace.core.config import Option
from headrace_services import settings as server

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Made from the code by `make docs`. A setting is looked for, in this order, on the command line, in an
environment variable of the name below, in `.env`, in `headrace.toml`, in `pyproject.toml`
(`tool.headrace`), and in the active profile of the home folder; else it has its default.
`headrace config view` shows what is in force.
"""


def page() -> str:
    """The whole page."""
    sections = [("Flows, scripts and the command line", client.OPTIONS), ("The server", server.OPTIONS)]
    return HEAD + "".join(f"\n## {title}\n\n{_table(options)}" for title, options in sections)


def _table(options: Mapping[str, Option]) -> str:
    rows = "".join(_row(option) for option in options.values())
    return f"| Variable | Default | Meaning |\n|---|---|---|\n{rows}"


def _row(option: Option) -> str:
    meaning = option.doc.replace("|", "\\|")
    secret = " A secret." if option.secret else ""
    return f"| `HEADRACE_{option.name.upper()}` | {_shown(option.default)} | {meaning}{secret} |\n"


def _shown(default: Any) -> str:
    if default is None or default == ():
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
