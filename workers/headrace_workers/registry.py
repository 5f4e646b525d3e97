"""Types of workers, found by the entry points of the group `headrace.workers`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from headrace.core.errors import ConfigurationError
from headrace.core.job_templates import MANAGED
from headrace_workers.base import BaseWorker

__all__ = ["ENTRY_POINTS", "find_worker_type", "worker_types"]

ENTRY_POINTS: Final = "headrace.workers"
_EXTRAS: Final = frozenset({"docker", "kubernetes"})
"""Types of headrace's own that need what the extra of the same name installs."""


def worker_types() -> dict[str, EntryPoint]:
    """What is installed, by type; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name)}


def find_worker_type(name: str) -> type[BaseWorker[Any]]:
    """The class of a worker type.

    Raises:
        ConfigurationError: there is none, it cannot be imported, or it is not one.
    """
    installed = worker_types()
    if name == MANAGED:
        raise ConfigurationError(
            "Pools of type 'managed' are worked by the server itself: there is no worker to start."
        )
    if name not in installed:
        near = get_close_matches(name, installed, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Installed are: {', '.join(installed)}."
        raise ConfigurationError(f"There is no worker type '{name}'. {hint}")
    point = installed[name]
    try:
        found: Any = point.load()
    except ImportError as error:
        hint = f" Install it: pip install 'headrace[{name}]'" if name in _EXTRAS else ""
        raise ConfigurationError(f"The worker type '{name}' cannot be imported: {error}.{hint}") from error
    if not (isinstance(found, type) and issubclass(found, BaseWorker)):
        raise ConfigurationError(f"The entry point of '{name}', {point.value}, is no subclass of BaseWorker.")
    if found.type != name:
        raise ConfigurationError(f"The class of worker type '{name}' calls itself '{found.type}'.")
    return cast("type[BaseWorker[Any]]", found)
