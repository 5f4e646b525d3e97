"""Results that stay on a cluster, where they were made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from headrace.results import StoredResult

__all__ = ["RemoteResult"]

_UNKNOWN: Final = object()


class RemoteResult(StoredResult):
    """The data of a state that is fetched when somebody asks for it.

    Args:
        holder: the task runner on whose cluster it is.
        reference: what the cluster knows it by.
        size_bytes: how large it is, pickled.
        fetch: gets it; called once.
    """

    __slots__ = ("__weakref__", "_fetch", "_lock", "_value", "holder", "reference", "size_bytes")

    def __init__(self, holder: object, reference: Any, size_bytes: int, fetch: Callable[[], Any]) -> None:
        self.holder: object = holder
        self.reference = reference
        self.size_bytes = size_bytes
        self._fetch: Callable[[], Any] | None = fetch
        self._lock = threading.Lock()
        self._value: Any = _UNKNOWN

    @property
    def is_elsewhere(self) -> bool:
        return self._value is _UNKNOWN

    def load(self, retry: bool = True) -> Any:
        """The value, the same object each time.

        Raises:
            MissingResult: the cluster does not have it any more.
            SerializationError: it cannot be read here.
        """
        with self._lock:
            if self._fetch is not None:
                self._value = self._fetch()
                # From now on this process holds it, and the cluster need not.
                self._fetch = self.holder = self.reference = None
            return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.load(),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size_bytes} bytes)" if self.is_elsewhere else repr(self._value)


def _same(value: Any) -> Any:
    return value
