"""Settings of programs, clients and the command line.

The first source that has a value wins: `temporary_settings`, the environment (`HEADRACE_API_URL`), `.env` in
the working folder, `headrace.toml` there, `[tool.headrace]` in `pyproject.toml` there, the active profile of
`<home>/profiles.toml`, the default. They are read once per process and do not change after that. Where none
has a value, a variable of Prefect with the same meaning is taken, with one notice; `HEADRACE_COMPAT=false`
switches that off.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from headrace.core.config import Found, Layer, Option
from headrace.settings.schema import ENV_PREFIX, OPTIONS, Settings, canonical_name, variable_name
from headrace.settings.sources import DEFAULT_PROFILE, RESTORED, LoadedSettings, home_folder, load

__all__ = [
    "DEFAULT_PROFILE",
    "ENV_PREFIX",
    "OPTIONS",
    "Setting",
    "Settings",
    "SettingValue",
    "active_profile",
    "canonical_name",
    "carried_settings",
    "get_current_settings",
    "home_folder",
    "list_settings",
    "process_settings",
    "temporary_settings",
    "use_carried_settings",
    "use_profile",
    "variable_name",
]


class Setting(str):
    """A setting by its variable: `from headrace.settings import HEADRACE_LOGGING_LEVEL`.

    It is the variable's name, for `temporary_settings({HEADRACE_LOGGING_LEVEL: "DEBUG"})`.
    """

    __slots__ = ()

    def value(self) -> Any:
        """The value in force here."""
        return get_current_settings().get(self)


def __getattr__(name: str) -> Setting:
    if name.startswith(ENV_PREFIX) and name.removeprefix(ENV_PREFIX).lower() in OPTIONS:
        return Setting(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting with its value and the words that say where that came from."""

    option: Option
    value: Any
    source: str


_process: LoadedSettings | None = None
_epochs = itertools.count(1)
_epoch = 0
"""Changed by `process_settings`: what `temporary_settings` said before does not hold inside."""
_override: ContextVar[tuple[int, LoadedSettings] | None] = ContextVar("headrace_settings", default=None)


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


def active_profile() -> str:
    """The name of the profile whose values are in force."""
    return _current().profile


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
    explicit = _with_changes(state.explicit, updates or {}, restore_defaults or (), "temporary_settings")
    token = _override.set((_epoch, load(explicit, state.selected)))
    try:
        yield _current().settings
    finally:
        _override.reset(token)


@contextmanager
def process_settings(updates: Mapping[str, Any], restore_defaults: Iterable[str] = ()) -> Generator[Settings]:
    """Other settings for the whole process, inside the `with` block: in every thread and context.

    The sources are read anew. The blocks of several threads must not overlap.

    Args:
        updates: values by setting name, typed or as text.
        restore_defaults: names of settings that get their default, whatever the sources say.

    Raises:
        ConfigurationError: a name or a value is not allowed.
    """
    global _process, _epoch
    state = load(_with_changes(_current_explicit(), updates, restore_defaults, "process_settings"), None)
    before = _process, _epoch
    _process, _epoch = state, next(_epochs)
    try:
        yield state.settings
    finally:
        _process, _epoch = before


@contextmanager
def use_profile(name: str) -> Generator[Settings]:
    """The settings with another profile active, inside the `with` block.

    Raises:
        ConfigurationError: there is no such profile.
    """
    token = _override.set((_epoch, load(_current_explicit(), name)))
    try:
        yield _current().settings
    finally:
        _override.reset(token)


def carried_settings() -> LoadedSettings:
    """The settings in force here, to be taken to another process."""
    return _current()


@contextmanager
def use_carried_settings(loaded: LoadedSettings) -> Generator[None]:
    """The settings of another process, inside the `with` block, for this context only."""
    token = _override.set((_epoch, loaded))
    try:
        yield
    finally:
        _override.reset(token)


def _current() -> LoadedSettings:
    global _process
    override = _override.get()
    if override is not None and override[0] == _epoch:
        return override[1]
    if _process is None:
        _process = load({}, None)
    return _process


def _current_explicit() -> Layer:
    override = _override.get()
    if override is not None and override[0] == _epoch:
        return override[1].explicit
    return _process.explicit if _process else {}


def _with_changes(
    explicit: Layer, updates: Mapping[str, Any], restore_defaults: Iterable[str], source: str
) -> Layer:
    changed = dict(explicit)
    for name in restore_defaults:
        key = canonical_name(name)
        changed[key] = Found(RESTORED, variable_name(key), source)
    for name, value in updates.items():
        key = canonical_name(name)
        changed[key] = Found(value, variable_name(key), source)
    return changed
