"""The schema's history: which one the database has, and bringing it up to date."""

from __future__ import annotations

from headrace.core.errors import HeadraceException

__all__ = ["SchemaTooNew", "SchemaTooOld", "current_revision", "head_revision", "upgrade"]


class SchemaTooNew(HeadraceException):
    """The database was written by a newer version of headrace. Upgrade headrace, or use another database."""


class SchemaTooOld(HeadraceException):
    """The database is older than this version of headrace. Run `headrace db upgrade`."""


def head_revision() -> str:
    """The revision that this version of headrace works with."""
    raise NotImplementedError


async def current_revision(url: str) -> str | None:
    """The revision that the database is at; None: it has no schema yet.

    Raises:
        DatabaseUnavailable: nobody answers there.
    """
    raise NotImplementedError


async def upgrade(url: str) -> None:
    """Bring the database to `head_revision()`. Several processes may call it at once; one does it.

    Raises:
        DatabaseUnavailable: nobody answers there.
        SchemaTooNew: the database is past this version.
    """
    raise NotImplementedError
