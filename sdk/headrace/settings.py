"""Settings of programs, clients and the command line.

The first source that has a value wins: `temporary_settings`, the environment (`HEADRACE_API_URL`), `.env` in
the working folder, `headrace.toml` there, `[tool.headrace]` in `pyproject.toml` there, the active profile of
`<home>/profiles.toml`, the default. They are read once per process and do not change after that. Where none
has a value, a variable of Prefect with the same meaning is taken, with one notice; `HEADRACE_COMPAT=false`
switches that off.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headrace.core import config
from headrace.core.config import Found, Layer, Option, option
from headrace.core.errors import ConfigurationError

__all__ = [
    "ENV_PREFIX",
    "OPTIONS",
    "Settings",
    "SettingValue",
    "canonical_name",
    "get_current_settings",
    "home_folder",
    "list_settings",
    "temporary_settings",
    "use_profile",
    "variable_name",
]

ENV_PREFIX = "HEADRACE_"
PEER_PREFIX = "PREFECT_"
DEFAULT_PROFILE = "default"
_MIB = 1024 * 1024
# Read by others: the server's settings, what replaces a value of the logging configuration, and what a parent
# process tells a child (`HEADRACE__...`).
_OTHER_FAMILIES = (
    "server_",
    "test_",
    "logging_formatters_",
    "logging_filters_",
    "logging_handlers_",
    "logging_loggers_",
    "logging_root_",
    "_",
)
_SELECTORS = ("profile", "compat")
_ADDRESS = re.compile(r"(?:(?:http|grpc)://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})/?")


def _parse_api_url(raw: Any) -> str:
    word = raw.strip()
    if word.lower() in {"auto", "off"}:
        return word.lower()
    match = _ADDRESS.fullmatch(word)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError
    return f"{match[1]}:{match[2]}"


_api_url: config.Form[str] = config.Form(
    "auto, off, or an address with its port such as localhost:4200 (http:// or grpc:// may stand before it)",
    _parse_api_url,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Immutable; `get_current_settings()` gives the present ones."""

    home: Path = option(
        Path("~/.headrace"), config.path, "Folder of this user's server, spool, profiles and results."
    )
    api_url: str = option(
        "auto",
        _api_url,
        "Where runs are recorded and asked for: auto (the server of this home, else its spool), "
        "off (runs are recorded nowhere), or an address such as localhost:4200.",
    )
    api_auth_string: str | None = option(
        None, config.optional(config.text), "Credentials for the server: user:password.", secret=True
    )
    api_request_timeout_seconds: float = option(
        60.0,
        config.number(0.001),
        "How long one call to the server may take, its retries included, in seconds.",
        peer="API_REQUEST_TIMEOUT",
    )
    api_connect_timeout_seconds: float = option(
        10.0,
        config.number(0.001),
        "How long a flow run waits at its start for the server at an explicit address, in seconds.",
    )
    api_offline: str = option(
        "error",
        config.choice("error", "allow"),
        "When the server at an explicit address does not answer as a flow run starts: error, or allow "
        "(run, keep the records in the spool, send them when it answers).",
    )
    recorder_spool_budget_bytes: int = option(
        256 * _MIB,
        config.integer(_MIB),
        "How much the spool of one process may hold, in bytes. Spans, then logs, are left out above it.",
    )
    recorder_on_full: str = option(
        "block",
        config.choice("block", "raise"),
        "When the spool is full of states, or its disk is: block until there is room, or raise.",
    )
    recorder_exit_timeout_seconds: float = option(
        10.0,
        config.number(0),
        "How long the end of the program waits for the server to take the last records, in seconds. "
        "What is left stays in the spool.",
    )
    logging_level: str = option("INFO", config.text, "Least level of log lines: a name or a number.")
    logging_log_prints: bool = option(False, config.boolean, "Whether print() in runs becomes log lines.")
    logging_extra_loggers: tuple[str, ...] = option(
        (), config.word_list, "Further loggers whose lines are recorded with the run."
    )
    logging_to_api_enabled: bool = option(True, config.boolean, "Whether log lines of runs are recorded.")
    logging_to_api_when_missing_flow: str = option(
        "warn",
        config.choice("warn", "error", "ignore"),
        "What a line sent to the server outside of a run does.",
    )
    logging_to_api_max_log_size: int = option(
        32 * 1024, config.integer(1, 32 * 1024), "A longer log message is cut, in bytes."
    )
    logging_colors: bool = option(True, config.boolean, "Whether log lines on a terminal have colours.")
    logging_config_path: Path | None = option(
        None, config.optional(config.path), "A logging configuration to use instead of the built-in one."
    )
    results_persist_by_default: bool = option(
        False, config.boolean, "Whether results are kept when neither flow nor task says."
    )
    results_default_serializer: str = option(
        "pickle", config.text, "How kept results become bytes when neither flow nor task says."
    )
    results_local_storage_path: Path | None = option(
        None, config.optional(config.path), "Folder of kept results; nothing: <home>/storage."
    )
    tasks_default_retries: int = option(0, config.integer(0), "Retries of a task that does not say.")
    tasks_default_retry_delay_seconds: float | tuple[float, ...] = option(
        0.0, config.duration_list, "Seconds before each retry of a task that does not say."
    )
    tasks_default_persist_result: bool | None = option(
        None, config.optional(config.boolean), "Whether results of tasks that do not say are kept."
    )
    tasks_runner_thread_pool_max_workers: int | None = option(
        None, config.optional(config.integer(1)), "Threads of a thread pool task runner; nothing: no bound."
    )
    flows_default_retries: int = option(0, config.integer(0), "Retries of a flow that does not say.")
    flows_default_retry_delay_seconds: float = option(
        0.0, config.number(0), "Seconds before each retry of a flow that does not say."
    )
    traces_exporter: str = option(
        "none",
        config.choice("none", "server", "otlp", "global"),
        "Where spans of runs go: none, server (recorded with the run), otlp (as OTEL_EXPORTER_OTLP_* says), "
        "global (the program's own OpenTelemetry provider).",
    )
    cli_colors: bool = option(True, config.boolean, "Whether commands colour what they show on a terminal.")
    cli_prompt: bool = option(
        True, config.boolean, "Whether commands may ask on a terminal; if not, what would ask is refused."
    )
    debug: bool = option(
        False, config.boolean, "Whether commands show the traceback of an error too.", peer="DEBUG_MODE"
    )

    def get(self, name: str) -> Any:
        """The value of the setting called `name`, as a variable, a key or an attribute.

        Raises:
            ConfigurationError: there is no such setting.
        """
        return getattr(self, canonical_name(name))


