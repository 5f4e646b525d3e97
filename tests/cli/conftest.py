"""The command line in this process, and as a process of its own."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import pytest

from headrace.cli import main

__all__ = ["Answer", "Cli", "forget_settings"]


class Answer(NamedTuple):
    """What a command did.

    Attributes:
        code: its exit code.
        out: its stdout.
        err: its stderr.
    """

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], headrace_home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Runs a command in this process, with a home and a working folder of its own."""
    folder = headrace_home.parent / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "90")

    def run(*words: str) -> Answer:
        forget_settings(monkeypatch)
        capsys.readouterr()
        before = dict(os.environ)
        try:
            code = main(list(words))
        finally:
            # The global options are handed on in the environment.
            os.environ.clear()
            os.environ.update(before)
        captured = capsys.readouterr()
        return Answer(int(code), captured.out, captured.err)

    return run


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read once per process, a process being one command."""
    monkeypatch.setattr("headrace.settings._process", None)
