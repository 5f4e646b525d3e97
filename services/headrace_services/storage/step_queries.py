"""What a process needs to know of the steps of a run that it runs again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.core.errors import ObjectNotFound
from headrace.core.limits import MESSAGE_BYTES, PAGE_SIZE_MAX
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run
from headrace.v1.run_service_pb2 import RunStep
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.instants import set_micros
from headrace_services.storage.pages import PageKey

__all__ = ["run_steps"]

_COLUMNS: Final = (
    "r.name, r.spec, r.run_count, r.start_time, r.end_time, r.create_time, r.kind, r.owner_run_id = ?, s.body"
)


async def run_steps(
    backend: Backend, dialect: Dialect, run_id: str, page_size: int, page_token: str, max_data_bytes: int
) -> tuple[list[RunStep], str]:
    """See `Reader.run_steps`."""
    owner = dialect.id(run_id)
    root: Sequence[Any] = await backend.fetch(
        f"SELECT {dialect.column('root_run_id')} FROM runs WHERE id = ?", (owner,)
    )
    if not root:
        raise ObjectNotFound.of("run", run_id)
    key, limit = (
        PageKey.of("steps", f"{run_id}\0{max_data_bytes}"),
        min(page_size or PAGE_SIZE_MAX, PAGE_SIZE_MAX),
    )
    cursor = key.cursor(page_token, int, str)
    parameters: list[Any] = [owner, dialect.id(dialect.read_id(root[0][0]))]
    after = ""
    if cursor is not None:
        after = "AND (r.create_time, r.id) > (?, ?) "
        parameters += [cursor[0], dialect.id(str(cursor[1]))]
    rows: Sequence[Any] = await backend.fetch(
        f"SELECT {dialect.column('r.id')}, {dialect.column('r.parent_run_id')}, {_COLUMNS} FROM runs AS r "
        "LEFT JOIN run_states AS s ON s.run_id = r.id AND s.seq = r.state_seq "
        f"WHERE r.root_run_id = ? {after}ORDER BY r.create_time, r.id LIMIT {limit + 1}",
        parameters,
    )
    steps: list[RunStep] = []
    size = 0
    for position, row in enumerate(rows):
        id = dialect.read_id(row[0])
        step = _step(id, dialect.read_id(row[1]), row[2:], max_data_bytes) if row[9] else None
        if step is not None:
            steps.append(step)
            size += step.ByteSize()
        is_full = position + 1 == limit or size > MESSAGE_BYTES
        if is_full and position + 1 < len(rows):
            return steps, key.token([row[7], id])
    return steps, ""


def _step(id: str, parent_id: str | None, row: Sequence[Any], max_data_bytes: int) -> RunStep | None:
    name, spec_body, run_count, start, end, _, kind, _, body = row
    spec = Run.FromString(spec_body)
    if not spec.step_key and start is not None:
        return None
    step = RunStep(
        run_id=id,
        parent_run_id=parent_id or "",
        kind=kind,
        name=name,
        code_key=spec.flow_name if kind == RUN_KIND_FLOW else spec.task_key,
        step_key=spec.step_key,
        run_count=run_count,
        committed=spec.step_committed,
    )
    if start is not None:
        set_micros(step.start_time, start)
    if end is not None:
        set_micros(step.end_time, end)
    if body is not None:
        step.state.ParseFromString(body)
        if len(step.state.data.inline) > max_data_bytes:
            step.state.ClearField("data")
            step.data_left_out = True
    return step
