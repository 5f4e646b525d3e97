"""Mistakes on the command line: one line that says what is right, exit code 2 or 3, no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("flow-rn ls", 2, "There is no command 'flow-rn'. Did you mean 'flow-run'?"),
        ("xyzzy", 2, "There is no command 'xyzzy'. See `headrace --help`."),
        ("flow-run lst", 2, "There is no command 'flow-run lst'. Did you mean 'ls'?"),
        ("flows inspct", 2, "There is no command 'flow inspct'. Did you mean 'inspect'?"),
        ("--proflie x", 2, "There is no option '--proflie'. Did you mean '--profile'?"),
        ("--profile", 2, "--profile needs a name. See `headrace profile ls`."),
        ("flow-run ls --limt 3", 2, "Unknown option: --limt. Did you mean --limit?"),
        ("flow-run ls --limit many", 2, 'Invalid value for --limit: unable to convert "many" into int.'),
        ("flow-run ls -o yaml", 2, 'Choose from: "table", "json", "jsonl".'),
        ("flow-run ls --limit -1", 2, "Must be >= 0."),
        ("flow-run logs x --tail 0", 2, "Must be >= 1."),
        ("flow-run graph x --max-nodes 10001", 2, "Must be <= 10000."),
        ("flow-run watch x --timeout 0", 2, "Must be > 0."),
        ("flow-run ls extra", 2, "Unused Tokens: ['extra']."),
        ("flow-run inspect", 2, "FLOW_RUN is missing. See"),
        ("flow-run reschedule x", 2, "--at is missing. See"),
        ("flow-run reschedule x --at", 2, "--at requires an argument"),
        ("flow-run ls --state-type FALED", 2, "There is no state type 'FALED'. Did you mean 'FAILED'?"),
        ("flow-run ls --since yesterday", 2, "'yesterday' is not a time."),
        ("flow-run logs x --level loud", 2, "There is no log level 'loud'."),
        ("flow-run logs x -f -o json", 2, "Use -o jsonl."),
        ("flow-run graph x --dot -o json", 2, "exclude each other"),
        ("profile use nope", 3, "There is no profile 'nope'."),
        ("--profile nope config view", 2, "There is no profile nope"),
        ("config set API_ULR=x", 2, "There is no setting API_ULR. Did you mean 'api_url'?"),
        ("config set API_URL", 2, "'API_URL' is not of the form NAME=VALUE."),
        ("config set API_URL=nonsense", 2, "'nonsense' is not allowed"),
        ("config unset API_URL -y", 3, "Profile default does not set HEADRACE_API_URL."),
        ("run nothing.py", 3, "nothing.py is not there."),
        ("run no_such_module:flow", 3, "There is no module 'no_such_module'."),
    ],
)
def test_a_mistake_is_told_in_one_line(words: str, code: int, said: str, cli: Cli) -> None:
    answer = cli(*words.split())
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert answer.err.startswith("Error: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_debug_shows_the_traceback_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DEBUG", "1")
    assert "Traceback" in cli("profile", "use", "nope").err


def test_a_reader_that_goes_away_is_not_an_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "config", "view", "--show-defaults", "-o", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_options_before_the_command_may_follow_it(cli: Cli) -> None:
    cli("profile", "create", "other")
    assert "Active profile: other" in cli("--profile", "other", "config", "view").err
    assert "Active profile: other" in cli("config", "view", "--profile=other").err
    assert "Active profile: other" in cli("-p", "other", "config", "view").err
