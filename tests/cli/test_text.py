"""Text for people: nothing that steers a terminal, nothing cut from what a program reads."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli import text


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0ms"),
        (0.8504, "850ms"),
        (4.24, "4.2s"),
        (59.94, "59.9s"),
        (187, "3m 07s"),
        (3600 * 2 + 300, "2h 05m"),
        (86400 * 3 + 3600, "3d 1h"),
    ],
)
def test_elapsed(seconds: float, shown: str) -> None:
    assert text.elapsed(seconds) == shown
    assert text.elapsed(timedelta(seconds=seconds)) == shown
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    assert text.elapsed(duration) == shown


@pytest.mark.parametrize(
    ("back", "shown"),
    [(0.5, "now"), (5, "5s ago"), (185, "3m ago"), (7200, "2h ago"), (200_000, "2d ago"), (-90, "in 1m")],
)
def test_age(back: float, shown: str) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(now - timedelta(seconds=back))
    assert text.age(stamp, now) == shown


def test_clean_takes_out_what_steers_a_terminal() -> None:
    assert text.clean("a\x1b[31mb\nc\td") == "a\ufffd[31mb c d"
    assert text.clean("a\nb\x07", keep_breaks=True) == "a\nb\ufffd"


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert text.colours(_Terminal())
    assert not text.colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not text.colours(_Terminal())


def test_a_piped_table_is_neither_cut_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    shown = text.table(("ID", "NAME"), [("1", "x" * 300), ("22", text.Cell("short", "31"))], shrink=("NAME",))
    assert shown.splitlines() == ["ID  NAME", "1   " + "x" * 300, "22  short"]


def test_a_table_on_a_terminal_is_cut_to_fit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", _Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    shown = text.table(("ID", "NAME"), [("1", "x" * 300)], shrink=("NAME",)).splitlines()
    assert len(shown[1]) == 40
    assert shown[1].endswith("…")


def test_wide_characters_keep_columns_straight() -> None:
    shown = text.table(("A", "B"), [("日本", "x"), ("abc", "y")]).splitlines()
    assert shown == ["A     B", "日本  x", "abc   y"]


def test_details_leave_out_what_is_empty_and_indent_further_lines() -> None:
    assert text.details([("ID", "1"), ("Message", ""), ("Error", "a\nb")]) == "ID     1\nError  a\n       b\n"
