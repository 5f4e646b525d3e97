"""Log lines of runs: what goes on the record, what stays off it, and that nothing breaks."""

from __future__ import annotations

import json
import logging
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from headrace import flow, get_run_logger, task
from headrace.core.errors import ConfigurationError, StorageFull
from headrace.core.limits import LOG_MESSAGE_BYTES
from headrace.core.spool import read_entries
from headrace.exceptions import MissingContextError
from headrace.logging import disable_run_logger, get_logger
from headrace.logging.configuration import ensure_configured
from headrace.logging.records import cut
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.record_service_pb2 import RecordEntry
from tests.support.recorders import MemoryRecorder


@pytest.fixture(autouse=True)
def _configured(recorder: MemoryRecorder) -> None:
    ensure_configured()


@pytest.fixture
def own_logger() -> Iterator[logging.Logger]:
    """A logger of the program, with nothing attached."""
    logger = logging.getLogger("shop.orders")
    yield logger
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def lines(recorder: MemoryRecorder) -> list[LogEntry]:
    """What authors logged: the engine's own lines left out."""
    own = re.compile(r"Beginning flow run|Finished in state")
    logs = [entry.log for entry in recorder.entries if entry.WhichOneof("kind") == "log"]
    return [log for log in logs if not own.match(log.message)]


def logged(recorder: MemoryRecorder, *args: Any, **kwargs: Any) -> LogEntry:
    """The entry of one line in a flow."""

    @flow
    def run() -> None:
        get_run_logger().info(*args, **kwargs)

    run()
    return lines(recorder)[-1]


