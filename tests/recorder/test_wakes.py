"""How the runtime thread is woken: once for many entries, and never without the urgency of one of them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headrace.recorder.options import RecorderOptions
from headrace.recorder.recorder import SpoolRecorder
from headrace.recorder.runtime import Runtime
from tests.recorder.conftest import MakeRecorder
from tests.support.entries import log_entry, run_entry
from tests.support.record_server import RecordServer

TIMEOUT = 20.0


class _Heard:
    """Stands for the link: what it was told."""

    def __init__(self) -> None:
        self.urgent: list[bool] = []

    def posted(self, urgent: bool) -> None:
        self.urgent.append(urgent)


class _Called(Runtime):
    """Keeps what would run on the loop, for the test to run."""

    def __init__(self, options: RecorderOptions) -> None:
        super().__init__(SpoolRecorder(options))
        self.calls: list[Any] = []
        self.heard = _Heard()
        self._link: Any = self.heard

    def _call(self, callback: Any, *args: object) -> None:
        self.calls.append(callback)


@pytest.fixture
def runtime(options: RecorderOptions) -> _Called:
    return _Called(options)


async def test_many_entries_are_one_call(runtime: _Called) -> None:
    for urgent in (False, True, False):
        runtime._wake(urgent)
    (call,) = runtime.calls
    call()
    assert runtime.heard.urgent == [True]
    runtime._wake(False)
    runtime.calls[1]()
    assert runtime.heard.urgent == [True, False]


async def test_who_comes_while_the_call_runs_gets_another(runtime: _Called) -> None:
    """The call counts as come before it looks at the urgency: whoever is too late for it is not forgotten."""
    runtime._wake(False)
    late = threading.Thread(target=runtime._wake, args=(True,))

    class Interrupted(_Heard):
        def posted(self, urgent: bool) -> None:
            super().posted(urgent)
            if not late.ident:
                late.start()
                late.join()

    runtime._link = runtime.heard = Interrupted()
    runtime.calls[0]()
    runtime.calls[1]()
    assert runtime.heard.urgent == [False, True]


def test_threads_that_wait_are_all_answered(make_recorder: MakeRecorder) -> None:
    with RecordServer() as server:
        recorder = make_recorder(address=server.address)
        recorder.durable(recorder.post(run_entry())).result(TIMEOUT)

        def work() -> None:
            for _ in range(50):
                recorder.durable(recorder.post(log_entry("line"))).result(TIMEOUT)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert not any(thread.is_alive() for thread in threads)
        assert len(server.journal.entries()) == 201
