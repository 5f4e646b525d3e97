"""PostgreSQL: one connection that writes; a transaction is one load and one statement that writes it all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

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
from headrace_services.storage.dispatch_stores import PostgresqlDispatch
from headrace_services.storage.entities import Lock
from headrace_services.storage.entity_stores import PostgresqlEntities
from headrace_services.storage.errors import is_disconnect, translate
from headrace_services.storage.outbox import KEPT_SECONDS, OutboxKind
from headrace_services.storage.postgresql import CONNECT_SECONDS, Connection, connect
from headrace_services.storage.postgresql_statement import Columns, Part, Statement
from headrace_services.storage.rows import decode_tags
from headrace_services.storage.steps import Conflict, Row, Steps
from headrace_services.storage.work import Writes

__all__ = ["PostgresqlStore"]

T = TypeVar("T")

# The writer finds rows by their keys alone. A plan made while the tables were empty stays for as long as its
# statement: it must not be one that scans them when they are full.
_PLANNING: Final = {
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"),
}
_TYPES: Final = {
    **dict.fromkeys(RUN_ID_COLUMNS, "uuid"),
    **dict.fromkeys(("kind", "state_type", "retry_type"), "smallint"),
    **dict.fromkeys(("state_seq", "attempt", "run_count", "flow_run_count"), "int"),
    **dict.fromkeys(("is_presumed", "is_resuming", "is_sealed"), "bool"),
    **dict.fromkeys(("create_digest", "spec", "full_spec"), "bytea"),
    **dict.fromkeys(
        ("name", "task_name", "deployment_id", "work_pool", "work_queue", "idempotency_key", "tags"), "text"
    ),
    **dict.fromkeys(("state_name", "pause_keys", "replica_id", "host", "sdk"), "text"),
}


def _type(column: str) -> str:
    return _TYPES.get(column, "bigint")


def _selected(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{c}::text" if c in RUN_ID_COLUMNS else f"{prefix}{c}" for c in columns)


_INSERTED: Final = (*RUN_COLUMNS, "full_spec")
_LOAD_RUNS: Final = (
    f"SELECT {_selected(RUN_COLUMNS)} FROM runs WHERE id = ANY($1::uuid[] || "
    "ARRAY(SELECT owner_run_id FROM runs WHERE id = ANY($1::uuid[]))) ORDER BY id FOR NO KEY UPDATE"
)
_LOAD_DEPLOYMENT_RUNS: Final = (
    f"SELECT {_selected(RUN_COLUMNS)} FROM runs WHERE deployment_id = ANY($1::text[]) "
    "AND state_type IN (1, 2, 3, 4, 5) AND kind = 1 ORDER BY create_time, id LIMIT $2 FOR NO KEY UPDATE"
)
_LOAD_RECORDERS: Final = (
    f"SELECT {_selected(RECORDER_COLUMNS)} FROM recorders WHERE id = ANY($1::uuid[]) "
    "ORDER BY id FOR NO KEY UPDATE"
)
_LOAD_FACTS: Final = """
SELECT asked.run_id::text, asked.state_id::text, current.body, earlier.body, recorders.expires_at
FROM unnest($1::uuid[], $2::uuid[]) AS asked (run_id, state_id) JOIN runs ON runs.id = asked.run_id
LEFT JOIN run_states AS current ON current.run_id = runs.id AND current.seq = runs.state_seq
LEFT JOIN run_states AS earlier ON earlier.run_id = runs.id AND earlier.id = asked.state_id
LEFT JOIN recorders ON recorders.id = runs.recorder_id
"""
_LOAD_KNOWN: Final = """
WITH known AS (SELECT id FROM flows WHERE id = ANY($1::uuid[]) ORDER BY id FOR KEY SHARE)
SELECT 0, id::text FROM known
UNION ALL SELECT 1, id::text FROM deleted_runs WHERE id = ANY($2::uuid[])
"""
_LOAD_KEYS: Final = """
SELECT runs.flow_id::text, runs.idempotency_key, runs.id::text
FROM unnest($1::uuid[], $2::text[]) AS asked (flow_id, key)
JOIN runs ON runs.flow_id = asked.flow_id AND runs.idempotency_key = asked.key
"""
_LOAD_REQUESTS: Final = """
SELECT method, requests.request_id, digest, response FROM requests
JOIN unnest($1::text[], $2::text[]) AS asked (method_name, request_id)
ON method = method_name AND requests.request_id = asked.request_id
"""
_LOAD_INPUTS: Final = (
    "SELECT key, value, sender, create_time FROM run_inputs WHERE run_id = $1 AND key = ANY($2::text[])"
)
_LOAD_UNFINISHED: Final = (
    "SELECT id::text FROM runs WHERE recorder_id = $1 AND state_type NOT IN (6, 7, 8, 9) ORDER BY id DESC"
)
_LOAD_TREE: Final = (
    "SELECT id::text, parent_run_id::text, kind, state_type, start_time, create_time, tags FROM runs "
    "WHERE root_run_id = ANY($1::uuid[]) ORDER BY id FOR UPDATE"
)
_LOAD_WAITING: Final = (
    "SELECT id::text FROM runs WHERE workspace_id = 1 AND kind = 1 AND state_type = 1 "
    "AND work_pool = $1 AND work_queue = $2"
)
_LOAD_UNSTARTED: Final = (
    "SELECT id::text FROM runs WHERE deployment_id = $1 AND state_type = 1 AND run_count = 0"
)
_LOCK_ROOTS: Final = "SELECT 1 FROM runs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE"
_LOCK_FLOW: Final = "SELECT 1 FROM flows WHERE id = $1 FOR UPDATE"
_LOAD_FLOW_ROOTS: Final = "SELECT id::text, root_run_id::text FROM runs WHERE flow_id = $1 AND kind = 1"


def _insert(table: str, columns: Columns, suffix: str = "") -> Part:
    names = ", ".join(name for name, _ in columns)
    return Part(f"INSERT INTO {table} ({names}) SELECT {names} FROM {{rows}} {suffix}".rstrip(), columns)


_RUN: Final = tuple((name, _type(name)) for name in _INSERTED)
_INSERT_RUNS: Final = _insert("runs", _RUN)
_ASSIGNED: Final = ", ".join(
    f"{c} = coalesce(new.{c}, runs.{c})" if c.endswith("spec") else f"{c} = new.{c}" for c in UPDATED_COLUMNS
)
_WHERE_UNCHANGED: Final = "WHERE runs.id = new.id AND runs.version = new.stored RETURNING 1"
_UPDATE_RUNS: Final = Part(
    f"UPDATE runs SET {_ASSIGNED} FROM {{rows}} {_WHERE_UNCHANGED}",
    (*((name, _type(name)) for name in UPDATED_COLUMNS), ("id", "uuid"), ("stored", "bigint")),
)
_INSERT_STATES: Final = _insert(
    "run_states",
    (
        *(("run_id", "uuid"), ("seq", "int"), ("id", "uuid"), ("type", "smallint"), ("name", "text")),
        *(("event_time", "bigint"), ("record_time", "bigint"), ("body", "bytea")),
    ),
)
_TAG: Final = (
    *(("tag", "text"), ("kind", "smallint"), ("state_type", "smallint")),
    *(("create_time", "bigint"), ("run_id", "uuid")),
)
_INSERT_TAGS: Final = _insert("run_tags", _TAG)
_DELETE_TAGS: Final = Part(
    "DELETE FROM run_tags USING {rows} WHERE run_tags.workspace_id = 1 AND run_tags.tag = new.tag "
    "AND run_tags.kind = new.kind AND run_tags.state_type = new.state_type "
    "AND run_tags.create_time = new.create_time AND run_tags.run_id = new.run_id",
    _TAG,
)
_INSERT_LOGS: Final = _insert(
    "logs",
    (
        *(("run_id", "uuid"), ("root_run_id", "uuid"), ("time", "bigint"), ("level", "smallint")),
        *(("logger", "text"), ("message", "text"), ("rest", "bytea"), ("fields", "text")),
    ),
)
_INSERT_EVENTS: Final = _insert(
    "events",
    (
        *(("id", "uuid"), ("event", "text"), ("resource_id", "text"), ("run_id", "uuid")),
        *(("occurred", "bigint"), ("rest", "bytea"), ("record_time", "bigint")),
    ),
)
_INSERT_SPANS: Final = _insert(
    "spans",
    (
        *(("run_id", "uuid"), ("root_run_id", "uuid"), ("trace_id", "text")),
        *(("start_time", "bigint"), ("body", "bytea")),
    ),
)
_INSERT_FLOWS: Final = _insert(
    "flows", (("id", "uuid"), ("name", "text"), ("create_time", "bigint")), "ON CONFLICT DO NOTHING"
)
_INSERT_RECORDERS: Final = _insert(
    "recorders", (*((name, _type(name)) for name in RECORDER_COLUMNS), ("update_time", "bigint"))
)
_UPDATE_RECORDERS: Final = Part(
    "UPDATE recorders SET durable_seq = new.durable_seq, dropped_logs = new.dropped_logs, "
    "dropped_spans = new.dropped_spans, update_time = new.update_time, is_sealed = new.is_sealed, "
    "expires_at = CASE WHEN new.lease THEN new.expires_at ELSE recorders.expires_at END, "
    "replica_id = CASE WHEN new.lease THEN new.replica_id ELSE recorders.replica_id END FROM {rows} "
    "WHERE recorders.id = new.id AND recorders.durable_seq = new.stored AND NOT recorders.is_sealed "
    "RETURNING 1",
    (
        *(("id", "uuid"), ("durable_seq", "bigint"), ("is_sealed", "bool"), ("expires_at", "bigint")),
        *(("replica_id", "text"), ("dropped_logs", "bigint"), ("dropped_spans", "bigint")),
        *(("update_time", "bigint"), ("stored", "bigint"), ("lease", "bool")),
    ),
)
_RENEW: Final = Part(
    "UPDATE recorders SET expires_at = new.expires_at, update_time = new.update_time FROM {rows} "
    "WHERE recorders.id = new.id AND NOT recorders.is_sealed",
    (("id", "uuid"), ("expires_at", "bigint"), ("update_time", "bigint")),
)
_INSERT_REQUESTS: Final = _insert(
    "requests",
    (
        *(("method", "text"), ("request_id", "text"), ("digest", "bytea"), ("response", "bytea")),
        ("create_time", "bigint"),
    ),
)
_INPUT: Final = (
    *(("run_id", "uuid"), ("key", "text"), ("value", "bytea"), ("sender", "text"), ("create_time", "bigint")),
)
_PUT_INPUTS: Final = _insert(
    "run_inputs",
    _INPUT,
    "ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value, sender = excluded.sender, "
    "create_time = excluded.create_time, xid = excluded.xid, seq = excluded.seq",
)
_DELETE_INPUTS: Final = Part(
    "DELETE FROM run_inputs USING {rows} WHERE run_inputs.run_id = new.run_id AND run_inputs.key = new.key",
    _INPUT[:2],
)
_TIMER: Final = (("kind", "smallint"), ("run_id", "uuid"), ("state_id", "uuid"), ("due_time", "bigint"))
_PUT_TIMERS: Final = _insert(
    "timers",
    _TIMER,
    "ON CONFLICT (kind, run_id) DO UPDATE SET state_id = excluded.state_id, due_time = excluded.due_time",
)
_DELETE_TIMERS: Final = Part(
    "DELETE FROM timers USING {rows} WHERE timers.kind = new.kind AND timers.run_id = new.run_id",
    _TIMER[:2],
)
_END_ATTEMPTS: Final = Part(
    "DELETE FROM attempt_holders USING {rows} WHERE attempt_holders.run_id = new.run_id",
    (("run_id", "uuid"),),
)
_INSERT_OUTBOX: Final = _insert(
    "outbox", (("kind", "smallint"), ("keys", "bytea"), ("record_time", "bigint"))
)
# Locked against a change until the commit, as if they had been locked when they were read.
_CONFIRM_RUNS: Final = Part(
    "SELECT 1 FROM {rows} JOIN runs ON runs.id = new.id AND runs.version = new.version FOR SHARE OF runs",
    (("id", "uuid"), ("version", "bigint")),
)
_CONFIRM_FLOWS: Final = Part(
    "SELECT 1 FROM {rows} JOIN flows ON flows.id = new.id FOR KEY SHARE OF flows", (("id", "uuid"),)
)
_CONFIRM_ABSENT: Final = Part(
    "SELECT 1 FROM {rows} JOIN deleted_runs ON deleted_runs.id = new.id", (("id", "uuid"),)
)


_WITHOUT_LOCKS: Final = frozenset(
    {
        *("load_runs", "load_recorders", "load_facts", "load_known", "load_keys", "load_requests"),
        *("load_inputs", "load_full_spec", "load_lines", "load_candidates", "breathe", "flush"),
    }
)
"""What an optimistic transaction may do, beside finding rows that would not be locked or only be kept."""


def _needs_locks(operation: str, arguments: Sequence[Any]) -> bool:
    if operation == "find_rows":
        return arguments[-1] not in (Lock.NONE, Lock.KEEP)
    return operation not in _WITHOUT_LOCKS


class PostgresqlStore(PostgresqlEntities, PostgresqlDispatch):
    """The writer's side of a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            DatabaseUnavailable: nobody answers.
        """
        try:
            await self._connected()
        except Exception as error:
            raise translate(error) or error from error

    async def transact(
        self, logic: Callable[[], Steps[T]], *, is_optimistic: bool = False, is_alone: bool = False
    ) -> T:
        """Run `logic` in one transaction; it is durable when this returns.

        Args:
            logic: what to do.
            is_optimistic: what is read need not be locked: the one statement that writes is the whole
                transaction, and costs one round trip instead of three.
            is_alone: makes no difference here, where the event loop never waits for the database.

        Raises:
            Conflict: it may be tried again.
            DatabaseUnavailable, StorageFull: nothing was written, or, when the connection broke in the
                commit itself, perhaps all of it: every command may be repeated.
        """
        try:
            connection = await self._connected()
            if is_optimistic:
                return await self._step(connection, logic(), is_optimistic=True)
            async with connection.transaction():
                return await self._step(connection, logic())
        except BaseException as error:
            if is_disconnect(error) or not isinstance(error, Exception):
                await self._disconnect()
            known = translate(error)
            if known is None or known is error:
                raise
            raise known from error

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=CONNECT_SECONDS)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, "writer", _PLANNING)
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _step(self, connection: Connection, logic: Steps[T], *, is_optimistic: bool = False) -> T:
        rows: Any = None
        while True:
            try:
                operation, arguments = logic.send(rows)
            except StopIteration as done:
                answer: T = done.value
                return answer
            if is_optimistic and _needs_locks(operation, arguments):
                raise Conflict  # it needs locks after all
            rows = await getattr(self, operation)(connection, *arguments)

    # Operations, as `storage.steps` describes them

    async def breathe(self, connection: Connection) -> None:
        await asyncio.sleep(0)

    async def load_runs(self, connection: Connection, ids: Collection[str]) -> Sequence[Row]:
        return await connection.fetch(_LOAD_RUNS, list(ids))

    async def load_recorders(self, connection: Connection, ids: Collection[str]) -> Sequence[Row]:
        return await connection.fetch(_LOAD_RECORDERS, list(ids))

    async def load_facts(self, connection: Connection, pairs: Collection[tuple[str, str]]) -> Sequence[Row]:
        run_ids, state_ids = zip(*pairs, strict=True)
        return await connection.fetch(_LOAD_FACTS, run_ids, state_ids)

    async def load_known(
        self, connection: Connection, flow_ids: Collection[str], run_ids: Collection[str]
    ) -> Sequence[Row]:
        return await connection.fetch(_LOAD_KNOWN, list(flow_ids), list(run_ids))

    async def load_keys(self, connection: Connection, pairs: Collection[tuple[str, str]]) -> Sequence[Row]:
        flow_ids, keys = zip(*pairs, strict=True)
        return await connection.fetch(_LOAD_KEYS, flow_ids, keys)

    async def load_requests(self, connection: Connection, ids: Collection[tuple[str, str]]) -> Sequence[Row]:
        methods, request_ids = zip(*ids, strict=True)
        return await connection.fetch(_LOAD_REQUESTS, methods, request_ids)

    async def load_inputs(self, connection: Connection, run_id: str, keys: Collection[str]) -> Sequence[Row]:
        return await connection.fetch(_LOAD_INPUTS, run_id, list(keys))

    async def load_history(self, connection: Connection, run_id: str) -> Sequence[Row]:
        sql = "SELECT type, name, event_time FROM run_states WHERE run_id = $1 ORDER BY seq"
        return await connection.fetch(sql, run_id)

    async def load_full_spec(self, connection: Connection, run_id: str) -> bytes | None:
        spec: bytes | None = await connection.fetchval("SELECT full_spec FROM runs WHERE id = $1", run_id)
        return spec

    async def load_deployment_runs(
        self, connection: Connection, deployment_ids: Collection[str], limit: int
    ) -> Sequence[Row]:
        return await connection.fetch(_LOAD_DEPLOYMENT_RUNS, list(deployment_ids), limit)

    async def load_unfinished(self, connection: Connection, recorder_id: str) -> Sequence[Row]:
        return await connection.fetch(_LOAD_UNFINISHED, recorder_id)

    async def load_tree(self, connection: Connection, root_ids: Collection[str]) -> Sequence[Row]:
        # Whoever adds a run locks its owner first: with the roots locked, the next statement sees them all.
        await connection.execute(_LOCK_ROOTS, list(root_ids))
        return await connection.fetch(_LOAD_TREE, list(root_ids))

    async def load_waiting(self, connection: Connection, work_pool: str, work_queue: str) -> Sequence[Row]:
        return await connection.fetch(_LOAD_WAITING, work_pool, work_queue)

    async def load_unstarted(self, connection: Connection, deployment_id: str) -> Sequence[Row]:
        return await connection.fetch(_LOAD_UNSTARTED, deployment_id)

    async def lock_flow(self, connection: Connection, flow_id: str) -> bool:
        return await connection.fetchval(_LOCK_FLOW, flow_id) is not None

    async def load_flow_roots(self, connection: Connection, flow_id: str) -> Sequence[Row]:
        return await connection.fetch(_LOAD_FLOW_ROOTS, flow_id)

    async def flush(self, connection: Connection, writes: Writes) -> None:
        statement = Statement()
        for rows in writes.row_writes:
            self._add_rows(statement, rows)
        flows = [(id, name, writes.time) for id, name in sorted(writes.flows.items())]
        statement.add(_INSERT_FLOWS, flows)
        statement.add(_INSERT_RUNS, [run_values(run) for run in writes.inserted_runs])
        statement.add(_UPDATE_RUNS, [updated_values(run) for run in writes.updated_runs], each=1)
        statement.add(_INSERT_STATES, writes.states)
        statement.add(_DELETE_TAGS, writes.tag_deletes)
        statement.add(_INSERT_TAGS, writes.tag_inserts)
        statement.add(_INSERT_LOGS, writes.logs)
        statement.add(_INSERT_SPANS, writes.spans)
        statement.add(_INSERT_EVENTS, [(*row, writes.time) for row in writes.events])
        self._add_recorders(statement, writes)
        statement.add(_INSERT_REQUESTS, [(*row, writes.time) for row in writes.requests])
        if writes.inputs or writes.timers:
            self._add_inputs_and_timers(statement, writes)
        statement.add(_END_ATTEMPTS, [(id,) for id in writes.ended_attempts])
        self._add_queue(statement, writes)
        self._add_outbox(statement, writes)
        self._add_kept(statement, writes.kept_rows)
        statement.add(_CONFIRM_RUNS, writes.confirmed_runs, each=1)
        statement.add(_CONFIRM_FLOWS, [(id,) for id in writes.confirmed_flows], each=1)
        statement.add(_CONFIRM_ABSENT, [(id,) for id in writes.absent_runs], each=0)
        await statement.run(connection)
        if writes.deleted_runs or writes.deleted_flows:
            await self._delete(connection, writes)
        if writes.is_trimming:
            await self._trim(connection, writes.time)

    def _add_recorders(self, statement: Statement, writes: Writes) -> None:
        new = [(*recorder_values(r), writes.time) for r in writes.recorders if r.is_new]
        statement.add(_INSERT_RECORDERS, new)
        advanced: list[Row] = [
            (
                *(r.id, r.durable_seq, r.is_sealed, r.expires_at, r.replica_id, r.dropped_logs),
                *(r.dropped_spans, writes.time, r.stored_seq, r.writes_lease),
            )
            for r in writes.recorders
            if not r.is_new
        ]
        statement.add(_UPDATE_RECORDERS, advanced, each=1)
        statement.add(_RENEW, [(id, at, writes.time) for id, at in sorted(writes.renewals.items())])

    def _add_inputs_and_timers(self, statement: Statement, writes: Writes) -> None:
        inputs = [(id, key, *said, writes.time) for (id, key), said in writes.inputs.items() if said]
        statement.add(_PUT_INPUTS, inputs)
        statement.add(_DELETE_INPUTS, [pair for pair, said in writes.inputs.items() if said is None])
        statement.add(_PUT_TIMERS, [(*pair, *due) for pair, due in writes.timers.items() if due])
        statement.add(_DELETE_TIMERS, [pair for pair, due in writes.timers.items() if due is None])

    def _add_outbox(self, statement: Statement, writes: Writes) -> None:
        changed = [run.id for run in writes.inserted_runs] + [run.id for run in writes.updated_runs]
        removed = [row[0] for row in writes.deleted_runs]
        kinds = ((OutboxKind.CHANGED, changed), (OutboxKind.REMOVED, removed))
        rows = [
            (int(kind), bytes.fromhex("".join(ids).replace("-", "")), writes.time)
            for kind, ids in kinds
            if ids
        ]
        statement.add(_INSERT_OUTBOX, rows)

    async def _delete(self, connection: Connection, writes: Writes) -> None:
        ids = [row[0] for row in writes.deleted_runs]
        tags = [
            (tag, kind, state_type, create_time, id)
            for id, _, kind, state_type, _, create_time, tags in writes.deleted_runs
            for tag in decode_tags(tags)
        ]
        statement = Statement()
        statement.add(_DELETE_TAGS, tags)
        await statement.run(connection)
        for table, column in DELETED_FROM:
            await connection.execute(f"DELETE FROM {table} WHERE {column} = ANY($1::uuid[])", ids)
        await connection.execute(
            "INSERT INTO deleted_runs (id, delete_time) SELECT id, $2 FROM unnest($1::uuid[]) AS id "
            "ON CONFLICT DO NOTHING",
            *(writes.tombstones, writes.time),
        )
        await connection.execute("DELETE FROM flows WHERE id = ANY($1::uuid[])", writes.deleted_flows)

    async def _trim(self, connection: Connection, now: int) -> None:
        for sql, kept_seconds in TRIMMED:
            await connection.execute(sql.format("$1"), now - kept_seconds * 1_000_000)
        # Only what every reader can see already, or its place could be given away unseen.
        horizon = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        last = await connection.fetchrow(
            "WITH old AS (DELETE FROM outbox WHERE record_time < $1 "
            f"AND xid < {horizon} RETURNING xid, seq) "
            "SELECT xid, seq FROM old ORDER BY xid DESC, seq DESC LIMIT 1",
            now - KEPT_SECONDS * 1_000_000,
        )
        if last is not None:
            await connection.execute(
                "INSERT INTO markers (name, value) VALUES ('outbox', $1) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                f"{last[0]}-{last[1]}",
            )
