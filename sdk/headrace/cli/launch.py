"""From the words typed to an exit code: global options, help, the command, and its errors told in a line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from headrace.cli.catalogue import CATALOGUE, Command, Noun, find, plugins
from headrace.cli.failures import CliError, ExitCode, explain, nearest, one_line

__all__ = ["launch"]

COMPLETE = "__complete"
HELP_WORDS = frozenset({"--help", "-h"})
GLOBAL_OPTIONS = (
    ("--profile, -p NAME", "Use the settings of this profile."),
    ("--no-prompt", "Never ask; what would ask is refused or takes its default."),
    ("--version", "Show the version of headrace."),
    ("--help, -h", "Show this help."),
)


def launch(argv: list[str]) -> int:
    """Run the command in `argv`.

    Returns:
        The exit code; see `headrace.cli`.
    """
    # The C core would otherwise write its own lines about every connection that breaks.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        try:
            code = _dispatch(_take_global_options(argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads what Python would flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        return _tell(error)
    return code


def _tell(error: Exception) -> int:
    """Say on stderr what went wrong."""
    told = explain(error)
    # Not from the settings: they may be what is wrong.
    if told is None or os.environ.get("HEADRACE_DEBUG", "").lower() in ("1", "true", "yes", "on"):
        import traceback

        traceback.print_exception(error)
    if told is None:
        print(f"Error: a defect of headrace: {type(error).__name__}: {one_line(str(error))}", file=sys.stderr)
        return ExitCode.FAILED
    message, code = told
    if isinstance(error, CliError) and error.detail:
        print(error.detail.rstrip("\n"), file=sys.stderr)
    print(f"Error: {message}", file=sys.stderr)
    return code


def _take_global_options(argv: list[str]) -> list[str]:
    """Apply the global options, and return the words that are left.

    The long ones are taken wherever they stand before a `--`; `-p` only in front of the command, because
    commands have a `-p` of their own.
    """
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*rest, word, *words]
        if word == "--no-prompt":
            os.environ["HEADRACE_CLI_PROMPT"] = "false"
        elif word.startswith("--profile=") or (word.startswith("-p") and len(word) > 2 and not rest):
            _use_profile(word.partition("=")[2] if word.startswith("--") else word[2:])
        elif word == "--profile" or (word == "-p" and not rest):
            name = next(words, None)
            _use_profile(name if name is not None else "")
        else:
            rest.append(word)
    return rest


def _use_profile(name: str) -> None:
    if not name:
        _usage("--profile needs a name.", "See `headrace profile ls`.")
    os.environ["HEADRACE_PROFILE"] = name


def _usage(message: str, hint: str) -> NoReturn:
    raise CliError(message, hint, code=ExitCode.USAGE)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP_WORDS:
        return _show_root_help()
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("headrace"))
        return ExitCode.OK
    if words[0].startswith("-"):
        options = [names.split(",")[0].split(" ")[0] for names, _ in GLOBAL_OPTIONS]
        _usage(f"There is no option '{words[0]}'.", nearest(words[0], options) or "See `headrace --help`.")
    if words[0] == COMPLETE:
        from headrace.cli.app import build

        # The shell's completion script asks for names.
        command, bound, _ = build().parse_args(words)
        command(*bound.args, **bound.kwargs)
        return ExitCode.OK
    entry = find(words[0])
    if entry is None:
        known = [e.name for e in (*CATALOGUE, *plugins())]
        _usage(f"There is no command '{words[0]}'.", nearest(words[0], known) or "See `headrace --help`.")
    if isinstance(entry, Noun):
        if len(words) == 1 or words[1] in HELP_WORDS:
            return _show_noun_help(entry)
        words = [entry.name, *words[1:]]
        if not words[1].startswith("-") and all(words[1] != c.name for c in entry.commands):
            _usage(
                f"There is no command '{entry.name} {words[1]}'.",
                nearest(words[1], [c.name for c in entry.commands]) or f"See `headrace {entry.name} --help`.",
            )
    from headrace.cli.app import invoke

    return invoke(entry, words)


def _show_root_help() -> int:
    from headrace.cli.help import columns, paragraph

    listed: list[tuple[str, str]] = [(e.name, e.help) for e in (*CATALOGUE, *plugins())]
    print("Usage: headrace [OPTIONS] COMMAND\n")
    print(paragraph("headrace runs flows and shows what came of them."))
    print(columns("Commands", listed))
    print(columns("Options", list(GLOBAL_OPTIONS)), end="")
    return ExitCode.OK


def _show_noun_help(noun: Noun) -> int:
    from headrace.cli.help import columns, paragraph

    print(f"Usage: headrace {noun.name} COMMAND\n")
    print(paragraph(noun.help))
    print(columns("Commands", [(c.name, c.help) for c in noun.commands]), end="")
    return ExitCode.OK


def iter_commands() -> list[tuple[str, Command]]:
    """Every command of the catalogue with the words that call it."""
    found: list[tuple[str, Command]] = []
    for entry in CATALOGUE:
        if isinstance(entry, Command):
            found.append((entry.name, entry))
        else:
            found.extend((f"{entry.name} {command.name}", command) for command in entry.commands)
    return found
