"""Fixtures of the SDK's tests."""

from __future__ import annotations

import pytest

from headrace.execution.blocking import BlockingOps
from headrace.execution.loop import LoopOps
from headrace.recorder import process
from tests.support.recorders import MemoryRecorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> MemoryRecorder:
    """The process's recorder, for this test: keeps everything in memory."""
    memory = MemoryRecorder()
    monkeypatch.setattr(process, "current", lambda: memory)
    return memory


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the engine has waited each time, in seconds; it does not really wait."""
    delays: list[float] = []

    async def sleep(_: object, seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(BlockingOps, "sleep", sleep)
    monkeypatch.setattr(LoopOps, "sleep", sleep)
    return delays
