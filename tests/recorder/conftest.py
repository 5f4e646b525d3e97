"""A recorder of one's own, closed with the test."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.recorder.options import RecorderOptions
from headrace.recorder.recorder import SpoolRecorder
from headrace.recorder.runtime import Runtime

MakeRecorder = Callable[..., SpoolRecorder]


@pytest.fixture
def options(tmp_path: pathlib.Path) -> RecorderOptions:
    """Those of address `auto` in a fresh home."""
    return RecorderOptions(
        home=tmp_path / "home",
        address=None,
        auth_string=None,
        offline_allowed=True,
        connect_timeout_seconds=5.0,
        budget_bytes=64 * 1024 * 1024,
        raise_when_full=False,
        exit_timeout_seconds=5.0,
    )


@pytest.fixture
def make_recorder(options: RecorderOptions) -> Iterator[MakeRecorder]:
    """Makes recorders with changed options; an address makes it an explicit one."""
    runtimes: list[Runtime] = []

    def start(recorder: SpoolRecorder) -> None:
        runtime = Runtime(recorder)
        runtimes.append(runtime)
        runtime.start()

    def make(**changes: Any) -> SpoolRecorder:
        if changes.get("address") is not None:
            changes.setdefault("offline_allowed", False)
        return SpoolRecorder(dataclasses.replace(options, **changes), on_start=start)

    yield make
    for runtime in runtimes:
        runtime.stop(0.2)
