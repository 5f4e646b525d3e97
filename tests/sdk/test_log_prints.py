"""`print` as log lines: by run, never for others."""

from __future__ import annotations

import builtins
import io
import logging
import pickle
import sys
import threading
from typing import Any

import pytest

from headrace import flow, task
from headrace.settings import temporary_settings
from tests.support.recorders import MemoryRecorder


@pytest.fixture(autouse=True)
def _recorded(recorder: MemoryRecorder) -> None:
    """Every test here records in memory."""


def printed(recorder: MemoryRecorder) -> list[tuple[str, str]]:
    logs = [entry.log for entry in recorder.entries if entry.WhichOneof("kind") == "log"]
    return [
        (log.logger.rpartition(".")[2], log.message)
        for log in logs
        if not log.message.startswith(("Beginning", "Finished"))
    ]


def test_prints_become_lines_of_the_run_that_asked(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    @task
    def work() -> None:
        print("in the task")

    @flow(log_prints=True)
    def run() -> None:
        print("in the flow", 5, None)
        work()

    run()
    print("after")
    assert printed(recorder) == [("flow_runs", "in the flow 5 None"), ("task_runs", "in the task")]
    assert capsys.readouterr().out == "after\n"


@pytest.mark.parametrize(
    ("of_flow", "of_task", "setting", "expected"),
    [
        (None, None, False, []),
        (None, None, True, ["flow", "task"]),
        (False, None, True, []),
        (True, False, False, ["flow"]),
        (False, True, False, ["task"]),
        (True, None, False, ["flow", "task"]),
    ],
)
def test_the_nearest_answer_counts(
    recorder: MemoryRecorder,
    capsys: pytest.CaptureFixture[str],
    of_flow: bool | None,
    of_task: bool | None,
    setting: bool,
    expected: list[str],
) -> None:
    @task(log_prints=of_task)
    def work() -> None:
        print("task")

    @flow(log_prints=of_flow)
    def run() -> None:
        print("flow")
        work()

    with temporary_settings({"logging_log_prints": setting}):
        run()
    assert [message for _, message in printed(recorder)] == expected
    assert capsys.readouterr().out.split() == [word for word in ("flow", "task") if word not in expected]


def test_separators_and_endings_are_respected(recorder: MemoryRecorder) -> None:
    @flow(log_prints=True)
    def run() -> None:
        print("a", "b", sep="-")
        print("c", end="!\n")
        print("two\nlines", end="")
        print("flushed", flush=True)
        print()

    run()
    assert [message for _, message in printed(recorder)] == ["a-b", "c!", "two\nlines", "flushed", ""]


def test_a_file_is_printed_to_as_usual(recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()

    @flow(log_prints=True)
    def run() -> None:
        print("to a file", file=file)
        print("to stderr", file=sys.stderr)
        print("to stdout", file=sys.stdout)

    run()
    assert file.getvalue() == "to a file\n"
    assert [message for _, message in printed(recorder)] == ["to stderr", "to stdout"]
    assert capsys.readouterr().out == ""


def test_two_flows_in_two_threads_do_not_disturb_each_other(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    together = threading.Barrier(2, timeout=60)

    def body(word: str) -> None:
        for _ in range(20):
            together.wait()
            print(word)

    logging_one = flow(log_prints=True)(body)
    plain_one = flow(log_prints=False)(body)
    threads = [
        threading.Thread(target=lambda: logging_one("logged")),
        threading.Thread(target=lambda: plain_one("plain")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [message for _, message in printed(recorder)] == ["logged"] * 20
    assert capsys.readouterr().out.split() == ["plain"] * 20


def test_print_is_replaced_once(recorder: MemoryRecorder) -> None:
    seen: list[Any] = []

    @flow(log_prints=True)
    def run() -> None:
        seen.append(builtins.print)

    run()
    run()
    assert seen[0] is seen[1] is builtins.print


def test_a_handler_that_prints_does_not_begin_again(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("handled:", record.getMessage())

    # Logging is set up by the first run under new settings, and handlers that were there before are not.
    flow(lambda: None)()
    handler = Printing()
    logger = logging.getLogger("headrace.flow_runs")
    logger.addHandler(handler)
    try:

        @flow(log_prints=True)
        def run() -> None:
            print("hello")

        run()
    finally:
        logger.removeHandler(handler)
    assert "handled: hello" in capsys.readouterr().out
    assert [message for _, message in printed(recorder)].count("hello") == 1


def test_prints_in_submitted_tasks_belong_to_them(recorder: MemoryRecorder) -> None:
    @task
    def work(i: int) -> None:
        print("item", i)

    @flow(log_prints=True)
    def run() -> None:
        work.map([1, 2]).wait()

    run()
    assert sorted(printed(recorder)) == [("task_runs", "item 1"), ("task_runs", "item 2")]


def test_print_that_others_replace_too_never_calls_itself(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress bars and Ray put a `print` of their own before the one they find."""

    def logged() -> None:
        flow(lambda: print("of the run"), name="run", log_prints=True)()

    logged()
    ours = print

    def theirs(*values: object, **options: Any) -> None:
        ours("theirs:", *values, **options)

    monkeypatch.setattr(builtins, "print", theirs)
    logged()
    assert print is not theirs
    print("of nobody")
    assert capsys.readouterr().out.count("theirs: of nobody") == 1
    assert [message for _, message in printed(recorder)] == ["of the run", "theirs: of the run"]


def test_print_travels_to_other_processes(recorder: MemoryRecorder) -> None:
    flow(lambda: None, name="run", log_prints=True)()
    assert pickle.loads(pickle.dumps(print)) is print
