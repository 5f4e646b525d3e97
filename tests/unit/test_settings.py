"""Settings: which source wins, what is allowed, and what a wrong value is answered with."""

from __future__ import annotations

import itertools
import logging
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

import headrace_workers
from headrace import context
from headrace.core import config
from headrace.core.config import Found
from headrace.core.errors import ConfigurationError, MissingProfileError
from headrace.settings import (
    OPTIONS,
    Settings,
    get_current_settings,
    list_settings,
    process_settings,
    sources,
    temporary_settings,
    use_profile,
)

SOURCES = ["explicit", "environment", "dotenv", "headrace.toml", "pyproject", "profile"]
TYPES: dict[str, tuple[Any, list[tuple[str, str, Any]]]] = {
    # name: its default, and for each source the text of a variable, of a TOML value, and what it means
    "tasks_default_retries": (0, [(str(n), str(n), n) for n in range(1, 7)]),
    "api_url": ("auto", [(f"h:{n}", f'"h:{n}"', f"h:{n}") for n in range(1, 7)]),
    "tasks_default_retry_delay_seconds": (
        0.0,
        [(f"{n}, 2.5", f"[{n}, 2.5]", (float(n), 2.5)) for n in range(1, 7)],
    ),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty working folder, an empty home, and nothing said yet."""
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    monkeypatch.setattr(sources, "_told", set())
    return work


def read() -> Settings:
    """The settings that a new process would have."""
    with temporary_settings() as settings:
        return settings


def put(source: str, name: str, text: str, toml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"HEADRACE_{name.upper()}"
    if source == "environment":
        monkeypatch.setenv(variable, text)
    elif source == "dotenv":
        pathlib.Path(".env").write_text(f'OTHER = "x\n{variable}="{text}" # ours\n')
    elif source == "headrace.toml":
        pathlib.Path("headrace.toml").write_text(f"{name} = {toml}\n")
    elif source == "pyproject":
        pathlib.Path("pyproject.toml").write_text(f"[tool.headrace]\n{name} = {toml}\n")
    elif source == "profile":
        profiles = pathlib.Path(get_home()) / "profiles.toml"
        profiles.write_text(f'active = "mine"\n[profiles.mine]\n{variable} = {toml}\n')


def get_home() -> str:
    return str(pathlib.Path.cwd().parent / "home")


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=len(SOURCES))))
def test_the_first_source_that_has_a_value_wins(
    present: tuple[bool, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, values = TYPES[name]
    updates: dict[str, Any] = {}
    expected = default
    for source, is_present, (text, toml, value) in reversed(list(zip(SOURCES, present, values, strict=True))):
        if is_present:
            expected = value
            if source == "explicit":
                updates[name] = text
            else:
                put(source, name, text, toml, monkeypatch)
    with temporary_settings(updates) as settings:
        assert getattr(settings, name) == expected


@pytest.mark.parametrize("source", SOURCES[1:])
def test_a_wrong_value_names_variable_source_and_allowed_form(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(source, "tasks_default_retries", "many", '"many"', monkeypatch)
    with pytest.raises(ConfigurationError) as error:
        read()
    message = str(error.value)
    assert "tasks_default_retries" in message.lower()
    assert "'many' is not allowed; give a whole number of at least 0" in message
    places = {
        "environment": "the environment",
        "dotenv": ".env",
        "headrace.toml": "headrace.toml",
        "pyproject": "pyproject.toml [tool.headrace]",
        "profile": "profiles.toml [profiles.mine]",
    }
    assert places[source] in message


def test_a_wrong_secret_is_not_repeated() -> None:
    secret = config.Option("key", None, config.integer(), "", True, None)
    with pytest.raises(ConfigurationError) as error:
        config.parse_found(secret, Found("hunter2", "HEADRACE_KEY", "the environment"))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("headrace.toml", "\n\nbroken = [", "headrace.toml, line 3"),
        ("headrace.toml", "a = 1\nb = = 2\n", "headrace.toml, line 2"),
        ("pyproject.toml", "[tool.headrace]\nx = 'y\n", "pyproject.toml, line 2"),
        ("../home/profiles.toml", "[profiles", "profiles.toml, line 1"),
        ("../home/profiles.toml", "profiles = 3", "profiles.toml"),
        (".env", "A=1\nHEADRACE_API_URL='auto\n", ".env, line 2: the quotes do not match"),
    ],
)
def test_a_broken_file_is_named_with_its_line(file: str, text: str, place: str) -> None:
    pathlib.Path(file).write_text(text)
    with pytest.raises(ConfigurationError, match=place.replace(".", r"\.")):
        read()


def test_names_are_one_in_every_spelling() -> None:
    pathlib.Path("headrace.toml").write_text(
        "HEADRACE_API_REQUEST_TIMEOUT_SECONDS = 5\n[logging]\nlevel = 'DEBUG'\n"
    )
    settings = read()
    assert (settings.api_request_timeout_seconds, settings.logging_level) == (5.0, "DEBUG")
    assert settings.get("HEADRACE_LOGGING_LEVEL") == settings.get("logging_level") == "DEBUG"


def test_an_unknown_name_is_an_error_in_a_file() -> None:
    pathlib.Path("headrace.toml").write_text("[api]\nurI = 'x'\n")
    with pytest.raises(ConfigurationError, match=r"there is no setting api\.urI\. Did you mean api_url\?"):
        read()


def test_an_unknown_name_is_a_warning_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HEADRACE_API_ULR", "x")
    monkeypatch.setenv("HEADRACE_SERVER_API_PORT", "4300")
    read()
    read()
    assert [r.message for r in caplog.records] == [
        "HEADRACE_API_ULR in the environment is not a setting. Did you mean api_url?"
    ]


def test_the_peers_names_are_read_with_one_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "7")
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    for _ in range(2):
        settings = read()
        assert (settings.tasks_default_retries, settings.api_request_timeout_seconds) == (7, 9.0)
        assert settings.api_url == "auto"
    assert sorted(r.message.split()[0] for r in caplog.records) == [
        "PREFECT_API_REQUEST_TIMEOUT",
        "PREFECT_TASKS_DEFAULT_RETRIES",
    ]
    monkeypatch.setenv("HEADRACE_TASKS_DEFAULT_RETRIES", "2")
    assert read().tasks_default_retries == 2
    monkeypatch.setenv("HEADRACE_COMPAT", "false")
    assert read().api_request_timeout_seconds == 60.0


def test_profiles_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pathlib.Path(get_home(), "profiles.toml").write_text(
        'active = "a"\n[profiles.a]\nAPI_URL = "a:1"\n[profiles.b]\nAPI_URL = "b:2"\n'
    )
    assert read().api_url == "a:1"
    with use_profile("b") as settings:
        assert settings.api_url == "b:2"
        with temporary_settings({"tasks_default_retries": 1}) as inner:
            assert inner.api_url == "b:2"
    with context.use_profile("b") as here:
        assert (here.profile, here.settings.api_url) == ("b", "b:2")
        assert context.get_settings_context().profile == "b"
    with pytest.raises(MissingProfileError, match="no profile c"), use_profile("c"):
        pass
    monkeypatch.setenv("HEADRACE_PROFILE", "b")
    assert read().api_url == "b:2"
    monkeypatch.setenv("HEADRACE_PROFILE", "c")
    with pytest.raises(MissingProfileError, match=r"no profile c .* There are: default, a, b"):
        read()


def test_a_profile_cannot_move_the_home() -> None:
    pathlib.Path(get_home(), "profiles.toml").write_text('[profiles.default]\nHOME = "/elsewhere"\n')
    with pytest.raises(ConfigurationError, match="cannot name another"):
        read()


def test_temporary_settings_stay_where_they_are() -> None:
    seen: list[int] = []
    with temporary_settings({"tasks_default_retries": 5}):
        thread = threading.Thread(target=lambda: seen.append(get_current_settings().tasks_default_retries))
        thread.start()
        thread.join()
        assert get_current_settings().tasks_default_retries == 5
        with temporary_settings(restore_defaults=["HEADRACE_TASKS_DEFAULT_RETRIES"]) as restored:
            assert restored.tasks_default_retries == 0
    assert seen == [0]
    assert get_current_settings().tasks_default_retries == 0


def test_settings_do_not_change_and_know_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DEBUG", "yes")
    with temporary_settings({"api_url": "off"}) as settings:
        with pytest.raises(AttributeError):
            settings.api_url = "auto"  # type: ignore[misc]
        found = {value.option.name: (value.value, value.source) for value in list_settings()}
    assert found["api_url"] == ("off", "temporary_settings")
    assert found["debug"] == (True, "the environment")
    assert found["logging_level"] == ("INFO", "default")


@pytest.mark.parametrize("text", ["https://h:1", "h", "h:0", "h:99999", "h:1/api", "", "http://h", "a b:1"])
def test_an_address_needs_host_and_port(text: str) -> None:
    with pytest.raises(ConfigurationError, match="localhost:4200"), temporary_settings({"api_url": text}):
        pass


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("AUTO", "auto"),
        (" off ", "off"),
        ("http://h:1", "h:1"),
        ("grpc://h:1/", "h:1"),
        ("[::1]:42", "[::1]:42"),
    ],
)
def test_addresses_come_in_several_forms(text: str, address: str) -> None:
    with temporary_settings({"api_url": text}) as settings:
        assert settings.api_url == address


@pytest.mark.parametrize(
    ("form", "raw", "value"),
    [
        (config.boolean, "On", True),
        (config.boolean, "", False),
        (config.optional(config.integer(1)), "none", None),
        (config.optional(config.integer(1)), "3", 3),
        (config.word_list, "a, b,,c", ("a", "b", "c")),
        (config.word_list, ["a", "b"], ("a", "b")),
        (config.duration_list, "[1, 2]", (1.0, 2.0)),
        (config.duration_list, 3, 3.0),
        (config.choice("Yes", "No"), "yes", "Yes"),
    ],
)
def test_forms_accept(form: config.Form[Any], raw: Any, value: Any) -> None:
    assert form.parse(raw) == value


@pytest.mark.parametrize(
    ("form", "raw"),
    [
        (config.integer(), True),
        (config.integer(0, 5), 6),
        (config.integer(), "1.5"),
        (config.number(), "inf"),
        (config.number(), "nan"),
        (config.number(0), -1),
        (config.boolean, "maybe"),
        (config.text, 3),
        (config.path, " "),
        (config.choice("a"), "b"),
        (config.duration_list, "1, -2"),
        (config.duration_list, "1, x"),
    ],
)
def test_forms_refuse(form: config.Form[Any], raw: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        form.parse(raw)


def test_every_setting_is_documented_and_its_default_is_allowed() -> None:
    for known in OPTIONS.values():
        assert known.doc.endswith((".", ")."))
        assert known.form.parse(known.default) == (
            known.default.expanduser() if isinstance(known.default, pathlib.Path) else known.default
        )


def test_reading_settings_is_cheap_to_import() -> None:
    program = (
        "import sys, headrace.settings; headrace.settings.get_current_settings(); "
        "heavy = {'pydantic', 'grpc', 'tomlkit', 'asyncio', 'google.protobuf'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    assert logging.getLogger("headrace.settings").level == logging.NOTSET


def test_every_setting_is_read_by_something() -> None:
    packages = [pathlib.Path(sources.__file__).parent.parent, pathlib.Path(headrace_workers.__file__).parent]
    files = [path for package in packages for path in package.rglob("*.py")]
    code = "".join(path.read_text() for path in files if path.parent.name not in {"settings", "v1"})
    unread = [name for name in OPTIONS if f".{name}" not in code and f"HEADRACE_{name.upper()}" not in code]
    assert unread == []


def test_a_setting_by_its_variable() -> None:
    from headrace.settings import HEADRACE_LOGGING_LEVEL

    with temporary_settings({HEADRACE_LOGGING_LEVEL: "ERROR"}):
        assert HEADRACE_LOGGING_LEVEL.value() == "ERROR"
    with pytest.raises(ImportError, match="HEADRACE_NONSENSE"):
        from headrace.settings import HEADRACE_NONSENSE  # noqa: F401


def test_settings_of_the_process_hold_everywhere_and_over_temporary_ones() -> None:
    seen: list[str] = []
    with temporary_settings({"logging_level": "ERROR"}):
        with process_settings({"logging_level": "DEBUG"}):
            thread = threading.Thread(target=lambda: seen.append(get_current_settings().logging_level))
            thread.start()
            thread.join()
            assert seen == [get_current_settings().logging_level] == ["DEBUG"]
            with temporary_settings({"logging_level": "INFO"}):
                assert get_current_settings().logging_level == "INFO"
        assert get_current_settings().logging_level == "ERROR"
