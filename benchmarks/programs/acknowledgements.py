"""One state at a time through the process's recorder, each waited for: `acknowledgements.py`."""

from __future__ import annotations

import json
import sys
import time

from headrace.core.ids import new_id
from headrace.recorder import get_recorder
from headrace.v1 import record_service_pb2, run_pb2, state_pb2

_FENCE = 1


def _state(type: state_pb2.StateType.ValueType) -> state_pb2.State:
    state = state_pb2.State(id=new_id(), type=type)
    state.event_time.GetCurrentTime()
    return state


def _started(kind: run_pb2.RunKind.ValueType, root_run_id: str | None = None) -> run_pb2.Run:
    """A run in RUNNING, of the tree `root_run_id` or at the top of one."""
    run_id = new_id()
    return run_pb2.Run(
        id=run_id,
        kind=kind,
        name="benchmark",
        flow_name="acknowledged",
        task_key="step" if root_run_id else "",
        dynamic_key=run_id if root_run_id else "",
        root_run_id=root_run_id or run_id,
        parent_run_id=root_run_id or "",
        owner_run_id=root_run_id or run_id,
        attempt=1,
        fence=_FENCE,
        state=_state(state_pb2.STATE_TYPE_RUNNING),
    )


def _entry(run_id: str) -> record_service_pb2.RecordEntry:
    return record_service_pb2.RecordEntry(
        state=record_service_pb2.StateEntry(
            attempt=run_pb2.AttemptRef(run_id=run_id, attempt=1, fence=_FENCE),
            state=_state(state_pb2.STATE_TYPE_COMPLETED),
        )
    )


def acknowledgements(count: int) -> list[float]:
    """Seconds from posting the last state of a task run until it is durable, for each of `count` runs."""
    recorder = get_recorder()
    flow = _started(run_pb2.RUN_KIND_FLOW)
    tasks = [_started(run_pb2.RUN_KIND_TASK, flow.id) for _ in range(count)]
    recorder.begin_owner(flow.id, 1, _FENCE)
    seq = recorder.post(*(record_service_pb2.RecordEntry(run=run) for run in (flow, *tasks)))
    recorder.durable(seq).result()
    seconds = [_acknowledged(task.id) for task in tasks]
    recorder.durable(recorder.post(_entry(flow.id))).result()
    recorder.end_owner(flow.id)
    return seconds


def _acknowledged(run_id: str) -> float:
    recorder, entry = get_recorder(), _entry(run_id)
    start = time.perf_counter()
    recorder.durable(recorder.post(entry)).result()
    return time.perf_counter() - start


def main() -> None:
    for line in sys.stdin:
        print(json.dumps({"seconds": acknowledgements(json.loads(line)["count"])}), flush=True)


main()
