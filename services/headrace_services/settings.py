"""Settings of the server.

The first source that has a value wins: the command line, the environment (`HEADRACE_SERVER_API_PORT`),
`.env` in the working folder, `headrace.toml` there, `[tool.headrace]` in `pyproject.toml` there, the active
profile of `<home>/profiles.toml`, the default. They are read once, when the server starts.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headrace.core import config
from headrace.core.config import Found, Layer, Option, option
from headrace.core.errors import ConfigurationError

__all__ = ["OPTIONS", "ServerSettings", "is_loopback", "load_settings"]

ENV_PREFIX = "HEADRACE_"
_OPTION_NAMES = {
    "home": "--home",
    "server_api_host": "--host",
    "server_api_port": "--port",
    "server_api_auth_string": "--auth-string",
    "server_database_connection_url": "--database-url",
    "server_logging_level": "--log-level",
    "server_shutdown_grace_seconds": "--grace",
}


def _auth_string(raw: Any) -> str:
    value = config.text.parse(raw)
    user, colon, password = value.partition(":")
    if not (user and colon and password):
        raise ValueError
    return value


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The values in force. Immutable."""

    home: Path = option(
        Path("~/.headrace"), config.path, "Folder of this user's server, spool, profiles and results."
    )
    server_api_host: str = option(
        "127.0.0.1",
        config.text,
        "Address to listen on. Other than loopback only with credentials.",
    )
    server_api_port: int = option(
        4200, config.integer(0, 65535), "Port of the gRPC API; 0 takes any free one."
    )
    server_api_auth_string: str | None = option(
        None,
        config.optional(config.Form("user:password", _auth_string)),
        "Credentials that every call must carry: user:password.",
        secret=True,
    )
    server_channelz_enabled: bool | None = option(
        None,
        config.optional(config.boolean),
        "Whether grpc.channelz.v1 answers, which names the addresses of clients. Nothing: on loopback, where "
        "headrace[ops] is installed.",
    )
    server_database_connection_url: str | None = option(
        None,
        config.optional(config.text),
        "postgresql+asyncpg://user:password@host/name, or sqlite+aiosqlite:///path. "
        "Nothing: headrace.db in the home folder.",
        secret=True,
    )
    server_database_migrate_on_start: bool = option(
        True, config.boolean, "Whether the server brings the database's schema up to date as it starts."
    )
    server_database_pool_size: int = option(
        8, config.integer(1, 100), "Connections for reading, beside the one that writes."
    )
    server_logging_level: str = option(
        "INFO",
        config.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "Least level of the server's own log lines.",
        peer="LOGGING_SERVER_LEVEL",
    )
    server_shutdown_grace_seconds: float = option(
        10.0, config.number(0), "How long calls in flight may take to end when the server stops, in seconds."
    )
    server_idle_timeout_seconds: float = option(
        300.0,
        config.number(1),
        "After how many seconds without a call, a stream or a recording process an on-demand server leaves.",
    )
    server_recorder_lease_seconds: float = option(
        30.0,
        config.number(1),
        "How long a recording process may be silent before its runs are declared crashed, in seconds.",
    )
    server_recorder_renew_seconds: float = option(
        10.0, config.number(0.1), "How often a recording process renews its lease, in seconds."
    )
    server_spool_scan_seconds: float = option(
        10.0, config.number(0.1), "How often the home's spool folder is looked through, in seconds."
    )

    server_worker_heartbeat_seconds: float = option(
        5.0,
        config.number(0.1),
        "How often a worker is heard, in seconds; twice as far apart from 1000 workers on, four times from "
        "5000. Its lease is six times as long.",
    )
    server_worker_reply_seconds: float = option(
        10.0,
        config.number(0.1),
        "How long a worker that is heard of may leave an assignment unanswered, in seconds.",
    )
    server_worker_stream_seconds: float = option(
        3600.0,
        config.number(1),
        "After how many seconds a worker is asked to open another stream, earlier by up to half of it; so "
        "workers come to servers that were added.",
    )

    server_queue_ageing_seconds: float = option(
        300.0,
        config.number(1),
        "After how many seconds of waiting the priority of a run is raised by one, so that none starves.",
    )

    server_managed_pools_enabled: bool | None = option(
        None,
        config.optional(config.boolean),
        "Whether the server works managed pools: runs code of its clients on its own machine. Nothing: only "
        "while it listens on loopback.",
    )
    server_managed_pools_variables: tuple[str, ...] = option(
        (),
        config.word_list,
        "Variables of the server's own environment that runs of managed pools are given besides the few that "
        "programs need, such as PIP_INDEX_URL.",
    )
    server_managed_pools_cgroup: str | None = option(
        None,
        config.optional(config.text),
        "Control group below which each run of a managed pool has one of its own, such as headrace.",
    )
    server_managed_pools_environment_seconds: float = option(
        7 * 24 * 3600.0,
        config.number(0),
        "How long an environment with packages of runs of managed pools is kept unused, in seconds.",
    )
    server_managed_pools_environment_bytes: int = option(
        10 * 1024**3,
        config.integer(0),
        "How much the environments with packages of runs of managed pools may take together, in bytes.",
    )

    @property
    def refuses_managed_pools(self) -> str:
        """Why the server does not work managed pools, and what to do; empty: it does."""
        name = "HEADRACE_SERVER_MANAGED_POOLS_ENABLED"
        if self.server_managed_pools_enabled:
            return ""
        if self.server_managed_pools_enabled is not None:
            return f"This server does not work managed pools: {name} is false."
        if is_loopback(self.server_api_host):
            return ""
        return (
            f"This server does not work managed pools: it listens on {self.server_api_host}, so others than "
            f"its own machine could have code run there. Start it with {name}=true to allow that."
        )

    @property
    def database_url(self) -> str:
        """The URL of the database, the home's own SQLite file by default."""
        return self.server_database_connection_url or f"sqlite+aiosqlite:///{self.home / 'headrace.db'}"

    @property
    def channelz(self) -> bool | None:
        """Whether channelz answers; None: if it is installed."""
        if self.server_channelz_enabled is None:
            return None if is_loopback(self.server_api_host) else False
        return self.server_channelz_enabled

    def check(self) -> None:
        """Refuses combinations that make no sense or are not safe.

        Raises:
            ConfigurationError: with what to do instead.
        """
        if not is_loopback(self.server_api_host) and self.server_api_auth_string is None:
            raise ConfigurationError(
                f"The server would listen on {self.server_api_host} without asking for credentials. Set "
                "HEADRACE_SERVER_API_AUTH_STRING=user:password (or --auth-string), or listen on 127.0.0.1."
            )
        if self.server_recorder_renew_seconds * 2 > self.server_recorder_lease_seconds:
            raise ConfigurationError(
                "HEADRACE_SERVER_RECORDER_LEASE_SECONDS must be at least twice "
                "HEADRACE_SERVER_RECORDER_RENEW_SECONDS, so that one lost renewal is not a death."
            )


