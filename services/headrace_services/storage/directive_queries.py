"""What others want of runs that are being executed, read from the runs themselves."""

from __future__ import annotations

from typing import Final

from headrace.core.states import StateType
from headrace.v1.record_service_pb2 import RunDirective
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.instants import set_micros
from headrace_services.storage.rows import WORKSPACE
from headrace_services.storage.work import TimerKind

__all__ = ["directives"]

# Each is one range of an index, and there are few rows in it: processes that have been told act at once.
_WANTED: Final = (
    (RUN_KIND_FLOW, StateType.CANCELLING.number),
    (RUN_KIND_TASK, StateType.CANCELLING.number),
    (RUN_KIND_FLOW, StateType.PAUSED.number),
)
_RUNS: Final = (
    "SELECT id, recorder_id, state_seq FROM runs WHERE workspace_id = ? AND kind = ? AND state_type = ? "
    "AND recorder_id IS NOT NULL"
)


async def directives(backend: Backend, dialect: Dialect) -> list[tuple[str, RunDirective]]:
    """What recorders are to do: the recorder's id and the directive, for every run that waits for it."""
    columns = ", ".join(dialect.column(name) for name in ("r.id", "r.recorder_id"))
    rows = await backend.fetch(
        f"SELECT {columns}, s.body, t.due_time FROM ({' UNION ALL '.join([_RUNS] * len(_WANTED))}) AS r "
        "JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
        "LEFT JOIN timers AS t ON t.kind = ? AND t.run_id = r.id",
        [*(value for pair in _WANTED for value in (WORKSPACE, *pair)), int(TimerKind.CANCEL)],
    )
    return [(dialect.read_id(row[1]), _directive(dialect.read_id(row[0]), *row[2:])) for row in rows]


def _directive(run_id: str, body: bytes, due_time: int | None) -> RunDirective:
    directive = RunDirective(run_id=run_id)
    directive.state.ParseFromString(body)
    if directive.state.type == StateType.PAUSED.number:
        directive.pause.SetInParent()
        return directive
    directive.cancel.SetInParent()
    if due_time is not None:
        set_micros(directive.cancel.deadline, due_time)
    return directive
