"""The runs below one run, and what each of them waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.core.errors import ObjectNotFound
from headrace.v1.run_pb2 import Run
from headrace.v1.run_service_pb2 import RunGraphNode
from headrace_services.storage.backends import Backend
from headrace_services.storage.dialects import Dialect
from headrace_services.storage.instants import set_duration, set_micros
from headrace_services.storage.rows import RunRow
from headrace_services.storage.work import run_from_row

__all__ = ["graph_nodes"]

_CHUNK: Final = 1000


async def graph_nodes(
    backend: Backend, dialect: Dialect, run_id: str, limit: int
) -> tuple[list[RunGraphNode], bool]:
    """See `Reader.run_graph`."""
    ids, is_cut = await _ids_below(backend, dialect, run_id, limit)
    rows: dict[str, RunRow] = {}
    for start in range(0, len(ids), _CHUNK):
        part = ids[start : start + _CHUNK]
        sql = f"SELECT {dialect.run_columns('r')} FROM runs AS r WHERE r.id IN ({', '.join('?' * len(part))})"
        for row in await backend.fetch(sql, [dialect.id(id) for id in part]):
            run = run_from_row(dialect.run_row(tuple(row)))
            rows[run.id] = run
    return [_node(rows[id]) for id in ids if id in rows], is_cut


async def _ids_below(backend: Backend, dialect: Dialect, run_id: str, limit: int) -> tuple[list[str], bool]:
    """The run, then the first `limit - 1` of those below it by create time, and whether there are more."""
    root = await backend.fetch(
        f"SELECT {dialect.column('root_run_id')} FROM runs WHERE id = ?", (dialect.id(run_id),)
    )
    if not root:
        raise ObjectNotFound.of("run", run_id)
    root_id = dialect.read_id(root[0][0])
    # The whole tree must be known to tell what is below a run in its middle.
    bound = f"LIMIT {limit + 1}" if root_id == run_id else ""
    rows: Sequence[Any] = await backend.fetch(
        f"SELECT {dialect.column('id')}, {dialect.column('parent_run_id')} FROM runs "
        f"WHERE root_run_id = ? ORDER BY create_time, runs.id {bound}",
        (dialect.id(root_id),),
    )
    pairs = [(dialect.read_id(id), dialect.read_id(parent)) for id, parent in rows]
    below = {id for id, _ in pairs} if root_id == run_id else _descendants(pairs, run_id)
    ids = [run_id, *(id for id, _ in pairs if id in below and id != run_id)]
    return ids[:limit], len(ids) > limit


def _descendants(pairs: Sequence[tuple[str, str | None]], run_id: str) -> set[str]:
    children: dict[str | None, list[str]] = {}
    for id, parent in pairs:
        children.setdefault(parent, []).append(id)
    found = [run_id]
    for id in found:  # grows while it is walked
        found.extend(children.pop(id, ()))
    return set(found)


def _node(row: RunRow) -> RunGraphNode:
    spec = Run.FromString(row.spec)
    books = row.books
    node = RunGraphNode(
        run_id=row.id,
        kind=row.kind,  # type: ignore[arg-type]  # the number is the wire's own
        name=row.name,
        parent_run_id=row.parent_id or "",
        state_type=0 if books.type is None else books.type.number,  # type: ignore[arg-type]  # as above
        state_name=row.state_name,
        inputs=spec.inputs,
        flow_name=spec.flow_name,
        task_name=row.task_name or "",
    )
    set_micros(node.create_time, row.create_time)
    if books.start_time is not None:
        set_micros(node.start_time, books.start_time)
    if books.end_time is not None:
        set_micros(node.end_time, books.end_time)
    set_duration(node.total_run_time, books.total_run_time)
    return node