OPTIONS: Mapping[str, Option] = config.options_of(ServerSettings)
"""Every setting of the server, in the order of the documentation."""


def load_settings(explicit: Mapping[str, Any] | None = None) -> ServerSettings:
    """The settings from all sources.

    Args:
        explicit: values from the command line by setting name; None stands for "not given".

    Raises:
        ConfigurationError: a source is broken or holds a value that is not allowed.
    """
    given = {
        name: Found(
            value,
            "--" + name.removeprefix("server_").removeprefix("api_").replace("_", "-"),
            "the command line",
        )
        for name, value in (explicit or {}).items()
        if value is not None
    }
    folder = Path.cwd()
    layers: list[Layer] = [
        given,
        config.environment_layer(os.environ, ENV_PREFIX),
        config.dotenv_layer(folder / ".env", ENV_PREFIX),
        *_file_layers(folder),
    ]
    home = config.resolve({"home": OPTIONS["home"]}, layers).values["home"].expanduser()
    layers.append(_profile_layer(home, layers))
    values = config.resolve(OPTIONS, layers).values
    values["home"] = home
    return ServerSettings(**values)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _file_layers(folder: Path) -> list[Layer]:
    own, project = folder / "headrace.toml", folder / "pyproject.toml"
    layers: list[Layer] = [config.table_layer(config.read_toml(own), own, "", ENV_PREFIX)]
    table = config.read_toml(project).get("tool", {}).get("headrace", {})
    layers.append(config.table_layer(table, project, "tool.headrace", ENV_PREFIX))
    return layers


def _profile_layer(home: Path, layers: list[Layer]) -> Layer:
    if not home.is_dir():
        return {}
    file = home / "profiles.toml"
    document = config.read_toml(file)
    selected = next((layer["profile"].raw for layer in layers if "profile" in layer), None)
    name = selected or document.get("active", "default")
    profiles: Any = document.get("profiles", {})
    if not isinstance(profiles, dict) or not isinstance(name, str):
        raise ConfigurationError(f'{file}: active = "NAME" and tables [profiles.NAME] are expected.')
    tables = cast("dict[str, Any]", profiles)
    if name not in tables:
        if name == "default":
            return {}
        raise ConfigurationError(f"There is no profile {name} in {file}.")
    return config.table_layer(tables[name], file, f"profiles.{name}", ENV_PREFIX)
