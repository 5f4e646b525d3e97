"""From a record of Python's `logging` to an entry on the run's record."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.context import current_run
from headrace.runs import FlowRun, TaskRun

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

    from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["cut", "entry_of", "first_time", "run_fields", "run_of", "user_fields"]

_RUN: Final = "headrace_run"
_SEEN: Final = "headrace_recorded"
_OWN: Final = frozenset(
    {
        *vars(logging.makeLogRecord({})),
        *("message", "asctime", "taskName", "send_to_api", _RUN, _SEEN),
        *("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name", "task_name"),
    }
)
_FIELDS_BYTES: Final = 16 * 1024
_FIELD_DEPTH: Final = 6


def run_fields(run: FlowRun | TaskRun) -> dict[str, Any]:
    """The fields of records that belong to `run`."""
    if isinstance(run, FlowRun):
        return {
            _RUN: run,
            "flow_run_id": run.id,
            "flow_run_name": run.name,
            "flow_name": run.flow_name,
        }
    return {
        _RUN: run,
        "task_run_id": run.id,
        "task_run_name": run.name,
        "task_name": run.task_name,
        "flow_run_id": run.flow_run_id,
        "flow_name": run.flow_name,
    }


def run_of(record: logging.LogRecord) -> FlowRun | TaskRun | None:
    """The run that a record belongs to: the one it was written for, else the one whose body this is."""
    run = getattr(record, _RUN, None)
    if run is not None:
        return cast("FlowRun | TaskRun", run)
    context = current_run()
    return None if context is None else context.run


def first_time(record: logging.LogRecord) -> bool:
    """Whether the record has not been recorded yet; a logger and one above it may both be recorded."""
    seen = getattr(record, _SEEN, False)
    setattr(record, _SEEN, True)
    return not seen


def entry_of(record: logging.LogRecord, run: FlowRun | TaskRun, text: str, limit_bytes: int) -> RecordEntry:
    """The entry for one record.

    Args:
        record: what was logged.
        run: the run it belongs to.
        text: the message, with its traceback if there is one.
        limit_bytes: a longer message is cut.
    """
    from headrace.v1.record_service_pb2 import RecordEntry

    micros = round(record.created * 1_000_000)
    entry = RecordEntry()
    log = entry.log  # filled in place: a message given to another one is copied
    log.run_id = run.id
    log.root_run_id = run.root_run_id
    log.level = min(max(record.levelno, 0), 100)
    log.logger = cut(record.name, 200)
    log.message = cut(text, limit_bytes)
    log.trace_id, log.span_id = _trace(run)
    log.attempt = run.run_count
    time = log.time
    time.seconds, time.nanos = micros // 1_000_000, micros % 1_000_000 * 1000
    fields = user_fields(record)
    if fields:
        fill(log.fields, fields)
    return entry


def cut(text: str, limit_bytes: int) -> str:
    """`text` as UTF-8 of at most `limit_bytes`, with a note at the end of what had to be cut.

    What UTF-8 or a database cannot hold, lone surrogates and NULs, is written out as `\\udc80`, `\\x00`.
    """
    if "\0" not in text and len(text) <= limit_bytes and text.isascii():
        return text
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    blob = text.encode("utf-8", "backslashreplace")
    if len(blob) > limit_bytes:
        note = f"... [cut: {len(blob)} bytes]".encode()
        blob = blob[: max(0, limit_bytes - len(note))] + note[:limit_bytes]
    return blob.decode("utf-8", "ignore")


def user_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the author attached to a record with `extra=`; not what a library marks as its own by `_`."""
    if vars(record).keys() <= _OWN:
        return {}
    return {key: value for key, value in vars(record).items() if key not in _OWN and not key.startswith("_")}


def fill(struct: Struct, fields: Mapping[str, Any]) -> None:
    """Write `fields` into `struct`; what is no JSON is written as text, what is too much is left out."""
    room = _FIELDS_BYTES
    for key, value in fields.items():
        plain, size = _plain(value, min(room, _FIELDS_BYTES // 4), _FIELD_DEPTH)
        room -= size + len(key)
        if room < 0:
            struct.update({"headrace_note": "further fields were left out: they take too much room"})
            return
        struct.update({cut(key, 200): plain})


def _plain(value: Any, room: int, depth: int) -> tuple[Any, int]:
    """`value` as JSON can say it, and about how many bytes that takes."""
    if value is None or isinstance(value, bool):
        return value, 4
    if isinstance(value, int) and abs(value) <= 2**53:
        return int(value), 8
    if isinstance(value, float) and math.isfinite(value):
        return float(value), 8
    if isinstance(value, dict) and depth:
        return _plain_mapping(value, room, depth)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (list, tuple, set, frozenset)) and depth:
        return _plain_items([*value], room, depth)
    text = cut(_text(value), max(room, 64))
    return text, len(text)


def _plain_mapping(value: Mapping[Any, Any], room: int, depth: int) -> tuple[dict[str, Any], int]:
    plain: dict[str, Any] = {}
    used = 0
    for key, item in value.items():
        if used >= room:
            break
        name = cut(_text(key), 200)
        plain[name], size = _plain(item, room - used, depth - 1)
        used += size + len(name)
    return plain, used


def _plain_items(value: list[Any], room: int, depth: int) -> tuple[list[Any], int]:
    plain: list[Any] = []
    used = 0
    for item in value:
        if used >= room:
            break
        made, size = _plain(item, room - used, depth - 1)
        plain.append(made)
        used += size + 1
    return plain, used


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except Exception:  # a user's __str__ must not lose the line
        return f"<{type(value).__name__}>"


def _trace(run: FlowRun | TaskRun) -> tuple[str, str]:
    """Ids of the trace and span that a line belongs to; without a tracer, made from the run's ids."""
    # There is no span where nobody has imported the API; importing it here would cost every script 20 ms.
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is not None:
        span = tracing.get_current_span().get_span_context()
        if span.is_valid:
            return f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return run.root_run_id.replace("-", ""), run.id.replace("-", "")[-16:]
