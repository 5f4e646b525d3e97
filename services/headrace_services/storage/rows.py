"""What the writer holds of a run and of a recorder while it works on them."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from headrace.core.ids import flow_id_of
from headrace.v1.run_pb2 import Run
from headrace_services.domain.books import Books
from headrace_services.domain.effects import RetryType

__all__ = ["ROOT_FENCE", "WORKSPACE", "RecorderRow", "Requeue", "RunRow", "flow_id_of", "split_spec", "text"]

WORKSPACE: Final = 1
"""The one workspace there is yet."""
ROOT_FENCE: Final = 1
"""The first fence of a run, and its first attempt."""

# These have a column of their own, or are the server's to say.
_WITH_COLUMN: Final = (
    "id",
    "name",
    "task_name",
    "root_run_id",
    "parent_run_id",
    "owner_run_id",
    "deployment_id",
    "work_pool",
    "work_queue",
    "tags",
    "parameters",
    "job_variables",
    "state",
    "attempt",
    "fence",
    "run_count",
    "create_time",
    "start_time",
    "end_time",
    "expected_start_time",
    "next_scheduled_start_time",
    "total_run_time",
    "estimated_run_time",
    "lateness",
    "cancel_requested",
    "etag",
    "flow_id",
    "recorder_id",
)


def text(value: str) -> str:
    """`value` as both databases can keep it: PostgreSQL's text knows no NUL."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def split_spec(run: Run) -> tuple[bytes, bytes | None]:
    """The parts of `run` that have no column: for every view, and for view FULL only."""
    spec = Run()
    spec.CopyFrom(run)
    for field in _WITH_COLUMN:
        spec.ClearField(field)  # type: ignore[arg-type]  # the stub wants literals
    return spec.SerializeToString(), full_spec(run)


def full_spec(run: Run) -> bytes | None:
    """What only view FULL shows of `run`."""
    full = Run()
    if run.HasField("parameters"):
        full.parameters.CopyFrom(run.parameters)
    if run.HasField("job_variables"):
        full.job_variables.CopyFrom(run.job_variables)
    return full.SerializeToString() or None


def encode_tags(run: Run) -> str | None:
    """The tags of `run` as they are kept."""
    return json.dumps([text(tag) for tag in run.tags]) if run.tags else None


def decode_tags(tags: str | None) -> list[str]:
    """What `encode_tags` made."""
    return [] if tags is None else json.loads(tags)


class RunRow:
    """One run. The fields are the columns; `books` holds those that bookkeeping computes."""

    __slots__ = (
        "attempt",
        "body",
        "books",
        "create_digest",
        "create_time",
        "deployment_id",
        "entered",
        "fence",
        "flow_id",
        "flow_run_count",
        "full_spec",
        "id",
        "idempotency_key",
        "is_history_known",
        "is_presumed",
        "kind",
        "name",
        "owner_id",
        "parent_id",
        "pause_keys",
        "recorder_id",
        "requeue",
        "retry_type",
        "root_id",
        "spec",
        "state_id",
        "state_name",
        "state_seq",
        "stored_tags",
        "stored_type",
        "stored_version",
        "tags",
        "task_name",
        "version",
        "work_pool",
        "work_queue",
        "writes_full_spec",
        "writes_spec",
    )

    id: str
    kind: int
    flow_id: str | None
    name: str
    task_name: str | None
    root_id: str
    parent_id: str | None
    owner_id: str
    recorder_id: str | None
    deployment_id: str | None
    work_pool: str | None
    work_queue: str | None
    idempotency_key: str | None
    create_digest: bytes | None
    tags: str | None
    books: Books
    state_name: str
    state_id: str | None
    state_seq: int
    is_presumed: bool
    attempt: int
    fence: int
    flow_run_count: int
    retry_type: RetryType
    pause_keys: str
    create_time: int
    version: int
    spec: bytes
    full_spec: bytes | None
    body: bytes | None
    """The current state, serialised, when it is known."""
    entered: list[tuple[str, bytes]]
    """Ids and bodies of the states it has entered since it was loaded or made."""
    is_history_known: bool
    """`entered` has every state it was ever in: the run was made here and is remembered since."""
    stored_version: int | None
    """The version in the database; None: the run is new."""
    stored_type: int
    """The number of the state's type in the database."""
    stored_tags: str | None
    writes_spec: bool
    writes_full_spec: bool
    requeue: Requeue | None
    """What it keeps if it is queued again in this transaction."""


class Requeue(NamedTuple):
    """What a run that is queued again keeps of the attempt before.

    Attributes:
        due_time: not before, microseconds.
        lost_count: how many of its attempts were lost.
        refusals: how many workers have refused it.
        excluded: JSON: by worker id the instant until which the worker does not get it.
    """

    due_time: int
    lost_count: int = 0
    refusals: int = 0
    excluded: str | None = None


class RecorderRow:
    """One recorder."""

    __slots__ = (
        "create_time",
        "dropped_logs",
        "dropped_spans",
        "durable_seq",
        "expires_at",
        "host",
        "id",
        "is_new",
        "is_remembered",
        "is_sealed",
        "pid",
        "replica_id",
        "sdk",
        "stored_seq",
        "writes_lease",
    )

    id: str
    durable_seq: int
    is_sealed: bool
    expires_at: int | None
    replica_id: str
    host: str
    pid: int
    sdk: str
    create_time: int
    dropped_logs: int
    dropped_spans: int
    is_new: bool
    is_remembered: bool
    """It was not locked when it was read: enough to go on from, as the write checks it."""
    stored_seq: int
    """The durable sequence number in the database; every update names it."""
    writes_lease: bool
    """The lease, its holder and the seal are written; a record leaves them to whoever renews."""
