"""config and profile: what is written, what is refused, what is kept."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from tests.cli.conftest import Cli
from tests.support.terminals import on_a_terminal


def test_a_value_that_is_set_is_in_force(cli: Cli, headrace_home: pathlib.Path) -> None:
    assert cli("config", "set", "api_url=localhost:9", "HEADRACE_LOGGING_LEVEL=DEBUG").code == 0
    found = {s["name"]: s for s in json.loads(cli("config", "view", "-o", "json").out)}
    assert found["HEADRACE_API_URL"]["value"] == "localhost:9"
    assert found["HEADRACE_API_URL"]["source"].endswith("profiles.toml [profiles.default]")
    assert found["HEADRACE_LOGGING_LEVEL"]["value"] == "DEBUG"
    assert stat.S_IMODE((headrace_home / "profiles.toml").stat().st_mode) == 0o600


def test_a_value_that_is_not_allowed_changes_nothing(cli: Cli, headrace_home: pathlib.Path) -> None:
    cli("config", "set", "api_url=localhost:9")
    before = (headrace_home / "profiles.toml").read_bytes()
    assert cli("config", "set", "LOGGING_LEVEL=DEBUG", "api_url=nonsense").code == 2
    assert (headrace_home / "profiles.toml").read_bytes() == before


def test_settings_of_the_server_can_be_set_and_are_checked(cli: Cli) -> None:
    assert cli("config", "set", "SERVER_API_PORT=x").code == 2
    assert cli("config", "set", "SERVER_API_PORT=4300").code == 0
    assert json.loads(cli("profile", "inspect", "-o", "json").out)["settings"] == {
        "HEADRACE_SERVER_API_PORT": "4300"
    }


def test_comments_and_order_survive(cli: Cli, headrace_home: pathlib.Path) -> None:
    file = headrace_home / "profiles.toml"
    file.write_text('# mine\nactive = "a"\n\n[profiles.a]\n# why\napi_url = "off"  # off\n\n[profiles.b]\n')
    cli("config", "set", "LOGGING_LEVEL=DEBUG")
    assert file.read_text().startswith(
        '# mine\nactive = "a"\n\n[profiles.a]\n# why\napi_url = "off"  # off\n'
    )
    assert 'HEADRACE_LOGGING_LEVEL = "DEBUG"' in file.read_text()


def test_setting_a_value_again_replaces_every_spelling(cli: Cli, headrace_home: pathlib.Path) -> None:
    file = headrace_home / "profiles.toml"
    file.write_text('[profiles.default]\napi_url = "off"\n')
    cli("config", "set", "API_URL=auto")
    assert "off" not in file.read_text()


def test_secrets_are_hidden_unless_asked_for(cli: Cli) -> None:
    cli("config", "set", "API_AUTH_STRING=me:hunter2", "SERVER_API_AUTH_STRING=me:hunter3")
    for words in (["config", "view", "-o", "json"], ["config", "view"], ["profile", "inspect"]):
        assert "hunter" not in "".join(map(str, cli(*words)))
    assert "hunter2" in cli("config", "view", "--show-secrets").out
    assert "hunter3" in cli("profile", "inspect", "--show-secrets").out


def test_defaults_are_shown_when_asked_for(cli: Cli) -> None:
    names = {s["name"] for s in json.loads(cli("config", "view", "-o", "json").out)}
    assert names == {"HEADRACE_HOME"}
    shown = json.loads(cli("config", "view", "--show-defaults", "-o", "json").out)
    assert {"HEADRACE_API_URL", "HEADRACE_HOME"} < {s["name"] for s in shown}
    assert all(s["description"] for s in shown)


def test_profiles_from_their_making_to_their_end(cli: Cli) -> None:
    cli("config", "set", "LOGGING_LEVEL=DEBUG")
    assert cli("profile", "create", "prod", "--from", "default").code == 0
    assert cli("profile", "create", "prod").code == 1
    assert cli("profile", "use", "prod").code == 0
    assert json.loads(cli("profile", "ls", "-o", "json").out) == [
        {"name": "default", "active": False},
        {"name": "prod", "active": True},
    ]
    assert cli("profile", "rename", "prod", "live").code == 0
    assert json.loads(cli("profile", "inspect", "-o", "json").out) == {
        "name": "live",
        "active": True,
        "settings": {"HEADRACE_LOGGING_LEVEL": "DEBUG"},
    }
    assert cli("profile", "delete", "live", "-y").code == 1
    cli("profile", "use", "default")
    assert cli("profile", "delete", "live").code == 2, "nobody can be asked"
    assert cli("profile", "delete", "live", "-y").code == 0
    assert cli("profile", "ls", "-q").out == "default\n"


def test_a_profile_that_is_gone_can_be_left(cli: Cli, headrace_home: pathlib.Path) -> None:
    (headrace_home / "profiles.toml").write_text('active = "gone"\n')
    assert cli("config", "view").code == 2
    assert cli("profile", "use", "default").code == 0
    assert cli("config", "view").code == 0


def test_validate_names_every_broken_profile(cli: Cli, headrace_home: pathlib.Path) -> None:
    assert cli("config", "validate").code == 0
    (headrace_home / "profiles.toml").write_text(
        '[profiles.a]\napi_url = "nonsense"\n[profiles.b]\nno_such_setting = 1\n'
    )
    code, out, err = cli("config", "validate", "-o", "json")
    assert code == 2
    assert len(json.loads(out)["problems"]) == 2
    assert "nonsense" in err
    assert "no_such_setting" in err


def test_a_broken_file_is_named_with_its_line(cli: Cli, headrace_home: pathlib.Path) -> None:
    (headrace_home / "profiles.toml").write_text("active = \n")
    for words in (["config", "view"], ["profile", "ls"], ["config", "set", "API_URL=off"]):
        code, _, err = cli(*words)
        assert code == 2
        assert "profiles.toml" in err
        assert err.count("\n") == 1


def test_many_writers_at_once_lose_nothing(headrace_home: pathlib.Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "headrace", "profile", "create", f"p{i}"], stderr=subprocess.PIPE
        )
        for i in range(6)
    ]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    text = (headrace_home / "profiles.toml").read_text()
    assert all(f"[profiles.p{i}]" in text for i in range(6))


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, 1), ("n\n", 1, 2), ("\n", 1, 2)])
def test_on_a_terminal_a_delete_asks(
    typed: str, code: int, left: int, cli: Cli, headrace_home: pathlib.Path
) -> None:
    cli("profile", "create", "other")
    command = [sys.executable, "-m", "headrace", "profile", "delete", "other"]
    shown = on_a_terminal(command, os.environ, headrace_home, typed=typed, after="[y/N]")
    assert shown.code == code, shown
    assert "Delete profile other? [y/N]" in shown
    assert len(cli("profile", "ls", "-q").out.split()) == left


@pytest.mark.parametrize("words", [["--no-prompt"], []], ids=["option", "setting"])
def test_nothing_is_asked_of_somebody_who_has_said_so(
    words: list[str], cli: Cli, headrace_home: pathlib.Path
) -> None:
    cli("profile", "create", "other")
    command = [sys.executable, "-m", "headrace", *words, "profile", "delete", "other"]
    environment = {**os.environ} if words else {**os.environ, "HEADRACE_CLI_PROMPT": "false"}
    shown = on_a_terminal(command, environment, headrace_home)
    assert shown.code == 2
    assert "Say --yes" in shown
