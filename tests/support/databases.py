"""Fresh databases for the `database_url` fixtures: migrated ones are copies of one template."""

from __future__ import annotations

import asyncio
import pathlib

from headrace_services.storage import migrations

__all__ = ["migrate", "sqlite_url"]


def sqlite_url(path: pathlib.Path) -> str:
    """The SQLAlchemy URL of a SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


def migrate(url: str) -> None:
    """Bring a database to the newest schema."""
    asyncio.run(migrations.upgrade(url))
