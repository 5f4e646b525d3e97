"""Questions, asked only of somebody who can answer."""

from __future__ import annotations

import sys

from headrace.cli.failures import CliError, ExitCode
from headrace.settings import get_current_settings

__all__ = ["can_ask", "confirm"]


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
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("Nothing was changed.")
