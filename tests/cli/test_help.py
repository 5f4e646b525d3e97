"""Help: of every command, as it is meant to be; and nothing imported for it that it does not need.

`UPDATE_GOLDEN=1 pytest tests/cli/test_help.py` writes the golden files anew.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys
from itertools import pairwise

import pytest

from headrace.cli.catalogue import CATALOGUE, Command, Noun, find, plugins
from headrace.cli.launch import iter_commands
from tests.cli.conftest import Cli

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _plugin_pages() -> list[str]:
    """The nouns of other packages, and their commands."""
    pages: list[str] = []
    for plugin in plugins():
        module, _, name = plugin.target.partition(":")
        app = getattr(importlib.import_module(module), name)
        pages.extend([plugin.name, *(f"{plugin.name} {c}" for c in app if not c.startswith("-"))])
    return pages


PAGES = [
    "",
    *(e.name for e in CATALOGUE if isinstance(e, Noun)),
    *(words for words, _ in iter_commands()),
    *_plugin_pages(),
]


@pytest.mark.parametrize("words", PAGES, ids=lambda words: words or "headrace")
def test_help_is_as_it_was_written_down(words: str, cli: Cli) -> None:
    code, shown, err = cli(*words.split(), "--help")
    golden = GOLDEN / f"{words.replace(' ', '_') or 'headrace'}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown)
    assert (code, err) == (0, "")
    assert shown == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {p.stem for p in GOLDEN.iterdir()} == {w.replace(" ", "_") or "headrace" for w in PAGES}


@pytest.mark.parametrize(("words", "command"), iter_commands(), ids=lambda v: v if isinstance(v, str) else "")
def test_the_catalogue_says_what_the_docstring_says(words: str, command: Command) -> None:
    module, _, function = command.target.partition(":")
    __import__(module)
    docstring = getattr(sys.modules[module], function).__doc__
    assert docstring.splitlines()[0] == command.help


@pytest.mark.parametrize(("words", "command"), iter_commands(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_option_is_explained(words: str, command: Command, cli: Cli) -> None:
    shown = cli(*words.split(), "--help").out
    _, _, options = shown.partition("Options:\n")
    # An option without help would be a line that holds nothing after its label.
    lines = options.splitlines()
    rows = [pair for pair in pairwise([*lines, ""]) if pair[0].startswith("  -")]
    assert rows or not options
    for row, following in rows:
        assert "  " in row.strip() or following.startswith("    "), row


@pytest.mark.parametrize("noun", [e for e in CATALOGUE if isinstance(e, Noun)], ids=lambda noun: noun.name)
def test_a_noun_may_be_plural(noun: Noun, cli: Cli) -> None:
    for name in noun.names:
        assert find(name) is noun
        assert cli(name).out == cli(noun.name, "--help").out


def test_nothing_typed_shows_help(cli: Cli) -> None:
    assert cli().out == cli("-h").out == cli("--help").out


def test_the_version(cli: Cli) -> None:
    code, out, _ = cli("--version")
    assert code == 0
    assert out.strip().count(".") >= 2


def loaded_by(*words: str) -> set[str]:
    """Top-level names of the modules a command has imported when it is done."""
    script = (
        "import sys\nfrom headrace.cli import main\n"
        f"main({list(words)!r})\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


HEAVY = {"sqlalchemy", "alembic", "asyncpg", "aiosqlite", "httpx", "httpx2", "pydantic", "protovalidate"}


@pytest.mark.parametrize("words", [["--help"], ["flow-run", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_next_to_nothing(words: list[str], headrace_home: pathlib.Path) -> None:
    loaded = loaded_by(*words)
    assert loaded.isdisjoint(HEAVY | {"cyclopts", "rich", "grpc", "google", "headrace_services", "asyncio"})


def test_help_of_a_command_needs_no_server_code(headrace_home: pathlib.Path) -> None:
    assert loaded_by("config", "set", "--help").isdisjoint(HEAVY | {"grpc", "headrace_services"})


def test_json_output_needs_no_rich(headrace_home: pathlib.Path) -> None:
    assert loaded_by("profile", "ls", "-o", "json").isdisjoint(HEAVY | {"rich", "grpc", "headrace_services"})
    assert loaded_by("profile", "ls").isdisjoint(HEAVY | {"rich", "grpc", "headrace_services"})
