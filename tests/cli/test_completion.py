"""Completion scripts: for the whole tree, in each shell's own syntax."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from headrace.cli.launch import iter_commands
from tests.cli.conftest import Cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command(shell: str, cli: Cli, tmp_path: pathlib.Path) -> None:
    code, script, _ = cli("completion", "show", shell)
    assert code == 0
    for words, _command in iter_commands():
        assert words.split()[-1] in script
    assert "server" in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script)
        subprocess.run([shell, "-n", str(file)], check=True)


def test_install_writes_where_it_is_told(cli: Cli, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "completions" / "headrace"
    code, out, err = cli("completion", "install", "bash", "--path", str(path), "-o", "json")
    assert code == 0
    assert str(path) in out
    assert "Wrote" in err
    assert path.read_text() == cli("completion", "show", "bash").out.removesuffix("\n")


def test_an_unknown_shell_is_refused(cli: Cli) -> None:
    assert cli("completion", "show", "tcsh").code == 2
