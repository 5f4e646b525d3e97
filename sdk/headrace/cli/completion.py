"""`headrace completion`: commands and options completed by the shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.completion import ShellDetectionError, detect_shell

from headrace.cli.app import build
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output
from headrace.cli.output import emit_json, say

__all__ = ["install", "show"]

Shell = Literal["bash", "zsh", "fish"]
ShellArgument = Annotated[
    Shell | None, Parameter(name="SHELL", help="bash, zsh or fish; the one in use if none is named.")
]


def install(
    shell: ShellArgument = None,
    /,
    *,
    path: Annotated[Path | None, Parameter(help="Write the script here and change no start-up file.")] = None,
    output: Output = "table",
) -> None:
    """Install completion for a shell."""
    shell = shell or _detected()
    app = build()
    written = app.install_completion(shell=shell, output=path, add_to_startup=path is None)
    if output != "table":
        emit_json({"shell": shell, "path": str(written)}, indent=2 if output == "json" else None)
    say(f"Wrote {written}. New {shell} sessions complete `headrace`.")


def show(shell: ShellArgument = None, /) -> None:
    """Print the completion script of a shell."""
    print(build().generate_completion(shell=shell or _detected(), prog_name="headrace"))


def _detected() -> Shell:
    try:
        found = detect_shell()
    except ShellDetectionError:
        pass
    else:
        if found != "powershell":
            return found
    raise CliError("It is not clear which shell you use.", "Name it: bash, zsh or fish.", code=ExitCode.USAGE)
