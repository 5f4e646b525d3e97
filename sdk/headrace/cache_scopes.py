"""The keys of results that are shared through the index in the server."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.cache_policies import CacheScope
from headrace.core.fingerprint import fingerprint

if TYPE_CHECKING:
    from headrace.context import TaskRunContext

__all__ = ["scoped_key"]

_LONGEST_BYTES: Final = 1000


def scoped_key(key: str, scope: CacheScope | str, context: TaskRunContext) -> str:
    """The key with its scope before it, e.g. `flow/nightly/8d7f…`.

    Args:
        key: as the policy has computed it. One that is long, or has characters that cannot be printed, is
            replaced by its fingerprint.
        scope: who shares the result.
        context: the task run.

    Raises:
        ValueError: the scope is `project`, and the program is in none.
    """
    if len(key.encode("utf-8", "surrogatepass")) > _LONGEST_BYTES or not key.isprintable():
        key = fingerprint(key, name="key")
    match CacheScope(scope):
        case CacheScope.RUN:
            return f"run/{context.task_run.flow_run_id or context.task_run.id}/{key}"
        case CacheScope.FLOW:
            # A task run on its own is in no flow, and shares with nobody.
            flow = context.flow_context
            return f"run/{context.task_run.id}/{key}" if flow is None else f"flow/{flow.flow.name}/{key}"
        case CacheScope.PROJECT:
            return f"project/{_project_name(Path.cwd())}/{key}"
        case CacheScope.GLOBAL:
            return f"global/{key}"


@lru_cache(maxsize=16)
def _project_name(folder: Path) -> str:
    """The name of the project that a folder belongs to."""
    from headrace.deployments.project import FILE_NAMES, find_project, load_project

    for place in (folder, *folder.parents):
        file = find_project(place)
        if file is not None:
            return (load_project(file).name or place.name).replace("/", "-")
    raise ValueError(
        f"cache_scope='project' needs a project: there is no {FILE_NAMES[0]} in {folder} or above it. "
        "Make one with `headrace init`, or choose another scope."
    )
