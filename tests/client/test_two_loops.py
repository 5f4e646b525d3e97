"""Several event loops of one process talk to a server without noise on the terminal."""

from __future__ import annotations

import asyncio
import logging

import pytest

import headrace.client  # noqa: F401 - what it does when it is imported is tested


def told(error: Exception, text: str) -> None:
    """What an event loop does with an error that nobody waits for."""
    loop = asyncio.new_event_loop()
    try:
        loop.call_exception_handler({"message": text, "exception": error})
    finally:
        loop.close()


POLLER = "Exception in callback PollerCompletionQueue._handle_events(...)"


@pytest.mark.parametrize("error", [BlockingIOError(11, "not now"), RuntimeError("Event loop is closed")])
def test_a_poller_that_comes_late_says_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncio"):
        told(error, POLLER)
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BlockingIOError(11, "not now"), "Exception in callback theirs()"),
        (ValueError("theirs"), POLLER),
    ],
)
def test_everything_else_is_told(error: Exception, text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncio"):
        told(error, text)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
