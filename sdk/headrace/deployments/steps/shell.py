"""Steps that run programs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import IO, Any

import anyio
from anyio.abc import ByteReceiveStream
from anyio.streams.text import TextReceiveStream

__all__ = ["pip_install_requirements", "run_shell_script"]


async def run_shell_script(
    script: str,
    directory: str | None = None,
    env: Mapping[str, str] | None = None,
    stream_output: bool = True,
    expand_env_vars: bool = False,
    shell: bool = False,
) -> dict[str, str]:
    """Run each line of a script as a program, or all of it in one shell.

    Args:
        script: lines; empty ones and comments are passed over.
        directory: where to run it; unset: the current directory.
        env: variables besides those of this process.
        stream_output: show what the programs write, while they write it.
        expand_env_vars: replace `$NAME` and `${NAME}` in the script.
        shell: give the whole script to `sh`, or to the system's shell on Windows.

    Returns:
        `stdout` and `stderr`, without white space around them.

    Raises:
        RuntimeError: a program ended with another code than 0. Those after it were not run.
        OSError: there is no such program, or directory.
    """
    variables = {**os.environ, **(env or {})}
    text = Template(script).safe_substitute(variables) if expand_env_vars else script
    commands: list[str | list[str]] = [text] if shell else _lines(text)
    written: dict[str, list[str]] = {"stdout": [], "stderr": []}
    for command in commands:
        code = await _run(command, directory, variables, stream_output, written)
        if code:
            shown = "the script" if shell else shlex.join(command)
            said = "".join(written["stderr"]).strip().splitlines()[-5:]
            raise RuntimeError("\n".join([f"{shown} ended with code {code}.", *said]))
    return {name: "".join(parts).strip() for name, parts in written.items()}


async def pip_install_requirements(
    directory: str | None = None, requirements_file: str = "requirements.txt", stream_output: bool = True
) -> dict[str, str]:
    """Install what a requirements file names, with pip, into the environment of this process.

    Args:
        directory: of the file; unset: the current directory.
        requirements_file: name of the file.
        stream_output: show what pip writes.

    Returns:
        `stdout` and `stderr` of pip.

    Raises:
        RuntimeError: pip failed.
    """
    command = shlex.join([sys.executable, "-m", "pip", "install", "-r", requirements_file])
    return await run_shell_script(command, directory, stream_output=stream_output)


def _lines(script: str) -> list[str | list[str]]:
    lines = [shlex.split(line, comments=True) for line in script.splitlines()]
    return [line for line in lines if line]


async def _run(
    command: str | list[str],
    directory: str | None,
    variables: Mapping[str, str],
    stream_output: bool,
    written: dict[str, list[str]],
) -> int:
    async with await anyio.open_process(
        command, cwd=Path(directory) if directory else None, env=variables, stdin=subprocess.DEVNULL
    ) as process:
        async with anyio.create_task_group() as readers:
            for name, source, shown in (
                ("stdout", process.stdout, sys.stdout),
                ("stderr", process.stderr, sys.stderr),
            ):
                readers.start_soon(_read, source, written[name], shown if stream_output else None)
        return await process.wait()


async def _read(source: ByteReceiveStream | None, kept: list[str], shown: IO[Any] | None) -> None:
    if source is None:
        return
    async for text in TextReceiveStream(source, errors="replace"):
        kept.append(text)
        if shown is not None:
            shown.write(text)
            shown.flush()
