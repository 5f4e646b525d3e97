"""Where settings come from, and in which order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from headrace.core import config
from headrace.core.config import Found, Layer, Option
from headrace.core.errors import ConfigurationError, MissingProfileError
from headrace.settings.schema import ENV_PREFIX, OPTIONS, Settings, suggestion, variable_name

__all__ = ["DEFAULT_PROFILE", "RESTORED", "LoadedSettings", "home_folder", "load"]

PEER_PREFIX = "PREFECT_"
DEFAULT_PROFILE = "default"
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
# A Prefect server, its credentials and its folder are no use to headrace.
_NOT_TAKEN = frozenset({"home", "api_url", "api_auth_string", "logging_config_path"})


class _Restored:
    """One value, in all processes."""

    def __reduce__(self) -> str:
        return "RESTORED"


RESTORED: Final = _Restored()
"""Given in place of a value: the setting's default, whatever the sources say."""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings and where they came from.

    Attributes:
        settings: the values.
        sources: by setting name, the words that say where the value stood.
        explicit: what was given over every source.
        selected: the profile that was asked for by name in this process; None for none.
        profile: name of the active profile.
    """

    settings: Settings
    sources: Mapping[str, str]
    explicit: Layer
    selected: str | None
    profile: str


def load(explicit: Layer, selected: str | None) -> LoadedSettings:
    """Read every source.

    Args:
        explicit: values over those of every source.
        selected: the profile to use; None: the one that the environment or `profiles.toml` names.

    Raises:
        ConfigurationError: a source is broken, or holds a name or a value that is not allowed.
    """
    environment, dotenv, *files = _outer_layers()
    _warn_unknown(environment, dotenv)
    fixed = {key: found for key, found in explicit.items() if found.raw is not RESTORED}
    layers: list[Layer] = [fixed, environment, dotenv, *files]
    profile, values = _profile_layer(_home(layers), selected or _selected_profile(environment, dotenv))
    layers.append(values)
    if _wants_compat(environment, dotenv):
        layers.append(_peer_layer(layers))
    resolved = config.resolve(OPTIONS, layers)
    for key, found in explicit.items():
        if found.raw is RESTORED:
            resolved.values[key], resolved.sources[key] = OPTIONS[key].default, found.source
    resolved.values["home"] = resolved.values["home"].expanduser()
    return LoadedSettings(Settings(**resolved.values), resolved.sources, explicit, selected, profile)


def home_folder() -> Path:
    """The home, also when the profile that is asked for is missing or wrong: a profile cannot move it.

    Raises:
        ConfigurationError: another source is broken.
    """
    return _home(_outer_layers())


def _outer_layers() -> list[Layer]:
    """The environment, `.env`, and the files of the working folder."""
    folder = Path.cwd()
    environment = config.environment_layer(os.environ, ENV_PREFIX)
    return [environment, config.dotenv_layer(folder / ".env", ENV_PREFIX), *_file_layers(folder)]


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
                f"{found.source}: there is no setting {found.variable}.{suggestion(name)}"
            )
    return layer


_told: set[str] = set()


def _tell_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        logging.getLogger(__name__).warning("%s", message)


def _warn_unknown(*layers: Mapping[str, Found]) -> None:
    for layer in layers:
        for name, found in layer.items():
            if name not in OPTIONS and name not in _SELECTORS and not name.startswith(_OTHER_FAMILIES):
                _tell_once(f"{found.variable} in {found.source} is not a setting.{suggestion(name)}")


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
        raise MissingProfileError(f"There is no profile {name} in {file}. There are: {known}.")
    table = cast("dict[str, Any]", profiles)[name]
    layer = _checked(config.table_layer(table, file, f"profiles.{name}", ENV_PREFIX))
    if "home" in layer:
        raise ConfigurationError(
            f"{layer['home'].source}: a profile lives in a home and cannot name another."
        )
    return name, layer


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
