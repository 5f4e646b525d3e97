"""Commands on work pools and work queues.

Every command on a queue locks its pool first: so ranks and names are decided one after the other, and a
pool does not go while a queue is being made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    ObjectAlreadyExists,
    ObjectNotFound,
    PreconditionFailed,
)
from headrace.core.ids import new_id
from headrace.v1.work_pool_pb2 import WorkPool, WorkQueue
from headrace_services.domain.fairness import WEIGHT
from headrace_services.domain.priorities import first_free, placed
from headrace_services.storage import steps
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import DeploymentRow, WorkPoolRow, WorkQueueRow
from headrace_services.storage.deployment_codec import set_queue
from headrace_services.storage.dispatch_rows import QueuedRunRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.fairness_rows import FairnessRuleRow, weigh
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from headrace_services.storage.work_pool_codec import (
    DEFAULT_QUEUE,
    limit_of,
    pool_message,
    queue_message,
    struct_text,
)

__all__ = [
    "CreateWorkPool",
    "CreateWorkQueue",
    "DeleteWorkPool",
    "DeleteWorkQueue",
    "UpdateWorkPool",
    "UpdateWorkQueue",
    "ensure_queue",
    "find_pool",
]

Row = TypeVar("Row", WorkPoolRow, WorkQueueRow)
_POOL_FIELDS: Final = ("description", "base_job_template", "concurrency_limit", "paused")
_QUEUE_FIELDS: Final = ("description", "priority", "concurrency_limit", "paused")
_LARGEST_RANK: Final = 1_000_000


def find_pool(work: Work, name: str, lock: Lock = Lock.CHANGE) -> Steps[WorkPoolRow]:
    """The pool with the name, locked.

    Raises:
        ObjectNotFound: there is none.
    """
    row = yield from work.rows.one(WorkPoolRow, [("name", "=", name)], lock)
    if row is None:
        raise ObjectNotFound.of("work pool", name)
    return row


def ensure_queue(work: Work, pool: WorkPoolRow, name: str) -> Steps[WorkQueueRow]:
    """The queue of the pool with the name, made when it is missing; the pool must be locked for change."""
    row = yield from work.rows.one(WorkQueueRow, [("pool_id", "=", pool.id), ("name", "=", name)])
    if row is not None:
        return row
    return (yield from _make_queue(work, pool, WorkQueue(name=name)))


def _make_queue(work: Work, pool: WorkPoolRow, asked: WorkQueue) -> Steps[WorkQueueRow]:
    limit = limit_of(asked, "work_queue")
    others = yield from work.rows.find(WorkQueueRow, [("pool_id", "=", pool.id)])
    row = WorkQueueRow(
        id=new_id(),
        pool_id=pool.id,
        name=asked.name,
        description=asked.description,
        priority=_rank(asked.priority) or first_free({other.id: other.priority for other in others}),
        is_paused=asked.paused,
        is_default=not others,
        concurrency_limit=limit,
        create_time=work.now,
        update_time=work.now,
    )
    _take_rank(work, others, row)
    work.rows.put(row)
    return row


def _rank(priority: int) -> int:
    if priority > _LARGEST_RANK:
        raise FieldsInvalid.of("work_queue.priority", f"must be at most {_LARGEST_RANK}")
    return priority


def _take_rank(work: Work, queues: Sequence[WorkQueueRow], row: WorkQueueRow) -> None:
    """Give the row the rank it asks for: whoever has it makes room."""
    others = {other.id: other for other in queues if other.id != row.id}
    ranks = {id: other.priority for id, other in others.items()}
    for id, rank in placed(ranks, row.id, row.priority).items():
        if id in others:
            others[id].priority = rank
            others[id].update_time = work.now
            work.rows.put(others[id])


def _check_etag(row: Row, etag: str) -> None:
    if etag and etag != str(row.version):
        raise EtagMismatch(facts={"etag": str(row.version)})


def _check_paths(paths: Sequence[str], allowed: Sequence[str], *, optional: bool = False) -> None:
    unknown = [path for path in paths if path not in allowed]
    if unknown:
        raise FieldsInvalid.of(
            "update_mask", f"names '{unknown[0]}'; what can be changed is {', '.join(allowed)}"
        )
    if not paths and not optional:
        raise FieldsInvalid.of("update_mask", f"must name what to change: of {', '.join(allowed)}")


# Pools


def default_queue_of(work: Work, pool: WorkPoolRow) -> Steps[str]:
    """The name of the pool's default queue."""
    where = [("pool_id", "=", pool.id), ("is_default", "=", True)]
    row = yield from work.rows.one(WorkQueueRow, where, Lock.NONE)
    return row.name if row is not None else DEFAULT_QUEUE


