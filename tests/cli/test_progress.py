"""The model of a tree of runs, and the lines it is shown as."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli.progress import Progress
from headrace.cli.trees import dot, edge_lines, tree_lines
from headrace.core.ids import new_id
from headrace.core.states import StateType
from headrace.v1.record_service_pb2 import RecordEntry, StateEntry
from headrace.v1.run_pb2 import AttemptRef, Run, RunInputEdge, RunKind
from headrace.v1.state_pb2 import State

SECOND = 1_000_000


class Recording:
    """Entries as an executor would make them, told to a `Progress`."""

    def __init__(self) -> None:
        self.progress = Progress()

    def run(self, kind: RunKind.ValueType, name: str, parent: str = "", of: str = "") -> str:
        run = Run(id=new_id(), kind=kind, name=name, parent_run_id=parent)
        if kind == RunKind.RUN_KIND_FLOW:
            run.flow_name = of
        else:
            run.task_name = of
        self.progress.take_entry(RecordEntry(run=run))
        return run.id

    def flow(self, name: str, parent: str = "") -> str:
        return self.run(RunKind.RUN_KIND_FLOW, name, parent, "pipeline")

    def task(self, name: str, parent: str, of: str = "") -> str:
        return self.run(RunKind.RUN_KIND_TASK, name, parent, of or name)

    def state(self, run_id: str, type: StateType, at_seconds: float, message: str = "") -> bool:
        state = State(type=type.number, message=message)  # pyright: ignore[reportArgumentType]
        state.event_time.CopyFrom(Timestamp(nanos=int(at_seconds % 1 * 1e9), seconds=int(at_seconds)))
        entry = StateEntry(attempt=AttemptRef(run_id=run_id), state=state)
        return self.progress.take_entry(RecordEntry(state=entry)) is not None

    def lines(self, now_seconds: float = 10, wide: int | None = 5) -> list[str]:
        tops = self.progress.tops()
        return tree_lines(self.progress, tops, int(now_seconds * SECOND), coloured=False, wide=wide)


def test_a_tree_with_states_and_times() -> None:
    told = Recording()
    top = told.flow("brave-fox")
    told.state(top, StateType.RUNNING, 1)
    read = told.task("read-0", top)
    told.state(read, StateType.RUNNING, 2)
    told.state(read, StateType.COMPLETED, 2.5)
    sub = told.flow("calm-owl", top)
    load = told.task("load-0", sub)
    told.state(load, StateType.RUNNING, 4)
    told.state(load, StateType.FAILED, 5, "Boom\nmore")
    assert told.lines() == [
        "▶ pipeline · brave-fox Running 9.0s",
        "├─ ✔ read-0 Completed 500ms",
        "└─ · pipeline · calm-owl -",
        "   └─ ✘ load-0 Failed 1.0s - Boom",
    ]


def test_many_runs_of_one_task_are_counted_and_the_bad_ones_named() -> None:
    told = Recording()
    top = told.flow("f")
    runs = [told.task(f"square-{i}", top, "square") for i in range(20)]
    for run in runs[:10]:
        told.state(run, StateType.RUNNING, 1)
    for run in runs[:4]:
        told.state(run, StateType.COMPLETED, 2)
    told.state(runs[5], StateType.FAILED, 3, "no")
    lines = told.lines(now_seconds=4)
    assert lines[1] == "├─ ▶ square x20: 10 Pending, 5 Running, 4 Completed, 1 Failed 3.0s"
    assert lines[2] == "└─ ✘ square-5 Failed 2.0s - no"
    assert len(told.lines(wide=None)) == 21


def test_children_told_before_their_parent_find_it() -> None:
    told = Recording()
    parent = new_id()
    child = told.task("child", parent)
    assert [node.id for node in told.progress.tops()] == [child]
    told.progress.take_run(Run(id=parent, kind=RunKind.RUN_KIND_FLOW, name="late"))
    assert [node.id for node in told.progress.tops()] == [parent]
    assert told.progress.nodes[parent].children == [child]


def test_a_change_is_told_once() -> None:
    told = Recording()
    top = told.flow("f")
    assert told.state(top, StateType.RUNNING, 1)
    assert not told.state(top, StateType.RUNNING, 2)
    assert told.progress.nodes[top].started_at == SECOND


def test_a_retry_opens_what_was_closed() -> None:
    told = Recording()
    top = told.flow("f")
    told.state(top, StateType.RUNNING, 1)
    told.state(top, StateType.FAILED, 2)
    told.state(top, StateType.SCHEDULED, 3)
    assert told.progress.nodes[top].ended_at is None
    assert not told.progress.nodes[top].is_final


def test_a_deleted_run_leaves_the_tree() -> None:
    told = Recording()
    top = told.flow("f")
    child = told.task("t", top)
    told.progress.forget(child)
    assert told.lines() == ["· pipeline · f -"]


def test_names_cannot_steer_the_terminal() -> None:
    told = Recording()
    told.flow("evil\x1b[2J\n")
    assert all(line.isprintable() for line in told.lines())


def test_edges_and_dot() -> None:
    told = Recording()
    top = told.flow('say "hi"')
    first = told.task("first", top)
    edge = RunInputEdge(parameter="x", run_ids=[first])
    second = Run(id=new_id(), kind=RunKind.RUN_KIND_TASK, name="second", parent_run_id=top, inputs=[edge])
    told.progress.take_run(second)
    assert edge_lines(told.progress) == ["first -> second (x)"]
    graph = dot(told.progress)
    assert f'"{first}" -> "{second.id}" [label="x"];' in graph
    assert r"say \"hi\"" in graph
