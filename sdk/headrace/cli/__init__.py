"""The command line: `headrace NOUN VERB`.

Data goes to stdout, everything said about it to stderr. Exit codes:

    0    done; a run that was waited for has completed
    1    a run that was waited for has failed, or the server answered with an error
    2    the command line, a parameter or a configuration file is wrong
    3    there is no such run, flow, profile, ...
    4    not signed in, or not allowed
    124  `--timeout` has passed
    130  Ctrl-C
    141  the reader of stdout has gone away

A user's mistake is told in one line. `HEADRACE_DEBUG=1` shows the traceback too.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `headrace`; None: those of this process.

    Returns:
        The exit code.
    """
    import sys

    from headrace.cli.launch import launch

    return launch(list(sys.argv[1:] if argv is None else argv))
