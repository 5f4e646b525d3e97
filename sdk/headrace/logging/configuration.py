"""How `logging` is set up: the built-in way, or as `logging.yml` in the home folder says.

Each value can be replaced from the environment: `HEADRACE_LOGGING_HANDLERS_CONSOLE_FORMATTER=json` sets
`handlers.console.formatter`. In the file, `${HEADRACE_LOGGING_LEVEL}` stands for that setting's value.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import string
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from headrace.core.errors import ConfigurationError
from headrace.settings import ENV_PREFIX, Settings, get_current_settings, list_settings, variable_name

__all__ = ["EXTRA", "FLOW_RUNS", "ROOT", "TASK_RUNS", "ensure_configured"]

ROOT: Final = "headrace"
FLOW_RUNS: Final = "headrace.flow_runs"
TASK_RUNS: Final = "headrace.task_runs"
EXTRA: Final = "headrace.extra"
"""Loggers of the setting `logging.extra_loggers` get this one's handlers, and its level if they have none."""

_BUILT_IN: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "console": {"()": "headrace.logging.formatters.ConsoleFormatter"},
        "json": {"()": "headrace.logging.formatters.JsonFormatter"},
        "plain": {"format": "%(message)s"},
    },
    "handlers": {
        "console": {
            "class": "headrace.logging.handlers.ConsoleHandler",
            "formatter": "console",
            "level": "NOTSET",
        },
        "record": {
            "class": "headrace.logging.handlers.RecordHandler",
            "formatter": "plain",
            "level": "NOTSET",
        },
    },
    "loggers": {
        ROOT: {"level": "${HEADRACE_LOGGING_LEVEL}", "handlers": ["console"], "propagate": True},
        FLOW_RUNS: {"level": "NOTSET", "handlers": ["record"], "propagate": True},
        TASK_RUNS: {"level": "NOTSET", "handlers": ["record"], "propagate": True},
        EXTRA: {"level": "${HEADRACE_LOGGING_LEVEL}", "handlers": ["record"], "propagate": True},
    },
}

_lock = threading.Lock()
_applied: tuple[Any, ...] | None = None


def ensure_configured() -> None:
    """Set `logging` up if that has not been done, or if the settings have changed since.

    Handlers of the program's own loggers stay as they are.

    Raises:
        ConfigurationError: the configuration cannot be read, or says something that `logging` refuses.
    """
    global _applied
    settings = get_current_settings()
    wanted = (
        settings.logging_level,
        settings.logging_extra_loggers,
        settings.logging_config_path,
        settings.home,
    )
    if wanted != _applied:
        with _lock:
            _configure(settings)
            _applied = wanted


def _configure(settings: Settings) -> None:
    path = settings.logging_config_path or settings.home / "logging.yml"
    is_built_in = settings.logging_config_path is None and not path.exists()
    config = copy.deepcopy(_BUILT_IN) if is_built_in else _read(path)
    _fill_in(config, (), {**_values(), "HEADRACE_LOGGING_LEVEL": str(_level(settings.logging_level))})
    try:
        _apply(config)
    except (ValueError, TypeError, AttributeError, ImportError, KeyError) as error:
        where = "The environment" if is_built_in else f"The logging configuration {path}"
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ConfigurationError(
            f"{where} says something about logging that is not valid: {error}{cause}"
        ) from None
    _configure_extra(settings.logging_extra_loggers)


def _apply(config: dict[str, Any]) -> None:
    """What `dictConfig` does, without closing every handler of the program as that does."""
    from logging.config import DictConfigurator

    configurator: Any = DictConfigurator(config)
    if configurator.config.get("version") != 1:
        raise ValueError("`version: 1` is missing")
    formatters = _part(configurator, "formatters")
    filters = _part(configurator, "filters")
    handlers = _part(configurator, "handlers")
    for made, make in (
        (formatters, configurator.configure_formatter),
        (filters, configurator.configure_filter),
        (handlers, configurator.configure_handler),
    ):
        for name in sorted(made):
            made[name] = make(made[name])
    for name, handler in handlers.items():
        handler.name = name
    for name, given in _part(configurator, "loggers").items():
        configurator.configure_logger(name, given)
    if _part(configurator, "root"):
        configurator.configure_root(configurator.config["root"])


def _part(configurator: Any, name: str) -> dict[str, Any]:
    part = configurator.config.get(name)
    return {} if part is None else part


def _fill_in(config: Any, path: tuple[str, ...], values: Mapping[str, str]) -> None:
    """Replace values of `config` by those that the environment or the settings have for them."""
    for key, value in list(config.items()):
        where = (*path, str(key))
        variable = f"{ENV_PREFIX}LOGGING_" + re.sub(r"\W", "_", "_".join(where)).upper()
        given = os.environ.get(variable)
        if isinstance(value, dict) and not given:
            _fill_in(value, where, values)
        elif given:
            config[key] = given.split(",") if isinstance(value, list) else given
        elif isinstance(value, str):
            config[key] = string.Template(value).safe_substitute(values)
        if key == "level" and str(config[key]).isdecimal():
            config[key] = int(config[key])


def _configure_extra(names: tuple[str, ...]) -> None:
    pattern = logging.getLogger(EXTRA)
    for name in names:
        logger = logging.getLogger(name)
        for handler in pattern.handlers:
            if not any(type(handler) is type(own) for own in logger.handlers):
                logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(pattern.level)


def _values() -> dict[str, str]:
    return {variable_name(known.option.name): str(known.value) for known in list_settings()}


def _level(level: str) -> int:
    names = logging.getLevelNamesMapping()
    name = level.strip().upper()
    if not name.isdecimal() and name not in names:
        allowed = ", ".join(names)
        raise ConfigurationError(f"{ENV_PREFIX}LOGGING_LEVEL is {level!r}; allowed: {allowed}, or a number.")
    return int(name) if name.isdecimal() else names[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The logging configuration {path} cannot be read: {error}") from None
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"The logging configuration {path} is not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise ConfigurationError(f"The logging configuration {path} must be a mapping, see `logging.config`.")
    return cast("dict[str, Any]", config)
