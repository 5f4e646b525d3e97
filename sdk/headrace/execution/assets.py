"""What a task run makes of assets, and from which: told by events when it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headrace.assets import Asset
    from headrace.context import FlowRunContext
    from headrace.runs import TaskRun
    from headrace.states import State
    from headrace.tasks import Task

__all__ = ["AssetContext", "asset_context"]

_log = logging.getLogger("headrace.task_runs")
_ID: Final = "headrace.resource.id"
_NAME: Final = "headrace.resource.name"
_ROLE: Final = "headrace.resource.role"
_RELATED_MAX: Final = 80
"""An event has at most 100 related resources, of which some are the run's."""
_PARENTS: Final = "__parents__"


class AssetContext:
    """The assets of one task run.

    Args:
        task: says what it makes, and from what.
        flow: the flow run around, which knows what came from which assets; None: there is none.
        upstream: the assets of the runs whose results the run was given; None: as the flow run says.
    """

    def __init__(
        self, task: Task[..., Any], flow: FlowRunContext | None, upstream: Sequence[Asset] | None = None
    ) -> None:
        self._task = task
        self._flow = flow
        self._metadata: dict[str, dict[str, Any]] = {}
        self.upstream: Sequence[Asset] | None = upstream

    def begin(self, run: TaskRun) -> None:
        """An attempt begins: what it depends on is known."""
        self._metadata.clear()
        if self.upstream is not None:
            return
        flow = self._flow
        if flow is None or flow.lineage is None:
            self.upstream = ()
            return
        runs = [id for name, ids in run.inputs.items() if name != _PARENTS for id in ids]
        self.upstream = _each_once(asset for id in runs for asset in flow.lineage.get(id, ()))
        handed_on = self._task.assets or self._sources()
        if handed_on:
            flow.lineage[run.id] = tuple(handed_on)

    def add_metadata(self, key: str, metadata: Mapping[str, Any]) -> bool:
        """Keep metadata for the event of the asset; gives whether the task makes that one."""
        if all(asset.key != key for asset in self._task.assets):
            return False
        self._metadata.setdefault(key, {}).update(metadata)
        return True

    def ended(self, state: State[Any]) -> None:
        """The run has ended in `state`. What goes wrong here is logged: the run is what it is."""
        if not self._task.assets or state.name == "Cached" or not (state.is_completed() or state.is_failed()):
            return
        try:
            self._tell("succeeded" if state.is_completed() else "failed")
        except Exception:
            _log.exception("Not everything could be told of the assets of this run")

    def _tell(self, how: str) -> None:
        # Loaded by those who have assets.
        emit_event = import_module("headrace.events").emit_event
        sources = self._sources()
        for asset in sources:
            emit_event("headrace.asset.referenced", _labels(asset))
        if len(sources) > _RELATED_MAX:
            _log.warning(
                "The event of an asset names %d of the %d assets that it was made from.",
                _RELATED_MAX,
                len(sources),
            )
        related = [{_ID: asset.key, _ROLE: "asset"} for asset in sources[:_RELATED_MAX]]
        if self._task.materialized_by is not None:
            related.append({_ID: self._task.materialized_by, _ROLE: "asset-materialized-by"})
        for asset in _each_once(self._task.assets):
            emit_event(
                f"headrace.asset.materialization.{how}",
                _labels(asset),
                related=related,
                payload=self._metadata.get(asset.key),
            )

    def _sources(self) -> list[Asset]:
        return _each_once([*(self.upstream or ()), *self._task.asset_deps])


def asset_context(
    task: Task[..., Any], flow: FlowRunContext | None, upstream: Sequence[Asset] | None = None
) -> AssetContext | None:
    """What becomes of the assets of a new run of a task; None where there are none."""
    if task.assets or task.asset_deps:
        if flow is not None and flow.lineage is None:
            flow.lineage = {}
    elif flow is None or flow.lineage is None:
        return None
    return AssetContext(task, flow, upstream)


def _each_once(assets: Iterable[Asset]) -> list[Asset]:
    """Assets by their keys; of two with the same key the one that has properties."""
    found: dict[str, Asset] = {}
    for asset in assets:
        if asset.key not in found or found[asset.key].properties is None:
            found[asset.key] = asset
    return list(found.values())


def _labels(asset: Asset) -> dict[str, str]:
    labels = {_ID: asset.key}
    told = {} if asset.properties is None else asset.properties.model_dump(exclude_none=True)
    owners: list[str] | None = told.pop("owners", None)
    if "name" in told:
        labels[_NAME] = told.pop("name")
    labels.update({f"headrace.asset.{name}": text for name, text in told.items()})
    if owners is not None:
        labels["headrace.asset.owners"] = json.dumps(owners)
    return labels
