"""What is used of asyncpg, with types, and the settings of every connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import asyncpg  # type: ignore[import-untyped]

from headrace_services.storage.steps import Row
from headrace_services.storage.urls import postgresql_dsn

__all__ = ["CONNECT_SECONDS", "Connection", "Pool", "connect", "make_pool"]

CONNECT_SECONDS: Final = 5.0
_STATEMENT_SECONDS: Final = 60.0
_NO_SETTINGS: Final[Mapping[str, str]] = {}
_DRIVER: Final[Any] = asyncpg


class Queries(Protocol):
    """What connections and pools have in common."""

    async def execute(self, query: str, *parameters: Any) -> str: ...

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]: ...

    async def fetchrow(self, query: str, *parameters: Any) -> Row | None: ...

    async def fetchval(self, query: str, *parameters: Any) -> Any: ...


class Connection(Queries, Protocol):
    """One connection."""

    def transaction(self) -> AbstractAsyncContextManager[object]: ...

    def is_closed(self) -> bool: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def get_server_pid(self) -> int: ...

    def add_termination_listener(self, callback: Callable[[object], None]) -> None: ...

    async def add_listener(
        self, channel: str, callback: Callable[[object, int, str, object], None]
    ) -> None: ...


class Pool(Queries, Protocol):
    """Connections that are lent for one query each."""

    async def close(self) -> None: ...


def _settings(purpose: str, extra: Mapping[str, str]) -> dict[str, Any]:
    return {
        "timeout": CONNECT_SECONDS,
        "command_timeout": _STATEMENT_SECONDS,
        "server_settings": {"application_name": f"headrace {purpose}", **extra},
    }


async def connect(url: str, purpose: str, settings: Mapping[str, str] = _NO_SETTINGS) -> Connection:
    """A connection to the database of `url`; its `purpose` is shown in `pg_stat_activity`.

    Args:
        settings: parameters of the session.
    """
    connection: Connection = await _DRIVER.connect(postgresql_dsn(url), **_settings(purpose, settings))
    return connection


async def make_pool(url: str, purpose: str, size: int, settings: Mapping[str, str] = _NO_SETTINGS) -> Pool:
    """A pool of at most `size` connections, of which one is open.

    Args:
        settings: parameters of the sessions.
    """
    pool: Pool = await _DRIVER.create_pool(
        postgresql_dsn(url), min_size=1, max_size=size, **_settings(purpose, settings)
    )
    return pool
