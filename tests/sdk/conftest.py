"""Fixtures of the SDK's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.recorder import process
from tests.support.recorders import MemoryRecorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryRecorder]:
    """The process's recorder, for this test: keeps everything in memory."""
    memory = MemoryRecorder()
    monkeypatch.setattr(process, "current", lambda: memory)
    yield memory
