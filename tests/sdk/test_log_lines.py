"""What a line looks like on the console and on the record, whatever is saved on the way there."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from headrace import flow, get_run_logger
from headrace.logging.formatters import ConsoleFormatter
from headrace.logging.handlers import ConsoleHandler
from tests.support.recorders import MemoryRecorder


def _record(created: float, message: str = "told") -> logging.LogRecord:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, (), None)
    record.created, record.msecs = created, created * 1000 % 1000
    return record


def test_each_line_has_its_own_time() -> None:
    formatter = ConsoleFormatter()
    moments = [1_800_000_000.25, 1_800_000_000.5, 1_800_000_001.125, 1_800_000_000.75]
    shown = [formatter.format(_record(moment)).split(" | ")[0] for moment in moments]
    clock = [time.strftime("%H:%M:%S", time.localtime(moment)) for moment in moments]
    assert shown == [f"{clock[0]}.250", f"{clock[1]}.500", f"{clock[2]}.125", f"{clock[3]}.750"]


@pytest.mark.parametrize(("message", "shown"), [("plain", "plain"), ("naïve ☃", "na\xefve \\u2603")])
def test_the_console_says_what_its_encoding_can(
    message: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="latin-1"))
    ConsoleHandler().emit(_record(0.0, message))
    assert raw.getvalue().decode("latin-1") == f"{shown}\n"


def test_a_recorded_line_has_its_arguments_and_its_traceback(recorder: MemoryRecorder) -> None:
    @flow
    def tells() -> None:
        logger = get_run_logger()
        logger.info("%d of %s", 1, "two")
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("went wrong")

    tells()
    told = [e.log.message for e in recorder.entries if e.WhichOneof("kind") == "log"]
    assert "1 of two" in told
    (trace,) = [message for message in told if message.startswith("went wrong")]
    assert trace.rstrip().endswith("ValueError: bad")
    assert "Traceback (most recent call last)" in trace
