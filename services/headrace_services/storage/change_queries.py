"""What changed, in an order that misses nothing.

Numbers of a sequence are given out before the commits they belong to, so on PostgreSQL a reader that
goes on after the largest number it has seen would miss whatever commits late. Changes are therefore
read in the order of (transaction, number), and only up to the oldest transaction that is still open:
below that horizon nothing can appear any more.
"""

from __future__ import annotations

from headrace.core.errors import ResumeTokenExpired
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.outbox import OutboxKind, format_position, ids_of, parse_position
from headrace_services.storage.values import Changes

__all__ = ["HORIZON", "ChangeQueries", "latest_position"]

HORIZON = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


async def latest_position(backend: Backend, dialect: Dialect, table: str) -> tuple[int, int]:
    """The position before which `table` shows everything already."""
    if dialect.name == "sqlite":
        rows = await backend.fetch(f"SELECT coalesce(max(seq), 0) FROM {table}")
        return 0, rows[0][0]
    rows = await backend.fetch(f"SELECT {HORIZON}")
    return rows[0][0], 0


def after_position(dialect: Dialect, table: str) -> str:
    """The condition for the rows of `table` after a position (two parameters)."""
    if dialect.name == "sqlite":
        # The first number is always 0 here; naming it keeps the parameters the same.
        return f"(? = 0 AND {table}.seq > ?)"
    return f"({table}.xid, {table}.seq) > (?, ?) AND {table}.xid < {HORIZON}"


def commit_order(dialect: Dialect, table: str) -> str:
    """The columns of `table` that are in the order of commits."""
    return f"{table}.seq" if dialect.name == "sqlite" else f"{table}.xid, {table}.seq"


class ChangeQueries:
    """The outbox, read."""

    def __init__(self, backend: Backend, dialect: Dialect) -> None:
        self._backend = backend
        self._dialect = dialect

    async def latest_token(self) -> str:
        """The token of this instant."""
        if self._dialect.name == "sqlite":
            # The rows of the last commit may have been trimmed: the sequence itself remembers.
            rows = await self._backend.fetch("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
            return format_position((0, rows[0][0] if rows else 0), "runs")
        return format_position(await latest_position(self._backend, self._dialect, "outbox"), "runs")

    async def since(self, token: str, limit: int) -> Changes:
        """What changed after `token`; see `Reader.changes_since`."""
        position = parse_position(token, "runs")
        await self._check_kept(position)
        # A row has the runs of a whole commit, so few rows are asked for at a time.
        rows = await self._backend.fetch(
            f"SELECT xid, seq, kind, keys FROM outbox WHERE {after_position(self._dialect, 'outbox')} "
            f"ORDER BY {commit_order(self._dialect, 'outbox')} LIMIT 200",
            position,
        )
        changed: dict[bytes, None] = {}
        deleted: dict[bytes, None] = {}
        for xid, seq, kind, keys in rows:
            into, out_of = (changed, deleted) if kind == OutboxKind.CHANGED else (deleted, changed)
            for id in ids_of(keys):
                out_of.pop(id, None)
                into.pop(id, None)
                into[id] = None
            position = (xid, seq)
            if len(changed) + len(deleted) >= limit:
                break
        return Changes(
            [_text(id) for id in changed], [_text(id) for id in deleted], format_position(position, "runs")
        )

    async def _check_kept(self, position: tuple[int, int]) -> None:
        rows = await self._backend.fetch("SELECT value FROM markers WHERE name = 'outbox'")
        if rows:
            xid, _, seq = rows[0][0].partition("-")
            if position < (int(xid), int(seq)):
                raise ResumeTokenExpired()


def _text(id: bytes) -> str:
    text = id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
