"""Which runs stand below one run, and what they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.run_pb2 import Run

__all__ = ["MAX_RUNS", "Family"]

MAX_RUNS = 10_000


class Family:
    """A run and every run below it.

    What belongs to a run at the top of its tree is known by its root id; below the top, by the graph, which
    is read again when a run appears that it does not hold.
    """

    def __init__(self, client: HeadraceClient, run: Run) -> None:
        self._client = client
        self.run_id = run.id
        self.root_run_id = run.root_run_id or run.id
        self._names = {run.id: run.name}
        self._strangers: set[str] = set()

    @property
    def is_whole_tree(self) -> bool:
        """Whether every run of the root belongs to it."""
        return self.run_id == self.root_run_id

    async def has(self, run_id: str) -> bool:
        """Whether the run, which is of the same root, is this one or below it."""
        return self.is_whole_tree or await self._look_up(run_id)

    async def name(self, run_id: str) -> str:
        """The run's name; its id if it has none."""
        await self._look_up(run_id)
        return self._names.get(run_id) or run_id

    async def _look_up(self, run_id: str) -> bool:
        if run_id not in self._names and run_id not in self._strangers:
            graph = await self._client.get_run_graph(self.run_id, max_nodes=MAX_RUNS)
            self._names.update((node.run_id, node.name) for node in graph.nodes)
            if run_id not in self._names:
                self._strangers.add(run_id)
        return run_id in self._names
