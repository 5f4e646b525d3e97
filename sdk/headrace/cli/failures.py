"""What a command says when it cannot do what was asked, and the exit code that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum

__all__ = ["CliError", "ExitCode", "explain", "nearest", "one_line"]


class ExitCode(IntEnum):
    """What scripts can tell apart."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    TIMEOUT = 124
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CliError(Exception):
    """A command ends here, with one line on stderr.

    Attributes:
        message: what is wrong.
        hint: what to do next, as a sentence; may be empty.
        code: the process's exit code.
        detail: lines to show before it; may be empty.
    """

    def __init__(
        self, message: str, hint: str = "", *, code: ExitCode = ExitCode.FAILED, detail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the known word most like `word`, or the empty string."""
    by_folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f"Did you mean '{by_folded[close[0]]}'?" if close else ""


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, so that it stays one line of a terminal or a log."""
    joined = " ".join(text.split())
    return "".join(c for c in joined if c.isprintable())


def explain(error: BaseException) -> tuple[str, ExitCode] | None:
    """What to say about `error`, and the exit code; None: it is a defect, not something foreseen."""
    if isinstance(error, CliError):
        return str(error), error.code
    from headrace.core import errors

    if isinstance(error, errors.ObjectNotFound):
        return error.message, ExitCode.NOT_FOUND
    if isinstance(error, errors.Unauthenticated):
        how = "`headrace config set API_AUTH_STRING=user:password`, or HEADRACE_API_AUTH_STRING"
        return f"The server does not accept these credentials. Give others: {how}.", ExitCode.AUTH
    if isinstance(error, errors.PermissionMissing):
        return error.message, ExitCode.AUTH
    if isinstance(error, errors.FieldsInvalid) and error.violations:
        return "; ".join(f"{v.field}: {v.description}" for v in error.violations), ExitCode.USAGE
    if isinstance(error, errors.ConfigurationError):
        return str(error), ExitCode.USAGE
    if isinstance(error, errors.HeadraceException):
        return one_line(str(error)), ExitCode.FAILED
    return None
