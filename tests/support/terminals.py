"""A process on a terminal of its own."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

__all__ = ["Shown", "on_a_terminal"]

_SECONDS = 60.0


class Shown(str):
    """What a process wrote to its terminal, control codes included.

    Attributes:
        code: its exit code.
    """

    code: int = -1


def on_a_terminal(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: pathlib.Path,
    *,
    typed: str = "",
    after: str = "",
    is_interrupted: bool = False,
) -> Shown:
    """Run `command` on a terminal of 100 columns and 40 rows, until it ends.

    Args:
        command: the words.
        environment: all of it, but for what describes the terminal.
        cwd: its working folder.
        typed: what the person types.
        after: once this has been shown.
        is_interrupted: by Ctrl-C, in the place of what is typed.
    """
    settings = {**environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    settings.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            command, cwd=cwd, env=settings, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
        ) as process:
            os.close(theirs)

            def act() -> None:
                if is_interrupted:
                    process.send_signal(signal.SIGINT)
                elif typed:
                    os.write(ours, typed.encode())

            shown = Shown(_converse(ours, act, after))
            shown.code = process.wait(60)
    finally:
        os.close(ours)
    return shown


def _converse(terminal: int, act: Callable[[], None], after: str) -> str:
    shown, has_acted = b"", False
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if not has_acted and after.encode() in shown:
            act()
            has_acted = True
    return shown.decode()
