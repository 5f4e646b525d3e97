"""Whoever in this process wants to see what is recorded, while it is recorded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["Observer", "observe", "tell"]

Observer: TypeAlias = Callable[[Sequence[RecordEntry]], None]
"""Called with what was posted, on the thread that posted it: it must be quick, never record anything
itself, and keep copies only."""

_lock = threading.Lock()
_observers: tuple[Observer, ...] = ()


def observe(observer: Observer) -> Callable[[], None]:
    """Have `observer` called for every entry of every recorder of this process, also with `API_URL=off`.

    A proposed state is shown when it is proposed, whatever the verdict will be.

    Returns:
        Call it to end that.
    """
    global _observers
    with _lock:
        _observers = (*_observers, observer)

    def stop() -> None:
        global _observers
        with _lock:
            _observers = tuple(o for o in _observers if o is not observer)

    return stop


def tell(entries: Sequence[RecordEntry]) -> None:
    """Call the observers. What one raises is logged: watching a run must not end it."""
    for observer in _observers:
        try:
            observer(entries)
        except Exception:
            logging.getLogger(__name__).exception("an observer of the recorder failed")
