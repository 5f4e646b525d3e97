"""Lengths of time as people type them."""

from __future__ import annotations

import pytest

from headrace.cli.times import span_seconds


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("90s", 90), ("15m", 900), (" 2 Hours ", 7200), ("1.5d", 129600), ("1w", 604800), ("1 minute", 60)],
)
def test_a_length_of_time(typed: str, seconds: float) -> None:
    assert span_seconds(typed) == seconds


@pytest.mark.parametrize("typed", ["", "now", "5", "5x", "-3m", "3 m m", "2026-01-01", "1e3s"])
def test_what_is_none(typed: str) -> None:
    assert span_seconds(typed) is None
