"""From settings to the command line of a server in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace_services.home import HomeUnusable, ServerNote, hold_home
from headrace_services.processes import start_in_background
from headrace_services.settings import ServerSettings

__all__ = ["launch"]

_SECRETS: Final = frozenset({"server_api_auth_string", "server_database_connection_url"})
_OPTIONS: Final = {
    "server_api_host": "--host",
    "server_api_port": "--port",
    "server_logging_level": "--log-level",
    "server_shutdown_grace_seconds": "--grace",
}


def launch(settings: ServerSettings, given: Mapping[str, Any], *, on_demand: bool) -> ServerNote:
    """Starts the server in the background with what was given on this command line.

    Raises:
        HomeTaken: a server serves the home already.
        HomeUnusable: the folder cannot be written to.
        StartFailed: it ended again; the message says why.
    """
    with hold_home(settings.home):
        pass
    environment = {f"HEADRACE_{name.upper()}": str(given[name]) for name in _SECRETS if given.get(name)}
    arguments = ["--home", str(settings.home)]
    for name, option in _OPTIONS.items():
        if given.get(name) is not None:
            arguments += [option, str(given[name])]
    if on_demand:
        arguments.append("--on-demand")
    try:
        return start_in_background(settings.home, arguments, environment)
    except OSError as error:
        raise HomeUnusable(f"{settings.home} cannot be written to: {error.strerror}.") from None
