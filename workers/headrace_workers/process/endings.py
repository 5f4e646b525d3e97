"""How a process has ended, in words."""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["exit_code_of", "explain_exit"]

_WORDS: Final = {
    0: "The process ended without having reported how the run ended (exit code 0).",
    125: "The container did not start (exit code 125).",
    126: "The command is not executable (exit code 126).",
    127: "The command was not found (exit code 127).",
    137: "The process was killed (exit code 137, SIGKILL), probably because memory ran out.",
    143: "The process was terminated (exit code 143, SIGTERM).",
    247: "The process was killed (exit code 247), probably because memory ran out.",
}
_SIGNALS: Final = {
    signal.SIGSEGV: "accessed memory that is not its own",
    signal.SIGBUS: "accessed memory that is not there",
    signal.SIGABRT: "aborted itself",
    signal.SIGILL: "ran into an instruction that this processor does not have",
    signal.SIGFPE: "made an arithmetic error in native code",
    signal.SIGXCPU: "used up its processor time",
    signal.SIGXFSZ: "wrote a larger file than it may",
}
_TAIL_LINES: Final = 5
_SIGNAL_BASE: Final = 128


def exit_code_of(status: int) -> int:
    """The code that a shell shows for a status of `waitpid`: 137 for a process that was killed by SIGKILL."""
    if os.WIFSIGNALED(status):
        return _SIGNAL_BASE + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def explain_exit(
    exit_code: int,
    *,
    killed_because: str = "",
    reason: str = "",
    last_output: str = "",
    peak_bytes: int = 0,
) -> str:
    """What a crash message says of the end of a process.

    Args:
        exit_code: as `exit_code_of` gives it.
        killed_because: why it was ended from here; empty: it was not.
        reason: a sentence of whoever knows more than the exit code says.
        last_output: the end of what it has printed.
        peak_bytes: the most memory it has had; 0: not known.
    """
    if killed_because:
        text = f"The process was ended because {killed_because}."
    elif reason:
        text = f"{reason} (exit code {exit_code})"
    elif exit_code in _WORDS:
        text = _WORDS[exit_code]
        if exit_code in (137, 247) and peak_bytes:
            text += f" It had {peak_bytes / 1024**2:,.0f} MiB at most."
    else:
        text = _other(exit_code)
    lines = last_output.strip().splitlines()
    # What the interpreter says of its own end stands above everybody's stack.
    fatal = [line for line in lines[:-_TAIL_LINES] if line.startswith("Fatal Python error")]
    tail = "\n".join([*fatal, *lines[-_TAIL_LINES:]])
    return f"{text} The last it printed:\n{tail}" if tail and exit_code else text


def _other(exit_code: int) -> str:
    if exit_code > _SIGNAL_BASE:
        try:
            number = signal.Signals(exit_code - _SIGNAL_BASE)
        except ValueError:
            return f"The process ended with exit code {exit_code}: see its log."
        why = _SIGNALS.get(number)
        words = f"it {why}" if why else signal.strsignal(number)
        return f"The process was ended by {number.name} (exit code {exit_code}): {words}."
    return f"The process ended with exit code {exit_code}: see its log."