OPTIONS: Mapping[str, Option] = config.options_of(Settings)
"""Every setting, in the order of the documentation."""

# A Prefect server, its credentials and its folder are no use to headrace.
_NOT_TAKEN = frozenset({"home", "api_url", "api_auth_string", "logging_config_path"})


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting with its value and the words that say where that came from."""

    option: Option
    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class _State:
    settings: Settings
    sources: Mapping[str, str]
    explicit: Layer
    profile: str


_process: _State | None = None
_override: ContextVar[_State | None] = ContextVar("headrace_settings", default=None)


def get_current_settings() -> Settings:
    """The settings in force here: those of `temporary_settings` in this context, else the process's.

    Raises:
        ConfigurationError: a source is broken or holds a value that is not allowed.
    """
    return _current().settings


def list_settings() -> list[SettingValue]:
    """Every setting with its value and source.

    Raises:
        ConfigurationError: as `get_current_settings`.
    """
    state = _current()
    return [
        SettingValue(known, getattr(state.settings, name), state.sources[name])
        for name, known in OPTIONS.items()
    ]


def home_folder() -> Path:
    """The home, also when the profile that is asked for is missing or wrong: a profile cannot move it.

    Raises:
        ConfigurationError: another source is broken.
    """
    folder = Path.cwd()
    environment = config.environment_layer(os.environ, ENV_PREFIX)
    return _home([environment, config.dotenv_layer(folder / ".env", ENV_PREFIX), *_file_layers(folder)])


def active_profile() -> str:
    """The name of the profile whose values are in force."""
    return _current().profile


def canonical_name(name: str) -> str:
    """`api_url` for any of `api_url`, `API_URL`, `HEADRACE_API_URL`.

    Raises:
        ConfigurationError: there is no such setting; the message has the nearest name.
    """
    found = name.lower().removeprefix(ENV_PREFIX.lower())
    if found not in OPTIONS:
        raise ConfigurationError(f"There is no setting {name}.{_suggestion(found)}")
    return found


def variable_name(name: str) -> str:
    """The environment variable of a setting: `HEADRACE_API_URL` for `api_url`."""
    return ENV_PREFIX + name.upper()


@contextmanager
def temporary_settings(
    updates: Mapping[str, Any] | None = None, restore_defaults: Iterable[str] | None = None
) -> Generator[Settings]:
    """Other settings inside the `with` block, for this context only: other threads do not see them.

    Args:
        updates: values by setting name, typed or as text.
        restore_defaults: names of settings that get their default, whatever the sources say.

    Raises:
        ConfigurationError: a name or a value is not allowed.
    """
    state = _current()
    explicit = dict(state.explicit)
    for name in restore_defaults or ():
        key = canonical_name(name)
        explicit[key] = Found(_DEFAULT, variable_name(key), "temporary_settings")
    for name, value in (updates or {}).items():
        key = canonical_name(name)
        explicit[key] = Found(value, variable_name(key), "temporary_settings")
    token = _override.set(_load(explicit, state.profile))
    try:
        yield _current().settings
    finally:
        _override.reset(token)


@contextmanager
def use_profile(name: str) -> Generator[Settings]:
    """The settings with another profile active, inside the `with` block.

    Raises:
        ConfigurationError: there is no such profile.
    """
    token = _override.set(_load(_current_explicit(), name))
    try:
        yield _current().settings
    finally:
        _override.reset(token)


def _current() -> _State:
    global _process
    state = _override.get() or _process
    if state is None:
        state = _process = _load({}, None)
    return state


def _current_explicit() -> Layer:
    state = _override.get()
    return state.explicit if state else {}


_DEFAULT = object()


def _load(explicit: Layer, profile: str | None) -> _State:
    """Read every source."""
    folder = Path.cwd()
    environment = config.environment_layer(os.environ, ENV_PREFIX)
    dotenv = config.dotenv_layer(folder / ".env", ENV_PREFIX)
    files = _file_layers(folder)
    _warn_unknown(environment, dotenv)
    fixed = {key: found for key, found in explicit.items() if found.raw is not _DEFAULT}
    layers: list[Layer] = [fixed, environment, dotenv, *files]
    home = _home(layers)
    profile = profile or _selected_profile(environment, dotenv)
    profile, values = _profile_layer(home, profile)
    layers.append(values)
    if _wants_compat(environment, dotenv):
        layers.append(_peer_layer(layers))
    resolved = config.resolve(OPTIONS, layers)
    for key, found in explicit.items():
        if found.raw is _DEFAULT:
            resolved.values[key], resolved.sources[key] = OPTIONS[key].default, found.source
    resolved.values["home"] = resolved.values["home"].expanduser()
    return _State(Settings(**resolved.values), resolved.sources, explicit, profile)


def _home(layers: Iterable[Layer]) -> Path:
    return cast("Path", config.resolve({"home": OPTIONS["home"]}, layers).values["home"].expanduser())


def _file_layers(folder: Path) -> list[Layer]:
    layers: list[Layer] = []
    own = folder / "headrace.toml"
    project = folder / "pyproject.toml"
    layers.append(_checked(config.table_layer(config.read_toml(own), own, "", ENV_PREFIX)))
    try:
        mentions_us = b"headrace" in project.read_bytes()
    except OSError:
        mentions_us = False
    if mentions_us:
        table = config.read_toml(project).get("tool", {}).get("headrace", {})
        layers.append(_checked(config.table_layer(table, project, "tool.headrace", ENV_PREFIX)))
    return layers


def _checked(layer: Mapping[str, Found]) -> Layer:
    """The layer of a file, whose names must all be known."""
    for name, found in layer.items():
        if name not in OPTIONS and not name.startswith(_OTHER_FAMILIES):
            raise ConfigurationError(
                f"{found.source}: there is no setting {found.variable}.{_suggestion(name)}"
            )
    return layer


def _suggestion(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX.lower()), OPTIONS, n=1)
    return f" Did you mean {near[0]}?" if near else ""


_told: set[str] = set()


def _tell_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        logging.getLogger(__name__).warning("%s", message)


def _warn_unknown(*layers: Mapping[str, Found]) -> None:
    for layer in layers:
        for name, found in layer.items():
            if name not in OPTIONS and name not in _SELECTORS and not name.startswith(_OTHER_FAMILIES):
                _tell_once(f"{found.variable} in {found.source} is not a setting.{_suggestion(name)}")


def _selector(name: str, *layers: Layer) -> Found | None:
    return next((layer[name] for layer in layers if name in layer), None)


def _selected_profile(*layers: Layer) -> str | None:
    found = _selector("profile", *layers)
    return str(found.raw) if found and found.raw else None


def _wants_compat(*layers: Layer) -> bool:
    found = _selector("compat", *layers)
    known = Option("compat", True, config.boolean, "", False, None)
    return bool(config.parse_found(known, found)) if found else True


def _profile_layer(home: Path, selected: str | None) -> tuple[str, Layer]:
    file = home / "profiles.toml"
    document = config.read_toml(file)
    profiles: Any = document.get("profiles", {})
    name: Any = selected or document.get("active", DEFAULT_PROFILE)
    if not isinstance(profiles, dict) or not isinstance(name, str):
        raise ConfigurationError(f'{file}: active = "NAME" and tables [profiles.NAME] are expected.')
    if name not in profiles:
        if name == DEFAULT_PROFILE:
            return name, {}
        known = ", ".join(dict.fromkeys([DEFAULT_PROFILE, *cast("dict[str, Any]", profiles)]))
        raise ConfigurationError(f"There is no profile {name} in {file}. There are: {known}.")
    table = cast("dict[str, Any]", profiles)[name]
    return name, _checked(config.table_layer(table, file, f"profiles.{name}", ENV_PREFIX))


def _peer_layer(ours: Iterable[Layer]) -> Layer:
    """Prefect's variables for settings that no source of ours has."""
    have = set[str]().union(*ours)
    taken: dict[str, Found] = {}
    for name, known in OPTIONS.items():
        variable = PEER_PREFIX + (known.peer or name.upper())
        if name not in have and name not in _NOT_TAKEN and variable in os.environ:
            taken[name] = Found(os.environ[variable], variable, "the environment")
            _tell_once(
                f"{variable} is used for {variable_name(name)}, which is not set. "
                f"HEADRACE_COMPAT=false switches this off."
            )
    return taken
