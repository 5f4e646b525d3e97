"""What the server has on record, for the programs."""

from __future__ import annotations

import json
from typing import Any

from headrace import get_client
from headrace.recorder import get_recorder
from headrace.v1.event_pb2 import EventFilter
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import RUN_KIND_TASK, RunFilter

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}
ASSET_ROLES = ("asset", "asset-materialized-by", "tag")


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


def asset_events(flow_run_id: str) -> list[list[Any]]:
    """What was told of assets in a flow run: event, labels, what is related and in which role, payload."""
    get_recorder().flush(30)
    with get_client(sync_client=True) as client:
        events = list(client.iter_events(EventFilter(events=["headrace.asset.*"])))
    told: list[list[Any]] = [
        [
            event.event,
            dict(event.resource.labels),
            sorted(_related(dict(one.labels)) for one in event.related),
            json.loads(event.payload),
        ]
        for event in events
        if f"headrace.flow-run.{flow_run_id}" in [one.labels["headrace.resource.id"] for one in event.related]
    ]
    return sorted(told, key=lambda one: (one[0], one[1]["headrace.resource.id"]))


def _related(labels: dict[str, str]) -> list[str]:
    role = labels["headrace.resource.role"]
    return [role, labels["headrace.resource.id"] if role in ASSET_ROLES else ""]
