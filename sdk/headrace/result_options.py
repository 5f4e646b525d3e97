"""The options of flows and tasks that say where results are kept, checked as they are given."""

from __future__ import annotations

import logging
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.decorated import UNSET

if TYPE_CHECKING:
    from headrace.filesystems import FileSystem
    from headrace.serializers import Serializer
    from headrace.tasks import Task

__all__ = [
    "ResultSerializer",
    "ResultStorage",
    "caching",
    "checked_expiration",
    "checked_key_fn",
    "checked_serializer",
    "checked_storage",
    "checked_storage_key",
    "implied",
]

_log: Final = logging.getLogger("headrace.tasks")

if TYPE_CHECKING:
    ResultStorage = FileSystem | Path | str
    """A path, "local", "memory", a URL such as "s3://bucket/prefix", or a file system."""
    ResultSerializer = Serializer | str
    """A serializer, or the name of one."""
else:
    ResultStorage = ResultSerializer = Any


def checked_storage(place: ResultStorage | None) -> ResultStorage | None:
    """`place`, if results can be kept there.

    Raises:
        ConfigurationError: there is no such storage.
        TypeError: something that is no storage.
    """
    if place is not None:
        # Most programs never get here, and need none of it.
        import_module("headrace.filesystems").filesystem_of(place)
    return place


def checked_serializer(serializer: ResultSerializer | None) -> ResultSerializer | None:
    """`serializer`, if there is one of that name.

    Raises:
        ValueError: there is none.
        TypeError: neither a serializer nor a name.
    """
    if serializer is not None:
        import_module("headrace.serializers").serializer_of(serializer)
    return serializer


def checked_storage_key(key: str | None) -> str | None:
    """The option `result_storage_key`.

    Raises:
        TypeError: no string.
    """
    if key is not None and not isinstance(cast("object", key), str):
        raise TypeError(f"Expected string for 'result_storage_key'; got {type(key).__name__} instead.")
    return key


def checked_key_fn(fn: Any) -> Any:
    """The option `cache_key_fn`.

    Raises:
        TypeError: it cannot be called.
    """
    if fn is not None and not callable(fn):
        raise TypeError(f"Expected 'cache_key_fn' to be callable, got {type(fn).__name__} instead.")
    return fn


def checked_expiration(expiration: Any) -> timedelta | None:
    """The option `cache_expiration`.

    Raises:
        TypeError: no timedelta.
    """
    if expiration is not None and not isinstance(expiration, timedelta):
        raise TypeError(f"'cache_expiration' must be a timedelta, not {expiration!r}")
    return expiration


def implied(persist_result: bool | None, *givens: object) -> bool | None:
    """`persist_result`; when nothing is said and one of `givens` is, True."""
    if persist_result is None and any(given is not None for given in givens):
        return True
    return persist_result


def caching(
    task: Task[..., Any], persist_result: bool | None, policy: Any, no_cache_by_default: bool
) -> tuple[bool | None, Any]:
    """Whether results of a task are kept, and by which policy they are found again.

    Args:
        task: its options that have been checked.
        persist_result: as it was given.
        policy: as it was given: None is `NO_CACHE`, UNSET is nothing.
        no_cache_by_default: whether nothing means `NO_CACHE`.

    Returns:
        `persist_result`, True where another option implies it; and the policy: UNSET for `DEFAULT`, None
        where the storage key takes its place.

    Raises:
        TypeError: the policy is none.
    """
    is_never = policy is None or (policy is UNSET and no_cache_by_default)
    if policy is not UNSET and not is_never:
        is_never = _policies().checked(policy).is_never
    explicit = None if policy is UNSET or is_never else policy
    persist = implied(
        persist_result,
        explicit,
        task.cache_key_fn,
        task.result_storage,
        task.result_storage_key,
        task.result_serializer,
    )
    if task.cache_key_fn is not None and explicit is not None:
        _log.warning("Task %r has a cache_policy and a cache_key_fn: the function is used.", task.name)
    if persist is False:
        if explicit is not None or task.cache_key_fn is not None:
            _log.warning("Task %r is not cached, because its persist_result is False.", task.name)
        return False, _policies().NO_CACHE
    if task.cache_key_fn is not None:
        return persist, _policies().CacheKeyFnPolicy(cache_key_fn=task.cache_key_fn)
    if is_never:
        return persist, _policies().NO_CACHE
    if task.result_storage_key is not None:
        if explicit is not None:
            _log.warning("Task %r has a cache_policy and a result_storage_key: the key is used.", task.name)
        return persist, None
    return persist, policy


def _policies() -> Any:
    # Most programs never get here, and need none of it.
    return import_module("headrace.cache_policies")
