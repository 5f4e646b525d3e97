"""The options of `task`, as type checkers know them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict

from headrace.core.retry import Delays
from headrace.decorated import Hook, RunName
from headrace.result_options import ResultSerializer, ResultStorage

if TYPE_CHECKING:
    from datetime import timedelta

    from headrace.assets import Asset
    from headrace.cache_policies import CacheKeyFn, CachePolicy
    from headrace.runs import TaskRun
    from headrace.states import State
    from headrace.tasks import Task

__all__ = ["RetryCondition", "TaskOptions"]

RetryCondition = Callable[["Task[..., Any]", "TaskRun", "State[Any]"], Any]
"""Says whether a failed attempt is followed by another: called with the task, its run and the state in which
the run would end. Plain or async."""


class TaskOptions(TypedDict, total=False):
    """What `task` takes besides the function; described there."""

    name: str | None
    description: str | None
    tags: Iterable[str] | None
    version: str | None
    task_run_name: RunName | None
    retries: int | None
    retry_delay_seconds: Delays | None
    retry_jitter_factor: float | None
    retry_deadline_seconds: float | None
    retry_condition_fn: RetryCondition | None
    cache_policy: CachePolicy | None
    cache_key_fn: CacheKeyFn | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    persist_result: bool | None
    result_storage: ResultStorage | None
    result_storage_key: str | None
    result_serializer: ResultSerializer | None
    cache_result_in_memory: bool
    timeout_seconds: float | None
    log_prints: bool | None
    on_completion: list[Hook] | None
    on_failure: list[Hook] | None
    on_running: list[Hook] | None
    on_commit: list[Hook] | None
    on_rollback: list[Hook] | None
    viz_return_value: Any
    asset_deps: Iterable[str | Asset] | None
    idempotent: bool
