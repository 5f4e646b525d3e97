"""SQLite: one connection, one thread, one transaction at a time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from headrace_services.storage.blobs import blob, from_blob
from headrace_services.storage.call_thread import CallThread
from headrace_services.storage.checkpoints import Checkpoints
from headrace_services.storage.columns import (
    DELETED_FROM,
    RECORDER_COLUMNS,
    RUN_COLUMNS,
    RUN_ID_COLUMNS,
    TRIMMED,
    UPDATED_COLUMNS,
    recorder_values,
    run_values,
    updated_values,
)
from headrace_services.storage.dispatch_stores import SqliteDispatch
from headrace_services.storage.entity_stores import SqliteEntities
from headrace_services.storage.errors import translated
from headrace_services.storage.outbox import KEPT_SECONDS, OutboxKind
from headrace_services.storage.rows import decode_tags
from headrace_services.storage.sqlite_log import lengthen_log
from headrace_services.storage.steps import Conflict, Row, Steps
from headrace_services.storage.work import Writes

__all__ = ["SqliteStore", "open_connection"]

T = TypeVar("T")
_BUSY_SECONDS: Final = 30
_QUICK_SECONDS: Final = 0.001
"""What takes less time than this may hold the event loop up: a change of threads would do so for as long."""
_QUICK_ENOUGH: Final = 3
"""So many quick ones in a row promise another one."""
_MANY: Final = 50
"""A file with so many transactions is worth a long log."""


def open_connection(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings that everything here relies on."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: an acknowledged commit survives a power cut; group commit makes it free.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA cache_size=-{2048 if read_only else 16384}")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA mmap_size=268435456")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


def marks(count: int) -> str:
    """`?, ?, ...`: `count` of them."""
    return ", ".join("?" * count)


# How many parameters a list gets, so that few different statements have to be prepared.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 8192)


def _padded(ids: Collection[str]) -> Iterator[list[bytes]]:
    """The ids in lists of a few lengths; the last one is repeated to fill the last list."""
    blobs = [blob(id) for id in ids]
    for start in range(0, len(blobs), _SIZES[-1]):
        part = blobs[start : start + _SIZES[-1]]
        size = next(size for size in _SIZES if size >= len(part))
        yield part + [part[-1]] * (size - len(part))


@lru_cache(maxsize=64)
def _filled(sql: str, count: int) -> tuple[str, int]:
    """`sql` with `count` marks for each `{0}`, and how many of these there are.

    Marks without numbers: SQLite's module looks the name of every numbered one up in a list.
    """
    return sql.format(marks(count)), sql.count("{0}")


def _row(row: Row, id_positions: Sequence[int]) -> Row:
    values = list(row)
    for position in id_positions:
        values[position] = from_blob(values[position])
    return tuple(values)


_RUN_IDS: Final = [i for i, name in enumerate(RUN_COLUMNS) if name in RUN_ID_COLUMNS]
_LOAD_RUNS: Final = (
    f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE id IN (SELECT id FROM runs WHERE id IN ({{0}}) "
    "UNION ALL SELECT owner_run_id FROM runs WHERE id IN ({0}))"
)
_LOAD_DEPLOYMENT_RUNS: Final = (
    f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE deployment_id IN ({{0}}) "
    "AND state_type IN (1, 2, 3, 4, 5) AND kind = 1 ORDER BY create_time, id LIMIT ?"
)
_INSERT_RUN: Final = (
    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}, full_spec) VALUES ({marks(len(RUN_COLUMNS) + 1)})"
)
_LOAD_RECORDERS: Final = f"SELECT {', '.join(RECORDER_COLUMNS)} FROM recorders WHERE id IN ({{0}})"
_ASSIGNED: Final = ", ".join(
    f"{name} = coalesce(?, {name})" if name.endswith("spec") else f"{name} = ?" for name in UPDATED_COLUMNS
)
_UPDATE_RUN: Final = f"UPDATE runs SET {_ASSIGNED} WHERE id = ? AND version = ?"
_UPDATED_IDS: Final = [i for i, name in enumerate((*UPDATED_COLUMNS, "id")) if name in RUN_ID_COLUMNS]
_INSERT_RECORDER: Final = (
    f"INSERT INTO recorders ({', '.join(RECORDER_COLUMNS)}, update_time) "
    f"VALUES ({marks(len(RECORDER_COLUMNS) + 1)})"
)
_UPDATE_RECORDER: Final = (
    "UPDATE recorders SET durable_seq = ?, dropped_logs = ?, dropped_spans = ?, update_time = ? "
    "WHERE id = ? AND durable_seq = ? AND NOT is_sealed"
)
_UPDATE_LEASE: Final = "UPDATE recorders SET is_sealed = ?, expires_at = ?, replica_id = ? WHERE id = ?"
_FIND_FLOW: Final = "SELECT 1 FROM flows WHERE id = ?"
_LOAD_FACTS: Final = """
WITH asked (run_id, state_id) AS (VALUES {0})
SELECT asked.run_id, asked.state_id, current.body, earlier.body, recorders.expires_at
FROM asked JOIN runs ON runs.id = asked.run_id
LEFT JOIN run_states AS current ON current.run_id = runs.id AND current.seq = runs.state_seq
LEFT JOIN run_states AS earlier ON earlier.run_id = runs.id AND earlier.id = asked.state_id
LEFT JOIN recorders ON recorders.id = runs.recorder_id
"""


class _Busy(Exception):
    """Another program writes to the file right now."""


class SqliteStore(SqliteEntities, SqliteDispatch):
    """The writer's side of a SQLite file.

    Transactions run in a thread of their own. Where the disk is quick, one for which nobody else has to wait
    runs in place instead, which saves whoever asked for it half of the way.
    """

    def __init__(self, path: Path, perf_counter: Callable[[], float] = time.perf_counter) -> None:
        self._path = path
        self._perf_counter = perf_counter
        self._thread = CallThread("headrace-writer")
        self._connection: sqlite3.Connection | None = None
        self._is_patient = True
        self._quick = 0
        self._count = 0
        self.checkpoints = Checkpoints(lambda: open_connection(path))

    async def open(self) -> None:
        """Connect.

        Raises:
            DatabaseUnavailable: the file cannot be opened.
        """
        await self._thread.call(self._connected)

    async def transact(
        self, logic: Callable[[], Steps[T]], *, is_optimistic: bool = False, is_alone: bool = False
    ) -> T:
        """Run `logic` in one transaction; it is durable when this returns.

        Args:
            logic: what to do.
            is_optimistic: makes no difference here, where a transaction always locks the file.
            is_alone: nobody else waits, and it is small.

        Raises:
            Conflict: it may be tried again.
            DatabaseUnavailable, StorageFull: nothing was written.
        """
        self._count += 1
        if self._count == _MANY:
            await self._thread.call(lambda: lengthen_log(self._connected(), self._path))
        if is_alone and self._quick >= _QUICK_ENOUGH:
            try:
                return self._transact(logic, is_patient=False)
            except _Busy:
                self._quick = 0
        return await self._thread.call(lambda: self._transact(logic))

    async def close(self) -> None:
        """Let go of the file."""
        await self._thread.call(self.checkpoints.close)
        await self._thread.call(self._disconnect)
        self._thread.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            with translated():
                self._connection = open_connection(self._path)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._is_patient = True

    def _transact(self, logic: Callable[[], Steps[T]], *, is_patient: bool = True) -> T:
        began = self._perf_counter()
        with translated():
            connection = self._connected()
            self._begin(connection, is_patient)
            try:
                before = connection.total_changes
                answer = self._step(logic())
                with self.checkpoints.beside(connection, connection.total_changes - before):
                    connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk ends it by itself
                    connection.execute("ROLLBACK")
                raise
        self._quick = self._quick + 1 if self._perf_counter() - began < _QUICK_SECONDS else 0
        return answer

    def _begin(self, connection: sqlite3.Connection, is_patient: bool) -> None:
        """Lock the file.

        Raises:
            _Busy: somebody else has, and there is no patience to wait for them.
        """
        if is_patient is not self._is_patient:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000 if is_patient else 0}")
            self._is_patient = is_patient
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_patient and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise _Busy from None
            raise

    def _step(self, logic: Steps[T]) -> T:
        rows: Any = None
        while True:
            try:
                operation, arguments = logic.send(rows)
            except StopIteration as done:
                answer: T = done.value
                return answer
            rows = getattr(self, operation)(*arguments)

    def _fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self._connected().execute(sql, parameters).fetchall()

    def _fetch_in(self, sql: str, ids: Collection[str]) -> list[Row]:
        """The rows of `sql`, whose `{0}` stands for the ids."""
        found: list[Row] = []
        for part in _padded(ids):
            filled, times = _filled(sql, len(part))
            found += self._fetch(filled, part * times)
        return found

    # Operations, as `storage.steps` describes them

    def breathe(self) -> None:
        time.sleep(0)

    def load_runs(self, ids: Collection[str]) -> list[Row]:
        return [_row(row, _RUN_IDS) for row in self._fetch_in(_LOAD_RUNS, ids)]

    def load_recorders(self, ids: Collection[str]) -> list[Row]:
        return [_row(row, [0]) for row in self._fetch_in(_LOAD_RECORDERS, ids)]

    def load_facts(self, pairs: Collection[tuple[str, str]]) -> list[Row]:
        found: list[Row] = []
        listed = list(pairs)
        for start in range(0, len(listed), 10_000):
            part = listed[start : start + 10_000]
            parameters = [blob(id) for pair in part for id in pair]
            rows = self._fetch(_LOAD_FACTS.format(", ".join(["(?, ?)"] * len(part))), parameters)
            found.extend(_row(row, [0, 1]) for row in rows)
        return found

    def load_known(self, flow_ids: Collection[str], run_ids: Collection[str]) -> list[Row]:
        found: list[Row] = []
        for is_run, table, ids in ((0, "flows", flow_ids), (1, "deleted_runs", run_ids)):
            rows = self._fetch_in(f"SELECT id FROM {table} WHERE id IN ({{0}})", ids)
            found.extend((is_run, from_blob(row[0])) for row in rows)
        return found

    def load_keys(self, pairs: Collection[tuple[str, str]]) -> list[Row]:
        sql = "SELECT flow_id, idempotency_key, id FROM runs WHERE flow_id = ? AND idempotency_key = ?"
        rows = [row for flow_id, key in pairs for row in self._fetch(sql, (blob(flow_id), key))]
        return [_row(row, [0, 2]) for row in rows]

    def load_requests(self, ids: Collection[tuple[str, str]]) -> list[Row]:
        sql = "SELECT method, request_id, digest, response FROM requests WHERE method = ? AND request_id = ?"
        return [row for id in ids for row in self._fetch(sql, id)]

    def load_inputs(self, run_id: str, keys: Collection[str]) -> list[Row]:
        sql = "SELECT key, value, sender, create_time FROM run_inputs WHERE run_id = ? AND key = ?"
        return [row for key in keys for row in self._fetch(sql, (blob(run_id), key))]

    def load_history(self, run_id: str) -> list[Row]:
        sql = "SELECT type, name, event_time FROM run_states WHERE run_id = ? ORDER BY seq"
        return self._fetch(sql, (blob(run_id),))

    def load_full_spec(self, run_id: str) -> bytes | None:
        rows = self._fetch("SELECT full_spec FROM runs WHERE id = ?", (blob(run_id),))
        return rows[0][0] if rows else None

    def load_deployment_runs(self, deployment_ids: Collection[str], limit: int) -> list[Row]:
        sql = _LOAD_DEPLOYMENT_RUNS.format(marks(len(deployment_ids)))
        return [_row(row, _RUN_IDS) for row in self._fetch(sql, (*deployment_ids, limit))]

    def load_unfinished(self, recorder_id: str) -> list[Row]:
        sql = (
            "SELECT id FROM runs WHERE recorder_id = ? AND recorder_id IS NOT NULL "
            "AND state_type NOT IN (6, 7, 8, 9) ORDER BY id DESC"
        )
        return [_row(row, [0]) for row in self._fetch(sql, (blob(recorder_id),))]

    def load_tree(self, root_ids: Collection[str]) -> list[Row]:
        found: list[Row] = []
        sql = (
            "SELECT id, parent_run_id, kind, state_type, start_time, create_time, tags FROM runs "
            "WHERE root_run_id = ?"
        )
        for root_id in root_ids:
            found.extend(_row(row, [0, 1]) for row in self._fetch(sql, (blob(root_id),)))
        return found

    def load_waiting(self, work_pool: str, work_queue: str) -> list[Row]:
        sql = (
            "SELECT id FROM runs WHERE workspace_id = 1 AND kind = 1 AND state_type = 1 "
            "AND work_pool = ? AND work_queue = ?"
        )
        return [_row(row, [0]) for row in self._fetch(sql, (work_pool, work_queue))]

    def load_unstarted(self, deployment_id: str) -> list[Row]:
        sql = "SELECT id FROM runs WHERE deployment_id = ? AND state_type = 1 AND run_count = 0"
        return [_row(row, [0]) for row in self._fetch(sql, (deployment_id,))]

    def lock_flow(self, flow_id: str) -> bool:
        return bool(self._fetch(_FIND_FLOW, (blob(flow_id),)))

    def load_flow_roots(self, flow_id: str) -> list[Row]:
        rows = self._fetch(
            "SELECT id, root_run_id FROM runs WHERE flow_id = ? AND kind = 1", (blob(flow_id),)
        )
        return [_row(row, [0, 1]) for row in rows]

    def flush(self, writes: Writes) -> None:
        connection = self._connected()
        many = connection.executemany
        self._confirm(writes)
        for rows in writes.row_writes:
            self.write_rows(rows)
        self._flush_queue(writes)
        if writes.flows:
            many(
                "INSERT OR IGNORE INTO flows (id, name, create_time) VALUES (?, ?, ?)",
                [(blob(id), name, writes.time) for id, name in writes.flows.items()],
            )
        self._flush_runs(connection, writes)
        if writes.states:
            many(
                "INSERT INTO run_states (run_id, seq, id, type, name, event_time, record_time, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(blob(s[0]), s[1], blob(s[2]), *s[3:]) for s in writes.states],
            )
        self._flush_tags(connection, writes)
        if writes.logs:
            many(
                "INSERT INTO logs (run_id, root_run_id, time, level, logger, message, rest, fields) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(blob(row[0]), blob(row[1]), *row[2:]) for row in writes.logs],
            )
        if writes.events:
            many(
                "INSERT INTO events (id, event, resource_id, run_id, occurred, rest, record_time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*_to_blobs(row, (0, 3)), writes.time) for row in writes.events],
            )
        if writes.spans:
            many(
                "INSERT INTO spans (run_id, root_run_id, trace_id, start_time, body) VALUES (?, ?, ?, ?, ?)",
                [(blob(row[0]), blob(row[1]), *row[2:]) for row in writes.spans],
            )
        self._flush_recorders(connection, writes)
        if writes.requests:
            many(
                "INSERT INTO requests (method, request_id, digest, response, create_time) "
                "VALUES (?, ?, ?, ?, ?)",
                [(*row, writes.time) for row in writes.requests],
            )
        if writes.inputs:
            self._flush_inputs(connection, writes)
        if writes.timers:
            self._flush_timers(connection, writes)
        if writes.ended_attempts:
            many(
                "DELETE FROM attempt_holders WHERE run_id = ?", [(blob(id),) for id in writes.ended_attempts]
            )
        if writes.deleted_runs or writes.deleted_flows:
            self._flush_deletes(connection, writes)
        self._flush_outbox(connection, writes)

    def _confirm(self, writes: Writes) -> None:
        """Make sure of what was remembered rather than read in this transaction."""
        for id, version in writes.confirmed_runs:
            if not self._fetch("SELECT 1 FROM runs WHERE id = ? AND version = ?", (blob(id), version)):
                raise Conflict
        for id in writes.confirmed_flows:
            if not self._fetch(_FIND_FLOW, (blob(id),)):
                raise Conflict
        if self._fetch_in("SELECT id FROM deleted_runs WHERE id IN ({0})", writes.absent_runs):
            raise Conflict
        if writes.unkeyed and self._has_keyed(writes.unkeyed):
            raise Conflict

    def _flush_runs(self, connection: sqlite3.Connection, writes: Writes) -> None:
        if writes.inserted_runs:
            connection.executemany(_INSERT_RUN, map(_insert_parameters, writes.inserted_runs))
        if writes.updated_runs:
            rows = [_to_blobs(updated_values(run), _UPDATED_IDS) for run in writes.updated_runs]
            if connection.executemany(_UPDATE_RUN, rows).rowcount != len(rows):
                raise Conflict

    def _flush_tags(self, connection: sqlite3.Connection, writes: Writes) -> None:
        if writes.tag_deletes:
            connection.executemany(
                "DELETE FROM run_tags WHERE workspace_id = 1 AND tag = ? AND kind = ? AND state_type = ? "
                "AND create_time = ? AND run_id = ?",
                [(*row[:4], blob(row[4])) for row in writes.tag_deletes],
            )
        if writes.tag_inserts:
            connection.executemany(
                "INSERT INTO run_tags (tag, kind, state_type, create_time, run_id) VALUES (?, ?, ?, ?, ?)",
                [(*row[:4], blob(row[4])) for row in writes.tag_inserts],
            )

    def _flush_recorders(self, connection: sqlite3.Connection, writes: Writes) -> None:
        for recorder in writes.recorders:
            if recorder.is_new:
                values = recorder_values(recorder)
                connection.execute(_INSERT_RECORDER, (blob(recorder.id), *values[1:], writes.time))
                continue
            parameters = (
                *(recorder.durable_seq, recorder.dropped_logs, recorder.dropped_spans, writes.time),
                *(blob(recorder.id), recorder.stored_seq),
            )
            if connection.execute(_UPDATE_RECORDER, parameters).rowcount != 1:
                raise Conflict
            if recorder.writes_lease:
                lease = (recorder.is_sealed, recorder.expires_at, recorder.replica_id)
                connection.execute(_UPDATE_LEASE, (*lease, blob(recorder.id)))
        if writes.renewals:
            connection.executemany(
                "UPDATE recorders SET expires_at = ?, update_time = ? WHERE id = ? AND NOT is_sealed",
                [(at, writes.time, blob(id)) for id, at in sorted(writes.renewals.items())],
            )

    def _flush_inputs(self, connection: sqlite3.Connection, writes: Writes) -> None:
        gone = [(blob(id), key) for (id, key), said in writes.inputs.items() if said is None]
        connection.executemany("DELETE FROM run_inputs WHERE run_id = ? AND key = ?", gone)
        connection.executemany(
            "INSERT OR REPLACE INTO run_inputs (run_id, key, value, sender, create_time) "
            "VALUES (?, ?, ?, ?, ?)",
            [(blob(id), key, *said, writes.time) for (id, key), said in writes.inputs.items() if said],
        )

    def _flush_timers(self, connection: sqlite3.Connection, writes: Writes) -> None:
        gone = [(kind, blob(id)) for (kind, id), due in writes.timers.items() if due is None]
        connection.executemany("DELETE FROM timers WHERE kind = ? AND run_id = ?", gone)
        connection.executemany(
            "INSERT OR REPLACE INTO timers (kind, run_id, state_id, due_time) VALUES (?, ?, ?, ?)",
            [(kind, blob(id), blob(due[0]), due[1]) for (kind, id), due in writes.timers.items() if due],
        )

    def _flush_deletes(self, connection: sqlite3.Connection, writes: Writes) -> None:
        ids = [(blob(row[0]),) for row in writes.deleted_runs]
        for id, _, kind, state_type, _, create_time, tags in writes.deleted_runs:
            connection.executemany(
                "DELETE FROM run_tags WHERE workspace_id = 1 AND tag = ? AND kind = ? AND state_type = ? "
                "AND create_time = ? AND run_id = ?",
                [(tag, kind, state_type, create_time, blob(id)) for tag in decode_tags(tags)],
            )
        for table, column in DELETED_FROM:
            connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", ids)
        connection.executemany(
            "INSERT OR IGNORE INTO deleted_runs (id, delete_time) VALUES (?, ?)",
            [(blob(id), writes.time) for id in writes.tombstones],
        )
        connection.executemany("DELETE FROM flows WHERE id = ?", [(blob(id),) for id in writes.deleted_flows])

    def _flush_outbox(self, connection: sqlite3.Connection, writes: Writes) -> None:
        changed = [run.id for run in writes.inserted_runs] + [run.id for run in writes.updated_runs]
        removed = [row[0] for row in writes.deleted_runs]
        for kind, ids in ((OutboxKind.CHANGED, changed), (OutboxKind.REMOVED, removed)):
            if ids:
                connection.execute(
                    "INSERT INTO outbox (kind, keys, record_time) VALUES (?, ?, ?)",
                    (int(kind), b"".join([blob(id) for id in ids]), writes.time),
                )
        if writes.is_trimming:
            self._trim(connection, writes.time)

    def _trim(self, connection: sqlite3.Connection, now: int) -> None:
        for sql, kept_seconds in TRIMMED:
            connection.execute(sql.format("?"), (now - kept_seconds * 1_000_000,))
        last = self._last_before(now - KEPT_SECONDS * 1_000_000)
        if last is None:
            return
        connection.execute("DELETE FROM outbox WHERE seq <= ?", (last,))
        connection.execute(
            "INSERT INTO markers (name, value) VALUES ('outbox', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (f"0-{last}",),
        )

    def _last_before(self, record_time: int) -> int | None:
        """The newest row of the outbox that is older: rows are in the order of time, so halve the range."""
        low, high = self._fetch("SELECT (SELECT min(seq) FROM outbox), (SELECT max(seq) FROM outbox)")[0]
        last: int | None = None
        while low is not None and low <= high:
            middle = (low + high) // 2
            sql = "SELECT seq, record_time FROM outbox WHERE seq >= ? LIMIT 1"
            seq, time = self._fetch(sql, (middle,))[0]
            if time < record_time:
                last, low = seq, seq + 1
            else:
                high = middle - 1
        return last


def _insert_parameters(run: Any) -> Row:
    return _to_blobs(run_values(run), _RUN_IDS)


def _to_blobs(values: Row, positions: Sequence[int]) -> Row:
    row = list(values)
    for position in positions:
        id = row[position]
        if id is not None:
            row[position] = blob(id)
    return tuple(row)
