"""What the server has on record, for the programs."""

from __future__ import annotations

from headrace import get_client
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import RUN_KIND_TASK, RunFilter

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}


def flow_history(flow_run_id: str) -> list[str]:
    """The names of the states that a flow run went through."""
    with get_client(sync_client=True) as client:
        return [state.name for state in client.iter_states(flow_run_id)]


def task_histories(flow_run_id: str) -> list[list[str]]:
    """The same for each of its task runs."""
    with get_client(sync_client=True) as client:
        runs = client.iter_runs(RunFilter(parent_run_ids=[flow_run_id], kinds=[RUN_KIND_TASK]))
        return sorted([state.name for state in client.iter_states(run.id)] for run in runs)


def lines_of(flow_run_id: str) -> list[list[str]]:
    """Level and message of the lines of a flow run and what is below it."""
    with get_client(sync_client=True) as client:
        lines = list(client.iter_logs(LogFilter(root_run_ids=[flow_run_id])))
    lines.sort(key=lambda line: line.time.ToMicroseconds())
    return [[LEVELS[line.level], line.message] for line in lines]
