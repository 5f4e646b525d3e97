"""Time that skips: retries with delays of hours are tested in milliseconds."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from headrace.core.passing import SkippedTime, time_replaced

__all__ = ["skip_time"]


@contextmanager
def skip_time() -> Generator[SkippedTime]:
    """Runs do not wait for their delays while inside; their clock moves on instead.

    It holds for what the engine itself waits for, above all the delays before retries, in every thread of
    this process. What the code of a flow does (`time.sleep`, `datetime.now()`) and time limits keep to the
    machine's clock. Delays that would pass side by side are added up.

    Yields:
        The time: `skipped` lists the delays, `skip(seconds)` moves on by hand.
    """
    time = SkippedTime()
    with time_replaced(time):
        yield time
