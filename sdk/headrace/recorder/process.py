"""The recorders of this process: one for each home and address that settings have named."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from headrace.recorder.api import Recorder
from headrace.recorder.null import NullRecorder
from headrace.recorder.options import RecorderOptions
from headrace.recorder.recorder import SpoolRecorder
from headrace.recorder.runtime import Runtime
from headrace.settings import Settings, get_current_settings

__all__ = [
    "begin_connected",
    "close_recorders",
    "current",
    "record_through",
    "recording_through",
    "release_home",
]

_deputy: ContextVar[Recorder | None] = ContextVar("headrace_recorder", default=None)


class _Registry:
    def __init__(self, *, may_connect: bool = True) -> None:
        self.may_connect = may_connect
        self.lock = threading.Lock()
        self.recorders: dict[RecorderOptions, SpoolRecorder] = {}
        self.runtimes: dict[SpoolRecorder, Runtime] = {}
        self.null = NullRecorder()
        self.has_deputies = False
        self.latest: tuple[Settings, Recorder] | None = None

    def find(self, settings: Settings) -> Recorder:
        deputy = _deputy.get() if self.has_deputies else None
        if deputy is not None:
            return deputy
        with self.lock:
            recorder: Recorder = self.null
            if settings.api_url != "off":
                options = RecorderOptions.of(settings, may_connect=self.may_connect)
                if options not in self.recorders:
                    self.recorders[options] = SpoolRecorder(options, on_start=self.start)
                recorder = self.recorders[options]
            # Where contexts have recorders of their own, the settings alone do not tell which one it is.
            self.latest = None if self.has_deputies else (settings, recorder)
            return recorder

    def start(self, recorder: SpoolRecorder) -> None:
        """The first entry comes: have it sent."""
        runtime = self.runtimes[recorder] = Runtime(recorder)
        runtime.start()
        _close_with_multiprocessing()

    def release(self, home: Path, timeout_seconds: float | None) -> None:
        """Close the recorders of one home; others stay."""
        with self.lock:
            mine = [options for options in self.recorders if options.home == home]
            leaving = [self.recorders.pop(options) for options in mine]
            self.latest = None
        for recorder in leaving:
            runtime = self.runtimes.pop(recorder, None)
            if runtime is not None:
                runtime.stop(_limit(recorder, timeout_seconds))

    def close(self, timeout_seconds: float | None) -> None:
        for recorder, runtime in list(self.runtimes.items()):
            runtime.stop(_limit(recorder, timeout_seconds))


class _Deputy(_Registry):
    """Has one recorder, whatever the settings say."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def find(self, settings: Settings) -> Recorder:
        self.latest = (settings, self.recorder)
        return self.recorder


def record_through(recorder: Recorder) -> None:
    """From now on every run of this process is recorded by `recorder`, which some other process serves."""
    global _registry
    _registry = _Deputy(recorder)


@contextmanager
def recording_through(recorder: Recorder) -> Generator[None]:
    """Inside, the runs of this context are recorded by `recorder`, which some other process serves."""
    registry = _registry
    with registry.lock:
        registry.has_deputies, registry.latest = True, None
    token = _deputy.set(recorder)
    try:
        yield
    finally:
        _deputy.reset(token)


def _limit(recorder: SpoolRecorder, timeout_seconds: float | None) -> float:
    return recorder.options.exit_timeout_seconds if timeout_seconds is None else timeout_seconds


_registry = _Registry()


def current() -> Recorder:
    """The recorder for the settings in force here.

    Raises:
        ConfigurationError: a setting is not valid.
    """
    settings = get_current_settings()
    latest = _registry.latest
    if latest is not None and latest[0] is settings:
        return latest[1]
    return _registry.find(settings)


def release_home(home: Path, timeout_seconds: float | None = None) -> None:
    """Flush and seal the recorders that write to `home`: nothing here holds a file of it any more.

    Args:
        home: the folder, as settings name it.
        timeout_seconds: how long to wait for acknowledgements; None: as the settings say.
    """
    _registry.release(home, timeout_seconds)


def close_recorders(timeout_seconds: float | None = None) -> None:
    """Flush and seal every recorder of this process; later calls of `current` make new ones.

    Args:
        timeout_seconds: how long to wait for acknowledgements, per recorder; None: as the settings say.
    """
    global _registry
    old, _registry = _registry, _Registry(may_connect=_registry.may_connect)
    old.close(timeout_seconds)


def begin_connected() -> None:
    """Send what is recorded from here, in a child of a process that has imported gRPC and never used it.

    Any other forked child leaves that to others, because gRPC does not work on both sides of a fork.
    """
    global _registry
    _registry = _Registry()


def _at_exit() -> None:
    # The registry stays: what is posted from now on is refused, not lost in a recorder that nobody closes.
    _registry.close(None)


def _after_fork() -> None:
    """The parent goes on recording; the child begins anew, with files and a sequence of its own."""
    global _registry
    may_connect = _registry.may_connect and "grpc" not in sys.modules
    old, _registry = _registry, _Registry(may_connect=may_connect)
    for recorder in old.recorders.values():
        recorder.abandon()


def _close_with_multiprocessing() -> None:
    """Forked children of multiprocessing leave without the interpreter's exit handlers."""
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        finalizers: Any = sys.modules["multiprocessing.util"]
        finalizers.Finalize(None, _at_exit, exitpriority=0)


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
