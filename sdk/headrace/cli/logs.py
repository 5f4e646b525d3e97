"""`headrace flow-run logs` and `headrace task-run logs`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.json_format import ParseDict

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.family import Family
from headrace.cli.options import FlowRunArgument, Format, Output, Since, TaskRunArgument
from headrace.cli.output import emit_json, say
from headrace.cli.parameters import read_parameters
from headrace.cli.run_views import log_line
from headrace.cli.selecting import find_run, parse_since
from headrace.cli.tailing import tail_until_final
from headrace.client import get_client
from headrace.core.limits import PAGE_SIZE_MAX
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.log_service_pb2 import LogOrder
from headrace.v1.run_pb2 import RunKind

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.log_pb2 import LogEntry

__all__ = ["logs_of_flow_run", "logs_of_task_run"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

Follow = Annotated[
    bool, Parameter(name=["--follow", "-f"], help="Go on with new lines until the run has ended.")
]
Head = Annotated[
    int | None, Parameter(name="--head", validator=Number(gte=1), help="Only the first lines, this many.")
]
Tail = Annotated[
    int | None, Parameter(name="--tail", validator=Number(gte=1), help="Only the last lines, this many.")
]
Reverse = Annotated[bool, Parameter(name=["--reverse", "-r"], help="Newest first.")]
Level = Annotated[
    str,
    Parameter(
        name=["--level", "-l"],
        help="Only lines of at least this level: debug, info, warning, error, critical.",
    ),
]
Contains = Annotated[str, Parameter(name="--contains", help="Only lines that contain this text.")]
Field = Annotated[
    tuple[str, ...],
    Parameter(
        name="--field",
        help="Only lines with this value in a field that was attached with `extra=`, as NAME=VALUE; a VALUE "
        "that is JSON is taken as JSON. Repeat for all of several.",
    ),
]
OwnOnly = Annotated[bool, Parameter(name="--own-only", help="Leave out the runs below it.")]


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which lines, in which order; see the options."""

    follow: bool
    head: int | None
    tail: int | None
    reverse: bool
    level: str
    contains: str
    field: tuple[str, ...]
    since: str | None
    own_only: bool
    output: Format


async def logs_of_flow_run(
    flow_run: FlowRunArgument,
    /,
    *,
    follow: Follow = False,
    head: Head = None,
    tail: Tail = None,
    reverse: Reverse = False,
    level: Level = "debug",
    contains: Contains = "",
    field: Field = (),
    since: Since = None,
    own_only: OwnOnly = False,
    output: Output = "table",
) -> None:
    """Show the logs of a flow run and of every run below it."""
    wish = _Wish(follow, head, tail, reverse, level, contains, field, since, own_only, output)
    await _show(flow_run, RunKind.RUN_KIND_FLOW, wish)


async def logs_of_task_run(
    task_run: TaskRunArgument,
    /,
    *,
    follow: Follow = False,
    head: Head = None,
    tail: Tail = None,
    reverse: Reverse = False,
    level: Level = "debug",
    contains: Contains = "",
    field: Field = (),
    since: Since = None,
    own_only: OwnOnly = False,
    output: Output = "table",
) -> None:
    """Show the logs of a task run and of every run below it."""
    wish = _Wish(follow, head, tail, reverse, level, contains, field, since, own_only, output)
    await _show(task_run, RunKind.RUN_KIND_TASK, wish)


async def _show(run_text: str, kind: RunKind.ValueType, wish: _Wish) -> None:
    filter = _filter(wish)
    async with get_client() as client:
        run = await find_run(client, run_text, kind)
        family = Family(client, run)
        if wish.own_only:
            filter.run_ids.append(run.id)
        else:
            filter.root_run_ids.append(family.root_run_id)
        if wish.follow:
            lines = tail_until_final(client, run, filter, wish.tail)
        else:
            lines = _in_order(client, filter, family, wish)
        shown = await _print(lines, family, wish)
        if not shown and wish.output == "table":
            say(f"No log lines of {run.name or run.id}.")


def _filter(wish: _Wish) -> LogFilter:
    if wish.head is not None and wish.tail is not None:
        raise CliError("--head and --tail exclude each other.", code=ExitCode.USAGE)
    if wish.follow and (wish.head is not None or wish.reverse):
        raise CliError("--follow goes with neither --head nor --reverse.", code=ExitCode.USAGE)
    if wish.follow and wish.output == "json":
        raise CliError("What has no end cannot be one JSON document.", "Use -o jsonl.", code=ExitCode.USAGE)
    least = _LEVELS.get(wish.level.lower())
    if least is None:
        hint = nearest(wish.level, _LEVELS) or f"There are: {', '.join(_LEVELS)}."
        raise CliError(f"There is no log level '{wish.level}'.", hint, code=ExitCode.USAGE)
    filter = LogFilter(min_level=0 if least == 10 else least, message_contains=wish.contains)
    for name, value in read_parameters(wish.field, None).items():
        ParseDict(value, filter.fields.add(name=name).value)
    if wish.since is not None:
        getattr(filter, "from").CopyFrom(parse_since(wish.since, datetime.now(UTC)))
    return filter


async def _in_order(
    client: HeadraceClient, filter: LogFilter, family: Family, wish: _Wish
) -> AsyncGenerator[LogEntry]:
    newest_first = wish.reverse or wish.tail is not None
    order = LogOrder.LOG_ORDER_NEWEST_FIRST if newest_first else LogOrder.LOG_ORDER_OLDEST_FIRST
    most = wish.tail if wish.tail is not None else wish.head
    turned_round: list[LogEntry] = []
    count = 0
    async for entry in client.iter_logs(filter, order=order, page_size=PAGE_SIZE_MAX):
        if count == most:
            break
        if not await family.has(entry.run_id):
            continue
        count += 1
        if newest_first and not wish.reverse:
            turned_round.append(entry)
        else:
            yield entry
    for entry in reversed(turned_round):
        yield entry


async def _print(lines: AsyncGenerator[LogEntry], family: Family, wish: _Wish) -> int:
    coloured = text.colours()
    kept: list[LogEntry] = []
    count = 0
    async for entry in lines:
        if not await family.has(entry.run_id):
            continue
        count += 1
        if wish.output == "json":
            kept.append(entry)
        elif wish.output == "jsonl":
            emit_json(to_json(entry), indent=None)
        else:
            print(log_line(entry, await family.name(entry.run_id), coloured), flush=wish.follow)
    if wish.output == "json":
        emit_json([to_json(entry) for entry in kept])
    return count
