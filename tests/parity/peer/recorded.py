"""What a Prefect server has on record, for the programs. Its task runs and log lines come late."""

from __future__ import annotations

import time
import uuid
from typing import Any

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}
ASSET_ROLES = ("asset", "asset-materialized-by", "tag")


def flow_history(flow_run_id: str) -> list[str]:
    with get_client(sync_client=True) as client:
        return [state.name for state in client.read_flow_run_states(uuid.UUID(flow_run_id))]


def task_histories(flow_run_id: str) -> list[list[str]]:
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[uuid.UUID(flow_run_id)]))
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=chosen)
            if runs and all(run.state and run.state.is_final() for run in runs):
                break
            time.sleep(0.5)
        time.sleep(1)
        histories = []
        for run in runs:
            answer = client._client.get("/task_run_states/", params={"task_run_id": str(run.id)})
            states = sorted(answer.json(), key=lambda state: state["timestamp"])
            histories.append([state["name"] for state in states])
        return sorted(histories)


def lines_of(flow_run_id: str) -> list[list[str]]:
    time.sleep(5)
    body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
    with get_client(sync_client=True) as client:
        lines = client._client.post("/logs/filter", json=body).json()
    return [[LEVELS[line["level"]], line["message"]] for line in lines]


def asset_events(flow_run_id: str) -> list[list[Any]]:
    time.sleep(4)
    body = {
        "filter": {
            "event": {"prefix": ["prefect.asset."]},
            "related": {"id": [f"prefect.flow-run.{flow_run_id}"]},
            "order": "ASC",
        },
        "limit": 50,
    }
    with get_client(sync_client=True) as client:
        events = client._client.post("/events/filter", json=body).json()["events"]
    told = [
        [
            event["event"],
            event["resource"],
            sorted(_related(one) for one in event["related"]),
            event["payload"],
        ]
        for event in events
    ]
    return sorted(told, key=lambda one: (one[0], one[1]["prefect.resource.id"]))


def _related(labels: dict[str, str]) -> list[str]:
    role = labels["prefect.resource.role"]
    return [role, labels["prefect.resource.id"] if role in ASSET_ROLES else ""]
