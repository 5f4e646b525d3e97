"""What is known of a tree of runs while it grows: one model for the live view, `watch` and `graph`."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.core.states import StateType, default_name
from headrace.v1.run_pb2 import RunKind

if TYPE_CHECKING:
    from headrace.v1.record_service_pb2 import RecordEntry
    from headrace.v1.run_pb2 import Run
    from headrace.v1.run_service_pb2 import RunGraphNode
    from headrace.v1.state_pb2 import State

__all__ = ["Node", "Progress"]


@dataclass(slots=True)
class Node:
    """One run as far as it is known.

    Attributes:
        id: the run's id.
        is_flow: a flow run, not a task run.
        name: its own name.
        of: name of its flow or task.
        parent_id: the run that called it; empty at the top.
        state_type: None before its first state.
        state_name: the label of the state.
        started_at: microseconds; None before the first RUNNING.
        ended_at: microseconds; None while it goes on.
        message: of the state.
        inputs: parameter and the runs its value came from.
        children: ids of the runs it called, in the order of their making.
    """

    id: str
    is_flow: bool = False
    name: str = ""
    of: str = ""
    parent_id: str = ""
    state_type: StateType | None = None
    state_name: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    message: str = ""
    inputs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    children: list[str] = field(default_factory=list[str])

    @property
    def is_final(self) -> bool:
        return self.state_type is not None and self.state_type.is_final

    def seconds(self, now: int) -> float | None:
        """How long it has run, or ran, by `now` (microseconds); None before it began."""
        if self.started_at is None:
            return None
        return max(0, (self.ended_at if self.ended_at is not None else now) - self.started_at) / 1e6


class Progress:
    """Runs by id, with their states."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.changes = 0
        """Grows with every change: what is drawn may be kept while it does not."""
        self._waiting: dict[str, list[str]] = {}

    def tops(self) -> list[Node]:
        """The runs whose parent is not known here."""
        return [node for node in self.nodes.values() if node.parent_id not in self.nodes]

    def take_entry(self, entry: RecordEntry) -> Node | None:
        """Learn from what an executor records.

        Returns:
            The run whose state changed, if one did.
        """
        kind = entry.WhichOneof("kind")
        if kind == "run":
            return self.take_run(entry.run)
        if kind == "state":
            return self.take_state(entry.state.attempt.run_id, entry.state.state)
        return None

    def take_run(self, run: Run) -> Node | None:
        """Learn from a run. What is not set in it stays as it was known."""
        node = self._node(run.id, run.parent_run_id)
        node.is_flow = run.kind == RunKind.RUN_KIND_FLOW
        node.name = run.name or node.name
        node.of = (run.flow_name if node.is_flow else run.task_name) or node.of
        if run.HasField("start_time"):
            node.started_at = _micros(run.start_time)
        if run.HasField("end_time"):
            node.ended_at = _micros(run.end_time)
        if run.inputs:
            node.inputs = _edges(run.inputs)
        self.changes += 1
        return self.take_state(run.id, run.state) if run.HasField("state") else None

    def take_graph_node(self, found: RunGraphNode) -> None:
        """Learn from a node of a run graph."""
        node = self._node(found.run_id, found.parent_run_id)
        node.is_flow = found.kind == RunKind.RUN_KIND_FLOW
        node.name = found.name
        node.of = found.flow_name if node.is_flow else found.task_name
        node.state_type = StateType.from_number(found.state_type) if found.state_type else None
        node.state_name = found.state_name
        node.started_at = _micros(found.start_time) if found.HasField("start_time") else None
        node.ended_at = _micros(found.end_time) if found.HasField("end_time") else None
        node.inputs = _edges(found.inputs)
        self.changes += 1

    def take_state(self, run_id: str, state: State) -> Node | None:
        """Learn a run's new state.

        Returns:
            The run, unless it was in that state already.
        """
        node = self._node(run_id, None)
        try:
            type = StateType.from_number(state.type)
        except ValueError:
            return None
        name = state.name or default_name(type)
        changed = (node.state_type, node.state_name) != (type, name)
        node.state_type, node.state_name, node.message = type, name, state.message
        at = _micros(state.event_time)
        if type is StateType.RUNNING and node.started_at is None:
            node.started_at = at
        if type.is_final and node.ended_at is None:
            node.ended_at = at
        elif not type.is_final:
            node.ended_at = None
        self.changes += 1
        return node if changed else None

    def forget(self, run_id: str) -> None:
        """The run was deleted."""
        node = self.nodes.pop(run_id, None)
        if node is not None:
            parent = self.nodes.get(node.parent_id)
            if parent is not None and run_id in parent.children:
                parent.children.remove(run_id)
            self.changes += 1

    def _node(self, run_id: str, parent_id: str | None) -> Node:
        node = self.nodes.get(run_id)
        if node is None:
            node = self.nodes[run_id] = Node(run_id)
            # Children may be told before their parent.
            node.children = self._waiting.pop(run_id, [])
        if parent_id and not node.parent_id:
            node.parent_id = parent_id
            parent = self.nodes.get(parent_id)
            insort(self._waiting.setdefault(parent_id, []) if parent is None else parent.children, run_id)
        return node


def _micros(stamp: Any) -> int:
    return int(stamp.seconds) * 1_000_000 + int(stamp.nanos) // 1000


def _edges(inputs: Iterable[Any]) -> list[tuple[str, str]]:
    return [(edge.parameter, run_id) for edge in inputs for run_id in edge.run_ids]