class CreateWorkPool(Command[tuple[WorkPool, bool]]):
    """A pool is made, with its default queue.

    Args:
        pool: what is asked for, its template complete and sound.
        return_existing: a pool of the name is fine if its type is the same.

    Answers with the pool and whether it existed: it may also have been made by the same request before.

    Raises:
        ObjectAlreadyExists: there is a pool of the name that is another.
    """

    def __init__(self, pool: WorkPool, return_existing: bool) -> None:
        super().__init__()
        self._pool = pool
        self._return_existing = return_existing

    def apply(self, work: Work) -> Steps[tuple[WorkPool, bool]]:
        row = yield from work.rows.one(WorkPoolRow, [("name", "=", self._pool.name)])
        if row is None:
            row = self._row(work)
            work.rows.put(row)
            yield from _make_queue(work, row, WorkQueue(name=DEFAULT_QUEUE))
            return pool_message(row, DEFAULT_QUEUE), False
        if not (row.type == self._pool.type if self._return_existing else self._is_same(row)):
            raise ObjectAlreadyExists(
                f"There is a work pool '{row.name}' already, of type '{row.type}'.",
                facts={"kind": "work pool", "key": row.name},
            )
        return pool_message(row, (yield from default_queue_of(work, row))), True

    def _row(self, work: Work) -> WorkPoolRow:
        pool = self._pool
        return WorkPoolRow(
            id=new_id(),
            name=pool.name,
            type=pool.type,
            description=pool.description,
            is_paused=pool.paused,
            concurrency_limit=limit_of(pool, "work_pool"),
            base_job_template=struct_text(pool.base_job_template),
            create_time=work.now,
            update_time=work.now,
        )

    def _is_same(self, row: WorkPoolRow) -> bool:
        pool = self._pool
        asked = (pool.type, pool.description, pool.paused, limit_of(pool, "work_pool"))
        return (row.type, row.description, row.is_paused, row.concurrency_limit) == asked and (
            row.base_job_template == struct_text(pool.base_job_template)
        )


class UpdateWorkPool(Command[WorkPool]):
    """Fields of a pool are changed.

    Args:
        pool: `name`, `etag` and the fields in `paths` are read.
        paths: of `description`, `base_job_template`, `concurrency_limit`, `paused`.

    Raises:
        ObjectNotFound: there is no such pool.
        EtagMismatch: it has changed.
        FieldsInvalid: another path.
    """

    def __init__(self, pool: WorkPool, paths: Sequence[str]) -> None:
        super().__init__()
        _check_paths(paths, _POOL_FIELDS)
        self._pool = pool
        self._paths = paths

    def apply(self, work: Work) -> Steps[WorkPool]:
        limit = limit_of(self._pool, "work_pool")
        row = yield from find_pool(work, self._pool.name)
        _check_etag(row, self._pool.etag)
        asked = {
            "description": self._pool.description,
            "base_job_template": struct_text(self._pool.base_job_template),
            "concurrency_limit": limit,
            "is_paused": self._pool.paused,
        }
        wanted = {_column(path) for path in self._paths}
        _change(work, row, {name: value for name, value in asked.items() if name in wanted})
        return pool_message(row, (yield from default_queue_of(work, row)))


def _column(path: str) -> str:
    return "is_paused" if path == "paused" else path


def _change(work: Work, row: Row, values: dict[str, object]) -> None:
    """Write what is different; nothing when all of it is as asked."""
    if all(getattr(row, name) == value for name, value in values.items()):
        return
    for name, value in values.items():
        setattr(row, name, value)
    row.update_time = work.now
    work.rows.put(row)


