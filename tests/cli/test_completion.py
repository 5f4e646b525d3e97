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


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["headrace", "flow-run", "ins"], ["inspect"]),
        (["headrace", "flow-run", "ls", "--state-t"], ["--state-type"]),
        (["headrace", "flow-run", "ls", "-o", "js"], ["json", "jsonl"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes(words: list[str], offered: list[str], cli: Cli, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script"
    script.write_text(cli("completion", "show", "bash").out)
    asked = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"source {script}; COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; "
            "_headrace 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(word.strip() for word in done.stdout.split()) == offered


def test_without_a_server_no_names_are_offered_and_none_is_started(
    cli: Cli, headrace_home: pathlib.Path
) -> None:
    answer = cli("__complete", "flow-run", "inspect", "")
    assert (answer.code, answer.out.split(), answer.err) == (0, ["begin"], "")
    assert not (headrace_home / "server.json").exists()


def test_names_of_profiles_are_offered(cli: Cli) -> None:
    cli("profile", "create", "other")
    assert cli("__complete", "profile", "use", "").out.split()[1:] == ["default", "other"]