def test_a_line_of_a_flow_belongs_to_its_run(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        get_run_logger().warning("Loaded %s rows from %r", 5, "orders")

    run()
    (line,) = lines(recorder)
    recorded = recorder.the("run").run
    assert line.message == "Loaded 5 rows from 'orders'"
    assert (line.level, line.logger) == (30, "headrace.flow_runs")
    assert (line.run_id, line.root_run_id, line.attempt) == (recorded.id, recorded.id, 1)
    assert line.trace_id == recorded.id.replace("-", "")
    assert line.span_id == recorded.id.replace("-", "")[-16:]
    assert line.time.seconds > 1_700_000_000


def test_a_line_of_a_task_belongs_to_the_task_and_tells_the_attempt(recorder: MemoryRecorder) -> None:
    @task(retries=1)
    def work() -> None:
        get_run_logger().info("trying")
        if len([line for line in lines(recorder) if line.message == "trying"]) < 2:
            raise ValueError

    @flow
    def run() -> None:
        work()

    run()
    tries = [line for line in lines(recorder) if line.message == "trying"]
    assert [line.attempt for line in tries] == [1, 2]
    assert {line.run_id for line in tries} == {recorder.the("work").run.id}
    assert {line.root_run_id for line in tries} == {recorder.the("run").run.id}
    assert {line.logger for line in tries} == {"headrace.task_runs"}


def test_a_subflow_in_a_task_has_the_subflows_logger(recorder: MemoryRecorder) -> None:
    @flow
    def inner() -> None:
        get_run_logger().info("inner")

    @task
    def middle() -> None:
        inner()
        get_run_logger().info("middle")

    @flow
    def outer() -> None:
        middle.submit().result()
        get_run_logger().info("outer")

    outer()
    assert [(line.message, line.run_id) for line in lines(recorder)] == [
        (name, recorder.the(name).run.id) for name in ("inner", "middle", "outer")
    ]


def test_extra_fields_are_kept_as_data(recorder: MemoryRecorder) -> None:
    line = logged(
        recorder,
        "x",
        extra={"table": "orders", "rows": 5, "share": 0.5, "ok": True, "none": None, "tree": {"a": [1, "b"]}},
    )
    assert MessageToDict(line.fields) == {
        "table": "orders",
        "rows": 5,
        "share": 0.5,
        "ok": True,
        "none": None,
        "tree": {"a": [1, "b"]},
    }


def test_extra_fields_of_any_kind_do_no_harm(recorder: MemoryRecorder) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    loop: list[Any] = []
    loop.append(loop)
    line = logged(
        recorder,
        "x",
        extra={
            "when": pathlib.PurePosixPath("/a"),
            "nan": math.nan,
            "big": 2**70,
            "nul": "a\0b",
            "lone": "\udc80",
            "rude": Rude(),
            "loop": loop,
            "keys": {1: "one", None: "none"},
            "set": {1},
        },
    )
    fields = MessageToDict(line.fields)
    assert fields["when"] == "/a"
    assert fields["nan"] == "nan"
    assert fields["big"] == str(2**70)
    assert fields["nul"] == "a\\x00b"
    assert fields["lone"] == "\\udc80"
    assert fields["rude"] == "<Rude>"
    assert fields["keys"] == {"1": "one", "None": "none"}
    assert fields["set"] == [1]


def test_too_many_extra_fields_are_left_out_with_a_note(recorder: MemoryRecorder) -> None:
    line = logged(recorder, "x", extra={f"field_{i}": "x" * 5000 for i in range(20)})
    fields = MessageToDict(line.fields)
    assert line.ByteSize() < 40_000
    assert "left out" in fields["headrace_note"]
    assert "[cut:" in fields["field_0"]


def test_extra_is_merged_with_the_fields_of_the_run(
    recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def work() -> None:
        get_run_logger(team="data").getChild("part", {"shard": 3}).info("hello", extra={"table": "t"})

    @flow
    def run() -> None:
        work()

    run()
    (record,) = [record for record in caplog.records if record.message == "hello"]
    task_run = recorder.the("work").run
    told = vars(record)
    assert record.name == "headrace.task_runs.part"
    assert (told["task_run_id"], told["task_run_name"], told["task_name"]) == (
        task_run.id,
        task_run.name,
        "work",
    )
    assert told["flow_run_id"] == recorder.the("run").run.id
    assert MessageToDict(lines(recorder)[0].fields) == {"team": "data", "shard": 3, "table": "t"}


@pytest.mark.parametrize("message", [ValueError("an object"), 5, None, ["a", 1], b"bytes"], ids=repr)
def test_messages_need_not_be_text(recorder: MemoryRecorder, message: Any) -> None:
    assert logged(recorder, message).message == str(message)


def test_an_exception_comes_with_its_traceback(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        try:
            raise KeyError("lost")
        except KeyError:
            get_run_logger().exception("It failed")

    run()
    (line,) = lines(recorder)
    assert line.level == 40
    assert line.message.startswith("It failed\nTraceback (most recent call last):")
    assert line.message.endswith("KeyError: 'lost'")


def test_a_line_of_a_megabyte_is_cut_with_a_note(recorder: MemoryRecorder) -> None:
    message = logged(recorder, "x" * 1_000_000).message
    assert len(message.encode()) == LOG_MESSAGE_BYTES
    assert message.endswith("... [cut: 1000000 bytes]")
    assert message.startswith("xxx")


def test_the_setting_cuts_earlier(recorder: MemoryRecorder) -> None:
    with temporary_settings({"logging_to_api_max_log_size": 100}):
        assert len(logged(recorder, "x" * 1000).message) == 100


@pytest.mark.parametrize("limit", range(30, 50))
def test_a_character_is_never_cut_in_two(limit: int) -> None:
    text = cut("ü€🎈" * 20, limit)
    assert len(text.encode()) <= limit
    assert text.endswith("... [cut: 180 bytes]")
    assert set(text.removesuffix("... [cut: 180 bytes]")) <= set("ü€🎈")


def test_what_a_database_cannot_hold_survives_written_out(recorder: MemoryRecorder) -> None:
    assert logged(recorder, "a\0b \udcff ok").message == "a\\x00b \\udcff ok"


def test_a_line_can_be_kept_local(recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]) -> None:
    @flow
    def run() -> None:
        get_run_logger().info("only here", extra={"send_to_api": False})

    run()
    assert lines(recorder) == []
    assert "only here" in capsys.readouterr().err


def test_recording_can_be_switched_off(recorder: MemoryRecorder) -> None:
    with temporary_settings({"logging_to_api_enabled": False}):

        @flow
        def run() -> None:
            get_run_logger().info("quiet")

        run()
    assert lines(recorder) == []


def test_a_thread_started_by_the_body_can_log_with_the_bodys_logger(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        logger = get_run_logger()
        thread = threading.Thread(target=lambda: logger.info("from a thread"))
        thread.start()
        thread.join()

    run()
    assert [(line.message, line.run_id) for line in lines(recorder)] == [
        ("from a thread", recorder.the("run").run.id)
    ]


def test_outside_of_runs_there_is_no_run_logger() -> None:
    with pytest.raises(MissingContextError):
        get_run_logger()
    assert issubclass(MissingContextError, RuntimeError)


def test_functions_can_be_called_without_a_run_when_the_logger_is_disabled(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    @task
    def work() -> int:
        get_run_logger().info("unheard")
        return 5

    with disable_run_logger():
        assert work.fn() == 5
    assert lines(recorder) == []
    assert "unheard" not in capsys.readouterr().err
    with pytest.raises(MissingContextError):
        work.fn()


def test_lines_without_a_run_are_told_of_as_the_setting_says(recorder: MemoryRecorder) -> None:
    logger = logging.getLogger("headrace.flow_runs")
    with pytest.warns(UserWarning, match="without a flow or task run") as warned:
        logger.warning("alone")
    assert warned[0].filename == __file__, "the warning points at the line that logs"
    with (
        temporary_settings({"logging_to_api_when_missing_flow": "error"}),
        pytest.raises(MissingContextError),
    ):
        logger.warning("alone")
    with temporary_settings({"logging_to_api_when_missing_flow": "ignore"}):
        logger.warning("alone")
    logger.warning("alone", extra={"send_to_api": False})
    assert lines(recorder) == []


def test_extra_loggers_are_recorded_with_the_run(
    recorder: MemoryRecorder, own_logger: logging.Logger
) -> None:
    with temporary_settings({"logging_extra_loggers": "shop.orders,headrace"}):

        @flow
        def run() -> None:
            own_logger.info("an order")
            own_logger.getChild("eu").info("one in Europe")
            logging.getLogger("shop").error("not named")
            get_run_logger().info("once")

        run()
    ensure_configured()
    assert [(line.logger, line.message) for line in lines(recorder)] == [
        ("shop.orders", "an order"),
        ("shop.orders.eu", "one in Europe"),
        ("headrace.flow_runs", "once"),
    ]


def test_the_level_follows_the_setting(recorder: MemoryRecorder) -> None:
    @flow
    def run() -> None:
        for level in ("debug", "info", "warning"):
            getattr(get_run_logger(), level)(level)

    for setting, expected in {
        "DEBUG": ["debug", "info", "warning"],
        "info": ["info", "warning"],
        "30": ["warning"],
    }.items():
        recorder.entries.clear()
        with temporary_settings({"logging_level": setting}):
            run()
        said = [line.message for line in lines(recorder)]
        assert [message for message in said if message in ("debug", "info", "warning")] == expected


def test_a_wrong_level_is_named() -> None:
    with (
        temporary_settings({"logging_level": "LOUD"}),
        pytest.raises(ConfigurationError, match=r"HEADRACE_LOGGING_LEVEL.*LOUD.*WARNING"),
    ):
        get_logger()


def test_the_current_span_is_named(recorder: MemoryRecorder) -> None:
    tracer = TracerProvider().get_tracer("test")

    @flow
    def run() -> Any:
        with tracer.start_as_current_span("step") as span:
            get_run_logger().info("in a span")
        return span.get_span_context()

    span = run()
    (line,) = lines(recorder)
    assert (line.trace_id, line.span_id) == (trace.format_trace_id(span.trace_id), f"{span.span_id:016x}")


def test_a_recorder_that_refuses_is_told_of_once_and_raises_nothing(
    recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    post = recorder.post

    def refuse_logs(*entries: Any) -> int:
        if any(entry.WhichOneof("kind") == "log" for entry in entries):
            raise StorageFull()
        return post(*entries)

    monkeypatch.setattr(recorder, "post", refuse_logs)

    @flow
    def run() -> str:
        get_run_logger().info("one")
        get_run_logger().info("two")
        return "went on"

    assert run() == "went on"
    assert capsys.readouterr().err.count("a log line could not be recorded") == 1
    for handler in logging.getLogger("headrace.flow_runs").handlers:
        handler.close()
    assert "4 log lines could not be recorded" in capsys.readouterr().err


def test_logging_while_a_line_is_recorded_does_not_begin_again(
    recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = recorder.post

    def chatty(*entries: Any) -> int:
        logging.getLogger("headrace.flow_runs").info("posting")
        return post(*entries)

    monkeypatch.setattr(recorder, "post", chatty)

    @flow
    def run() -> None:
        get_run_logger().info("hello")

    run()
    said = [line.message for line in lines(recorder)]
    assert said.count("hello") == 1
    assert len(said) < 10


def test_caplog_sees_lines_of_runs_and_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    @flow
    def run() -> None:
        get_run_logger().info("of the run")
        get_logger("part").info("of the program")

    run()
    assert {"of the run", "of the program"} <= {record.message for record in caplog.records}


def test_names_of_loggers() -> None:
    assert get_logger().name == "headrace"
    assert get_logger("headrace").name == "headrace"
    assert get_logger("a.b").name == get_logger("headrace.a.b").name == "headrace.a.b"


CONSOLE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} \| (\w+) +\| (.+?) - (.*)$", re.M)


def test_the_console_shows_time_level_run_and_message(
    recorder: MemoryRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    @task(task_run_name="step-one")
    def work() -> None:
        get_run_logger().error("in the task")

    @flow(flow_run_name="nightly")
    def run() -> None:
        get_run_logger().info("in the flow")
        work()
        get_logger("part").warning("beside")

    run()
    out, err = capsys.readouterr()
    assert out == ""
    shown = CONSOLE.findall(err)
    assert ("INFO", "Flow run 'nightly'", "in the flow") in shown
    assert ("ERROR", "Task run 'step-one'", "in the task") in shown
    assert ("WARNING", "headrace.part", "beside") in shown
    assert "\x1b" not in err


def test_the_console_is_silent_when_the_program_prints_log_lines_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter("own: %(message)s"))
    logging.getLogger().addHandler(own)
    try:
        get_logger("part").warning("hello")
    finally:
        logging.getLogger().removeHandler(own)
    assert capsys.readouterr().err == "own: hello\n"


def home_with(tmp_path: pathlib.Path, text: str) -> pathlib.Path:
    (tmp_path / "logging.yml").write_text(text)
    return tmp_path


CUSTOM = """
version: 1
disable_existing_loggers: false
formatters:
  mine: {format: "mine: %(levelname)s %(message)s"}
  json: {"()": headrace.logging.formatters.JsonFormatter}
handlers:
  console: {class: logging.StreamHandler, formatter: mine}
loggers:
  headrace.custom: {level: "${HEADRACE_LOGGING_LEVEL}", handlers: [console], propagate: false}
"""


def test_a_configuration_in_the_home_replaces_the_built_in_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_with(tmp_path, CUSTOM)
    try:
        with temporary_settings({"home": str(home), "logging_level": "WARNING"}):
            logger = get_logger("custom")
            logger.warning("hello")
            logger.info("unheard")
            assert capsys.readouterr().err == "mine: WARNING hello\n"
        monkeypatch.setenv("HEADRACE_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
        with temporary_settings({"home": str(home), "logging_level": "INFO"}):
            get_logger("custom").info("hello %s", "json", extra={"rows": 5})
            said = json.loads(capsys.readouterr().err)
            assert (said["level"], said["logger"], said["message"], said["rows"]) == (
                "INFO",
                "headrace.custom",
                "hello json",
                5,
            )
    finally:
        monkeypatch.undo()
        logging.getLogger("headrace.custom").handlers.clear()
        ensure_configured()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "not valid YAML"),
        ("just text", "must be a mapping"),
        ("loggers: {}", "version"),
        ("version: 1\nhandlers: {h: {class: no.such.Handler}}", "no.such.Handler|No module named"),
    ],
)
def test_a_broken_configuration_is_named(tmp_path: pathlib.Path, text: str, why: str) -> None:
    home = home_with(tmp_path, text)
    with (
        temporary_settings({"home": str(home)}),
        pytest.raises(ConfigurationError, match=why) as raised,
    ):
        get_logger()
    assert "logging.yml" in str(raised.value)


def test_the_json_formatter_tells_the_run_and_the_exception(
    recorder: MemoryRecorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_LOGGING_HANDLERS_CONSOLE_FORMATTER", "json")
    try:
        with temporary_settings({"logging_level": "ERROR"}):

            @flow(flow_run_name="nightly")
            def run() -> None:
                try:
                    raise ValueError("broken")
                except ValueError:
                    get_run_logger().exception("oh", extra={"at": {1, 2}})

            run()
    finally:
        monkeypatch.undo()
        ensure_configured()
    said = json.loads(capsys.readouterr().err)
    assert (said["message"], said["flow_run_name"], said["flow_name"]) == ("oh", "nightly", "run")
    assert said["flow_run_id"] == recorder.the("run").run.id
    assert said["exception"].endswith("ValueError: broken")
    assert said["at"] == "{1, 2}"


def test_handlers_of_the_program_stay_open_when_logging_is_set_up(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "own.log"
    handler = logging.FileHandler(file, mode="w")
    logger = logging.getLogger("own.file")
    logger.addHandler(handler)
    try:
        logger.error("before")
        with temporary_settings({"logging_level": "DEBUG"}):
            get_logger()
            logger.error("after")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert file.read_text().splitlines() == ["before", "after"]


SCRIPT = """
from headrace import flow, get_run_logger

@flow
def run():
    for i in range(200):
        get_run_logger().info("line %s", i)

run()
"""


def test_nothing_is_lost_when_the_interpreter_ends(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "HEADRACE_HOME": str(home), "HEADRACE_API_URL": "auto"}
    program = [sys.executable, "-c", SCRIPT]
    subprocess.run(program, env=environment, check=True, capture_output=True, timeout=60)
    entries = [
        RecordEntry.FromString(entry)
        for folder in (home / "spool").iterdir()
        for _, entry in read_entries(folder)
    ]
    said = [entry.log.message for entry in entries if entry.log.message.startswith("line ")]
    assert said == [f"line {i}" for i in range(200)]
