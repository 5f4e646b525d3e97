"""The operations of dispatch that are more than rows of one table, for each of the two stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from headrace_services.storage.blobs import blob, from_blob
from headrace_services.storage.columns import RUN_COLUMNS, RUN_ID_COLUMNS
from headrace_services.storage.declared_rows import WorkPoolRow, WorkQueueRow
from headrace_services.storage.dialects import POSTGRESQL, SQLITE
from headrace_services.storage.dispatch_lines import PG_LINES, Lines, lines_from
from headrace_services.storage.dispatch_rows import QueuedRunRow, RouteRow, SessionRow
from headrace_services.storage.entities import Entity, Lock, Order, Where, row_from, table_of
from headrace_services.storage.postgresql import Connection
from headrace_services.storage.postgresql_statement import Part, Statement
from headrace_services.storage.steps import Row

if TYPE_CHECKING:
    from headrace_services.storage.work import Writes

__all__ = ["PostgresqlDispatch", "SessionRenewal", "SqliteDispatch", "Waiting"]

E = TypeVar("E", bound=Entity)


class Waiting(NamedTuple):
    """One run whose turn may have come, locked.

    Attributes:
        queued: its place in the queue.
        run: the columns of a `RunRow`.
        full_spec: what only view FULL shows of it.
    """

    queued: QueuedRunRow
    run: Row
    full_spec: bytes | None


class SessionRenewal(NamedTuple):
    """A session that was heard.

    Attributes:
        id: of the session.
        epoch: of its stream.
        expires_at: when its lease ends, microseconds.
        is_draining: its worker takes nothing new.
    """

    id: str
    epoch: int
    expires_at: int
    is_draining: bool


_QUEUED: Final = [name for name, _ in table_of(QueuedRunRow).columns]
_TURN: Final = "ORDER BY priority DESC, pass_number, due_time, run_id"
_READY: Final = "pass_number IS NOT NULL AND blocked_by IS NULL"
_LITE_WAITING: Final = (
    f"SELECT {', '.join(f'q.{name}' for name in _QUEUED)}, {', '.join(f'r.{name}' for name in RUN_COLUMNS)}, "
    "r.full_spec FROM (SELECT * FROM run_queue INDEXED BY run_queue_turn_idx "
    f"WHERE route = ? AND {_READY} {_TURN} LIMIT ?) AS q JOIN runs AS r ON r.id = q.run_id"
)
_PG_WAITING: Final = (
    f"SELECT {', '.join(f'q.{n}::text' if n == 'run_id' else f'q.{n}' for n in _QUEUED)}, "
    f"{', '.join(f'r.{n}::text' if n in RUN_ID_COLUMNS else f'r.{n}' for n in RUN_COLUMNS)}, r.full_spec "
    "FROM unnest($1::bigint[]) AS wanted (route) CROSS JOIN LATERAL ("
    f"SELECT * FROM run_queue WHERE run_queue.route = wanted.route AND {_READY} {_TURN} LIMIT $2 "
    "{lock}) AS q JOIN runs AS r ON r.id = q.run_id "
)
_PG_LOCKED: Final = (
    _PG_WAITING.replace("{lock}", "FOR NO KEY UPDATE SKIP LOCKED") + "FOR NO KEY UPDATE OF r SKIP LOCKED"
)
_PG_UNLOCKED: Final = _PG_WAITING.replace("{lock}", "")
_UNQUEUE: Final = Part(
    "DELETE FROM run_queue USING {rows} WHERE run_queue.run_id = new.run_id", (("run_id", "uuid"),)
)
_PASS: Final = (("name", "text"), ("pass_number", "bigint"))
_MOVE_PASSES: Final = Part(
    "UPDATE queue_passes SET pass_number = new.pass_number FROM {rows} "
    "WHERE queue_passes.name = new.name AND queue_passes.pass_number < new.pass_number",
    _PASS,
)
_CONFIRM_UNKEYED: Final = Part(
    "SELECT 1 FROM {rows} JOIN queue_passes ON queue_passes.name = new.name", _PASS[:1]
)
_COUNT_DEPLOYMENTS: Final = (
    "SELECT deployment_id, count(*) FROM attempt_holders WHERE deployment_id {in} "
    "AND (slot_expire_time IS NULL OR slot_expire_time > {now} "
    "OR (SELECT state_type FROM runs WHERE runs.id = run_id) > 2) "
    "GROUP BY deployment_id"
)
_COUNT_LINES: Final = (
    "SELECT subject, queue, count(*) FROM attempt_holders WHERE kind = 1 AND subject {in} "
    "GROUP BY subject, queue"
)
_COUNT_KEYS: Final = (
    "SELECT subject, fairness_key, count(*) FROM attempt_holders WHERE kind = 1 AND subject {pools} "
    "AND fairness_key {keys} GROUP BY subject, fairness_key"
)
# One step into the index for each: there may be very many that wait for the same.
_BLOCKERS: Final = (
    "WITH RECURSIVE found (blocker) AS ("
    "SELECT min(blocked_by) FROM run_queue WHERE blocked_by IS NOT NULL "
    "UNION ALL SELECT (SELECT min(blocked_by) FROM run_queue WHERE blocked_by > found.blocker) "
    "FROM found WHERE found.blocker IS NOT NULL) "
    "SELECT blocker FROM found WHERE blocker IS NOT NULL"
)
_COUNT_BEFORE: Final = (
    f"SELECT count(*) FROM run_queue WHERE route = {{0}} AND {_READY} AND (priority > {{1}} "
    "OR (priority = {2} AND (pass_number, due_time, run_id) < ({3}, {4}, {5})))"
)
_LATE: Final = "SELECT run_id FROM run_queue WHERE late_time <= {} ORDER BY late_time LIMIT {}"
_COUNT_SESSIONS: Final = (
    "SELECT session_id, count(*) FROM attempt_holders WHERE session_id IS NOT NULL GROUP BY session_id"
)
_RUN_POSITIONS: Final = [i for i, name in enumerate(RUN_COLUMNS) if name in RUN_ID_COLUMNS]


def _waiting(row: Row, is_sqlite: bool) -> Waiting:
    width = len(_QUEUED)
    queued = row_from(QueuedRunRow, row[:width], SQLITE if is_sqlite else POSTGRESQL)
    run = list(row[width:-1])
    if is_sqlite:
        for position in _RUN_POSITIONS:
            run[position] = from_blob(run[position])
    return Waiting(queued, tuple(run), row[-1])


def _place(row: QueuedRunRow, run_id: str | bytes) -> Row:
    """What runs of equal priority are ordered by."""
    return (row.pass_number or 0, row.due_time, run_id)


class SqliteDispatch:
    """Mixed into the SQLite store."""

    def _connected(self) -> sqlite3.Connection:
        raise NotImplementedError

    def find_rows(self, cls: type[E], where: Where, order: Order, limit: int | None, lock: Lock) -> list[E]:
        raise NotImplementedError

    def load_lines(
        self, sessions: Sequence[str], pools: Sequence[str], subjects: Sequence[tuple[int, str]]
    ) -> Lines:
        def find(cls: type[E], *where: tuple[str, str, Any]) -> list[E]:
            return self.find_rows(cls, where, (), None, Lock.NONE)

        found = find(WorkPoolRow, ("name", "in", pools)) if pools else []
        ids = [pool.id for pool in found]
        routes: list[RouteRow] = []
        for kind in sorted({kind for kind, _ in subjects}):
            names = [subject for other, subject in subjects if other == kind]
            routes += find(RouteRow, ("kind", "=", kind), ("subject", "in", names))
        queues = find(WorkQueueRow, ("pool_id", "in", ids)) if ids else []
        return Lines(find(SessionRow, ("id", "in", sessions)), found, queues, routes)

    def load_candidates(self, routes: Sequence[int], most: int, lock: bool) -> list[Waiting]:
        execute = self._connected().execute
        rows = [row for route in routes for row in execute(_LITE_WAITING, (route, most))]
        return [_waiting(row, is_sqlite=True) for row in rows]

    def count_deployments(self, ids: Sequence[str], now: int) -> list[Row]:
        sql = _COUNT_DEPLOYMENTS.replace("{in}", _in(ids)).replace("{now}", "?")
        return self._connected().execute(sql, (*ids, now)).fetchall()

    def count_lines(self, pools: Sequence[str]) -> list[Row]:
        return self._connected().execute(_COUNT_LINES.replace("{in}", _in(pools)), pools).fetchall()

    def count_keys(self, pools: Sequence[str], keys: Sequence[str]) -> list[Row]:
        sql = _COUNT_KEYS.replace("{pools}", _in(pools)).replace("{keys}", _in(keys))
        return self._connected().execute(sql, (*pools, *keys)).fetchall()

    def load_blockers(self) -> list[str]:
        return [row[0] for row in self._connected().execute(_BLOCKERS)]

    def count_before(self, row: QueuedRunRow) -> int:
        values = (row.route, row.priority, row.priority, *_place(row, blob(row.run_id)))
        found = self._connected().execute(_COUNT_BEFORE.format(*"??????"), values).fetchone()
        return int(found[0])

    def count_sessions(self) -> list[Row]:
        rows = self._connected().execute(_COUNT_SESSIONS).fetchall()
        return [(from_blob(row[0]), row[1]) for row in rows]

    def load_late(self, now: int, most: int) -> list[str | None]:
        return [from_blob(row[0]) for row in self._connected().execute(_LATE.format("?", "?"), (now, most))]

    def load_session_runs(self, session_id: str) -> list[str | None]:
        sql = "SELECT run_id FROM attempt_holders WHERE session_id = ? ORDER BY run_id"
        return [from_blob(row[0]) for row in self._connected().execute(sql, (blob(session_id),))]

    def renew_sessions(self, renewals: Sequence[SessionRenewal], now: int) -> list[str]:
        sql = (
            "UPDATE worker_sessions SET expires_at = ?, heartbeat_time = ?, is_draining = ? "
            "WHERE id = ? AND epoch = ? AND expires_at IS NOT NULL"
        )
        execute = self._connected().execute
        return [
            renewal.id
            for renewal in renewals
            if execute(
                sql, (renewal.expires_at, now, renewal.is_draining, blob(renewal.id), renewal.epoch)
            ).rowcount
        ]

    def age_queue(self, before: int, now: int, most: int) -> int:
        done = self._connected().execute(
            "UPDATE run_queue SET priority = priority + 1, aged_time = ? WHERE run_id IN (SELECT run_id "
            f"FROM run_queue WHERE aged_time < ? AND priority < 9 AND {_READY} ORDER BY aged_time LIMIT ?)",
            (now, before, most),
        )
        return done.rowcount

    def _flush_queue(self, writes: Writes) -> None:
        many = self._connected().executemany
        if writes.unqueued:
            many("DELETE FROM run_queue WHERE run_id = ?", [(blob(id),) for id in writes.unqueued])
        if writes.passes:
            many(
                "UPDATE queue_passes SET pass_number = ? WHERE name = ? AND pass_number < ?",
                [(passed, name, passed) for name, passed in writes.passes.items()],
            )

    def _has_keyed(self, scopes: Sequence[str]) -> bool:
        sql = f"SELECT 1 FROM queue_passes WHERE name {_in(scopes)}"
        return self._connected().execute(sql, scopes).fetchone() is not None


def _in(values: Sequence[str]) -> str:
    return f"IN ({', '.join('?' * len(values))})"


class PostgresqlDispatch:
    """Mixed into the PostgreSQL store."""

    async def load_lines(
        self,
        connection: Connection,
        sessions: Sequence[str],
        pools: Sequence[str],
        subjects: Sequence[tuple[int, str]],
    ) -> Lines:
        kinds, names = zip(*subjects, strict=True) if subjects else ((), ())
        row = await connection.fetchrow(PG_LINES, sessions, pools, kinds, names)
        assert row is not None
        return lines_from(row)

    async def load_candidates(
        self, connection: Connection, routes: Sequence[int], most: int, lock: bool
    ) -> list[Waiting]:
        rows = await connection.fetch(_PG_LOCKED if lock else _PG_UNLOCKED, list(routes), most)
        return [_waiting(tuple(row), is_sqlite=False) for row in rows]

    async def count_deployments(self, connection: Connection, ids: Sequence[str], now: int) -> Sequence[Row]:
        sql = _COUNT_DEPLOYMENTS.replace("{in}", "= ANY($1::text[])").replace("{now}", "$2")
        return await connection.fetch(sql, list(ids), now)

    async def count_lines(self, connection: Connection, pools: Sequence[str]) -> Sequence[Row]:
        return await connection.fetch(_COUNT_LINES.replace("{in}", "= ANY($1::text[])"), list(pools))

    async def count_keys(
        self, connection: Connection, pools: Sequence[str], keys: Sequence[str]
    ) -> Sequence[Row]:
        sql = _COUNT_KEYS.replace("{pools}", "= ANY($1::text[])").replace("{keys}", "= ANY($2::text[])")
        return await connection.fetch(sql, list(pools), list(keys))

    async def load_blockers(self, connection: Connection) -> list[str]:
        return [row[0] for row in await connection.fetch(_BLOCKERS)]

    async def count_before(self, connection: Connection, row: QueuedRunRow) -> int:
        sql = _COUNT_BEFORE.format("$1", "$2", "$2", "$3", "$4", "$5")
        values = (row.route, row.priority, *_place(row, row.run_id))
        return int(await connection.fetchval(sql, *values))

    async def count_sessions(self, connection: Connection) -> Sequence[Row]:
        return await connection.fetch(_COUNT_SESSIONS.replace("session_id, count", "session_id::text, count"))

    async def load_late(self, connection: Connection, now: int, most: int) -> list[str]:
        sql = _LATE.format("$1", "$2").replace("run_id FROM", "run_id::text FROM")
        return [row[0] for row in await connection.fetch(sql, now, most)]

    async def load_session_runs(self, connection: Connection, session_id: str) -> list[str]:
        sql = "SELECT run_id::text FROM attempt_holders WHERE session_id = $1 ORDER BY run_id"
        return [row[0] for row in await connection.fetch(sql, session_id)]

    async def renew_sessions(
        self, connection: Connection, renewals: Sequence[SessionRenewal], now: int
    ) -> list[str]:
        rows = await connection.fetch(
            "UPDATE worker_sessions SET expires_at = new.expires_at, heartbeat_time = $5, "
            "is_draining = new.is_draining FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bool[]) "
            "AS new (id, epoch, expires_at, is_draining) WHERE worker_sessions.id = new.id "
            "AND worker_sessions.epoch = new.epoch AND worker_sessions.expires_at IS NOT NULL "
            "RETURNING worker_sessions.id::text",
            *([list(values) for values in zip(*renewals, strict=True)]),
            now,
        )
        return [row[0] for row in rows]

    async def age_queue(self, connection: Connection, before: int, now: int, most: int) -> int:
        done = await connection.execute(
            "UPDATE run_queue SET priority = priority + 1, aged_time = $1 WHERE run_id IN (SELECT run_id "
            f"FROM run_queue WHERE aged_time < $2 AND priority < 9 AND {_READY} ORDER BY aged_time LIMIT $3 "
            "FOR NO KEY UPDATE SKIP LOCKED)",
            *(now, before, most),
        )
        return int(done.rpartition(" ")[2])

    def _add_queue(self, statement: Statement, writes: Writes) -> None:
        """Add what is written of the queue itself."""
        statement.add(_UNQUEUE, [(id,) for id in writes.unqueued])
        statement.add(_MOVE_PASSES, sorted(writes.passes.items()))
        statement.add(_CONFIRM_UNKEYED, [(name,) for name in sorted(set(writes.unkeyed))], each=0)
