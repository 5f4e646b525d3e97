"""What a transaction asks of its database, said without doing it.

The logic of a transaction is a generator: it yields calls and is sent their rows. SQLite steps it in a
thread, PostgreSQL on the event loop; there is one copy of it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from headrace_services.storage.work import Writes

__all__ = ["Call", "Conflict", "Row", "Steps", "call"]

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]


class Call(NamedTuple):
    """One operation of a store, by the name of its method, and its arguments."""

    operation: str
    arguments: tuple[Any, ...]


Steps: TypeAlias = Generator[Call, Any, T]
"""Logic that ends in a T, and on its way asks for rows."""


class Conflict(Exception):
    """Another transaction came first: load again and decide anew."""


def call(operation: str, *arguments: Any) -> Steps[Any]:
    """Ask the store for one operation."""
    return (yield Call(operation, arguments))


def breathe() -> Steps[None]:
    """Let who else wants the event loop, or the interpreter, have it: for logic that computes for long."""
    return call("breathe")


def load_runs(ids: Collection[str]) -> Steps[Sequence[Row]]:
    """The runs, and those that own them, locked in the order of their ids."""
    return call("load_runs", ids)


def load_recorders(ids: Collection[str]) -> Steps[Sequence[Row]]:
    """The recorders."""
    return call("load_recorders", ids)


def load_facts(pairs: Collection[tuple[str, str]]) -> Steps[Sequence[Row]]:
    """Per (run id, state id): both, the run's current state, its state with that id, its recorder's lease."""
    return call("load_facts", pairs)


def load_known(flow_ids: Collection[str], run_ids: Collection[str]) -> Steps[Sequence[Row]]:
    """Which of the flows exist, locked against deletion, and which of the runs were deleted: (0 or 1, id)."""
    return call("load_known", flow_ids, run_ids)


def load_keys(pairs: Collection[tuple[str, str]]) -> Steps[Sequence[Row]]:
    """Per (flow id, idempotency key) that is taken: both, and the run's id."""
    return call("load_keys", pairs)


def load_requests(ids: Collection[tuple[str, str]]) -> Steps[Sequence[Row]]:
    """Per (method, request id) that was answered: both, digest and response."""
    return call("load_requests", ids)


def load_inputs(run_id: str, keys: Collection[str]) -> Steps[Sequence[Row]]:
    """Those of the run's inputs that have the keys: key, value, sender, create time."""
    return call("load_inputs", run_id, keys)


def load_history(run_id: str) -> Steps[Sequence[Row]]:
    """The run's states, oldest first: number of the type, name, event time."""
    return call("load_history", run_id)


def load_full_spec(run_id: str) -> Steps[bytes | None]:
    """What only view FULL shows of the run."""
    return call("load_full_spec", run_id)


def load_deployment_runs(deployment_ids: Collection[str], limit: int) -> Steps[Sequence[Row]]:
    """The flow runs of the deployments that have not ended, locked, oldest first."""
    return call("load_deployment_runs", deployment_ids, limit)


def load_unfinished(recorder_id: str) -> Steps[Sequence[Row]]:
    """Ids of the runs that the recorder executes and that have not ended, newest first."""
    return call("load_unfinished", recorder_id)


def load_tree(root_ids: Collection[str]) -> Steps[Sequence[Row]]:
    """Every run under the roots, locked: id, parent id, kind, state type, start time, create time, tags."""
    return call("load_tree", root_ids)


def load_waiting(work_pool: str, work_queue: str) -> Steps[Sequence[Row]]:
    """Ids of the flow runs that are SCHEDULED in the queue."""
    return call("load_waiting", work_pool, work_queue)


def load_unstarted(deployment_id: str) -> Steps[Sequence[Row]]:
    """Ids of the runs of the deployment that are SCHEDULED and have never run."""
    return call("load_unstarted", deployment_id)


def lock_flow(flow_id: str) -> Steps[bool]:
    """Whether the flow exists; if so, no run can be added to it until the end of the transaction."""
    return call("lock_flow", flow_id)


def load_flow_roots(flow_id: str) -> Steps[Sequence[Row]]:
    """Ids and root ids of the runs that belong to the flow."""
    return call("load_flow_roots", flow_id)


def flush(writes: Writes) -> Steps[None]:
    """Write everything.

    Raises:
        Conflict: a row is not what it was when it was loaded.
    """
    return call("flush", writes)
