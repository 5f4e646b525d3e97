"""Questions, asked only of somebody who can answer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from headrace.cli.failures import CliError, ExitCode
from headrace.settings import get_current_settings

__all__ = ["ask", "can_ask", "choose", "confirm", "read_line"]


def read_line(question: str) -> str:
    """The line that somebody answers the question with, empty at the end of standard input.

    Raises:
        KeyboardInterrupt: Ctrl-C, at once. The event loop that a command runs on would only note it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def can_ask() -> bool:
    """Whether a person is there to answer: a terminal on both sides, and `cli_prompt` is not off."""
    return sys.stdin.isatty() and sys.stderr.isatty() and get_current_settings().cli_prompt


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the person agrees.

    Args:
        question: says exactly what will happen.
        yes: the person has agreed on the command line.

    Raises:
        CliError: the answer is no, or nobody can be asked.
    """
    if yes:
        return
    if not can_ask():
        raise CliError(
            f"{question} Not without being told so.",
            "Say --yes, or run it on a terminal.",
            code=ExitCode.USAGE,
        )
    if read_line(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise CliError("Nothing was changed.")


def ask(question: str, usual: str = "") -> str:
    """What the person says, or `usual` for an empty line; asked again while there is nothing.

    Raises:
        CliError: the person says no more.
    """
    while True:
        shown = f"{question} [{usual}]: " if usual else f"{question}: "
        line = read_line(shown)
        if not line:
            raise CliError("Nothing was said.")
        if said := line.strip() or usual:
            return said


def choose(question: str, answers: Sequence[str]) -> int:
    """Which of the answers the person wants, by its number or its text; asked again until it is one.

    Returns:
        Its index.

    Raises:
        CliError: the person says nothing.
    """
    for number, answer in enumerate(answers, 1):
        print(f"{number:>4}  {answer}", file=sys.stderr)
    while True:
        line = read_line(f"{question} [1-{len(answers)}] ")
        if not line:
            raise CliError("Nothing was chosen.")
        said = line.strip()
        if said in answers:
            return answers.index(said)
        if said.isdecimal() and 1 <= int(said) <= len(answers):
            return int(said) - 1
