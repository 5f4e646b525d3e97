"""The catalogue as cyclopts apps, and how one of their commands is run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from headrace.cli.catalogue import CATALOGUE, Command, Noun, Plugin, plugins
from headrace.cli.failures import CliError, ExitCode, one_line
from headrace.cli.help import HelpFormatter

__all__ = ["build", "invoke"]


def _new_app(name: str | tuple[str, ...], **options: Any) -> App:
    return App(
        name=name,
        # Markdown would import a parser and a highlighter for every `--help`.
        help_format="plaintext",
        help_formatter=HelpFormatter(),
        help_flags=["--help", "-h"],
        version_flags=[],
        default_parameter=Parameter(negative=()),
        **options,
    )


def build(entries: tuple[Command | Noun | Plugin, ...] | None = None) -> App:
    """The app of the whole command line, or of some of its entries; no command's module is imported."""
    root = _new_app("headrace")
    for entry in entries if entries is not None else (*CATALOGUE, *plugins()):
        if isinstance(entry, Noun):
            noun = _new_app(entry.names, help=entry.help)
            for command in entry.commands:
                noun.command(command.target, name=command.name)
            root.command(noun)
        else:
            root.command(entry.target, name=entry.name)
    return root


def invoke(entry: Command | Noun | Plugin, words: list[str]) -> int:
    """Run the command that `words` spell, `entry` being what the first of them names.

    Returns:
        The exit code; 0 unless the command returns another.

    Raises:
        CliError: the words do not fit the command.
    """
    app = build((entry,))
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise CliError(_told(error), _see(entry, words), code=ExitCode.USAGE) from None
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        result = asyncio.run(_as_coroutine(result))
    return result if isinstance(result, int) else ExitCode.OK


def _told(error: CycloptsError) -> str:
    """What is wrong with the words, in a line."""
    is_absent = isinstance(error, MissingArgumentError) and error.keyword is None
    if is_absent and error.argument is not None and not error.argument.tokens:
        return f"{error.argument.name} is missing."
    error.verbose = False
    return one_line(str(error))


async def _as_coroutine(result: Coroutine[Any, Any, Any]) -> Any:
    return await result


def _see(entry: Command | Noun | Plugin, words: list[str]) -> str:
    named = words[:1] if isinstance(entry, Command) else [w for w in words[:2] if not w.startswith("-")]
    return f"See `{' '.join(['headrace', *named])} --help`."