class DeleteWorkPool(Command[None]):
    """A pool goes, with its queues. Deployments and runs keep its name, and wait.

    Raises:
        ObjectNotFound: there is no such pool.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def apply(self, work: Work) -> Steps[None]:
        row = yield from find_pool(work, self._name, Lock.OWN)
        yield from work.rows.delete_where(WorkQueueRow, [("pool_id", "=", row.id)])
        yield from work.rows.delete_where(FairnessRuleRow, [("work_pool", "=", row.name)])
        yield from weigh(work, row.name, None, WEIGHT)
        work.rows.delete(row)


# Queues


def _find_queue(work: Work, pool: WorkPoolRow, name: str) -> Steps[WorkQueueRow]:
    row = yield from work.rows.one(WorkQueueRow, [("pool_id", "=", pool.id), ("name", "=", name)])
    if row is None:
        raise ObjectNotFound.of("work queue", f"{pool.name}/{name}")
    return row


class CreateWorkQueue(Command[tuple[WorkQueue, bool]]):
    """A queue is made; priority 0 is the first that is free.

    Answers with the queue and whether it existed.

    Raises:
        ObjectNotFound: there is no such pool.
        ObjectAlreadyExists: the pool has a queue of the name, and it is another.
    """

    def __init__(self, queue: WorkQueue, return_existing: bool) -> None:
        super().__init__()
        self._queue = queue
        self._return_existing = return_existing

    def apply(self, work: Work) -> Steps[tuple[WorkQueue, bool]]:
        asked = self._queue
        pool = yield from find_pool(work, asked.work_pool)
        row = yield from work.rows.one(WorkQueueRow, [("pool_id", "=", pool.id), ("name", "=", asked.name)])
        if row is None:
            return queue_message((yield from _make_queue(work, pool, asked)), pool.name), False
        if not self._return_existing and not self._is_same(row):
            raise ObjectAlreadyExists(
                f"Work pool '{pool.name}' has a queue '{row.name}' already.",
                facts={"kind": "work queue", "key": f"{pool.name}/{row.name}"},
            )
        return queue_message(row, pool.name), True

    def _is_same(self, row: WorkQueueRow) -> bool:
        asked = self._queue
        return asked.priority in (0, row.priority) and (
            (row.description, row.is_paused, row.concurrency_limit)
            == (asked.description, asked.paused, limit_of(asked, "work_queue"))
        )


class UpdateWorkQueue(Command[WorkQueue]):
    """Fields of a queue are changed, or its name.

    Args:
        queue: `work_pool`, `name`, `etag` and the fields in `paths` are read.
        paths: of `description`, `priority`, `concurrency_limit`, `paused`.
        new_name: empty: it stays. Deployments and waiting runs go with it.

    Raises:
        ObjectNotFound: there is no such queue.
        ObjectAlreadyExists: another queue of the pool has the new name.
        EtagMismatch: it has changed.
        FieldsInvalid: another path.
    """

    def __init__(self, queue: WorkQueue, paths: Sequence[str], new_name: str = "") -> None:
        super().__init__()
        _check_paths(paths, _QUEUE_FIELDS, optional=bool(new_name))
        self._queue = queue
        self._paths = paths
        self._new_name = new_name

    def apply(self, work: Work) -> Steps[WorkQueue]:
        asked, limit = self._queue, limit_of(self._queue, "work_queue")
        pool = yield from find_pool(work, asked.work_pool)
        row = yield from _find_queue(work, pool, asked.name)
        _check_etag(row, asked.etag)
        queues = yield from work.rows.find(WorkQueueRow, [("pool_id", "=", pool.id)])
        if self._new_name and any(q.name == self._new_name and q.id != row.id for q in queues):
            raise ObjectAlreadyExists(
                f"Work pool '{pool.name}' has a queue '{self._new_name}' already.",
                facts={"kind": "work queue", "key": f"{pool.name}/{self._new_name}"},
            )
        values: dict[str, object] = {
            "description": asked.description,
            "priority": _rank(asked.priority) or first_free({q.id: q.priority for q in queues if q != row}),
            "concurrency_limit": limit,
            "is_paused": asked.paused,
        }
        wanted = {_column(path) for path in self._paths}
        values = {name: value for name, value in values.items() if name in wanted}
        old_name = row.name
        _change(work, row, values | ({"name": self._new_name} if self._new_name else {}))
        _take_rank(work, queues, row)
        if row.name != old_name:
            yield from _rename(work, pool.name, old_name, row.name)
        return queue_message(row, pool.name)


def _rename(work: Work, pool: str, old: str, new: str) -> Steps[None]:
    """Everything that names the queue names it anew."""
    yield from _move_runs(work, pool, old, new)
    where = [("work_pool", "=", pool), ("work_queue", "=", old)]
    for deployment in (yield from work.rows.find(DeploymentRow, where)):
        set_queue(deployment, new)
        work.rows.put(deployment)


def _move_runs(work: Work, pool: str, old: str, new: str | None) -> Steps[None]:
    """Runs that wait in the queue wait in another; None: in the default one."""
    ids = [row[0] for row in (yield from steps.load_waiting(pool, old))]
    yield from work.load_runs(ids)
    yield from work.rows.load(QueuedRunRow, [(id,) for id in ids])
    for run in (work.runs[id] for id in ids):
        if run is not None and (run.work_pool, run.work_queue) == (pool, old):
            run.work_queue = new
            work.touch(run)
            place = work.rows.get(QueuedRunRow, run.id)
            if place is not None:
                work.queueing.moved(run, place)


class DeleteWorkQueue(Command[None]):
    """A queue goes; the runs that wait in it wait in the default one.

    Raises:
        ObjectNotFound: there is no such queue.
        PreconditionFailed: it is the pool's default.
    """

    is_solo = True

    def __init__(self, work_pool: str, name: str) -> None:
        super().__init__()
        self._work_pool = work_pool
        self._name = name

    def apply(self, work: Work) -> Steps[None]:
        pool = yield from find_pool(work, self._work_pool)
        row = yield from _find_queue(work, pool, self._name)
        if row.is_default:
            raise PreconditionFailed(
                f"'{row.name}' is the default queue of work pool '{pool.name}': it stays as long as the pool."
            )
        yield from _move_runs(work, pool.name, row.name, None)
        where = [("work_pool", "=", pool.name), ("work_queue", "=", row.name)]
        for deployment in (yield from work.rows.find(DeploymentRow, where)):
            set_queue(deployment, "")
            work.rows.put(deployment)
        work.rows.delete(row)
