"""`headrace flow-run retry`, `reschedule` and `explain`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import FlowRunArgument, FlowRunArguments, Output
from headrace.cli.output import emit_document, emit_json, say
from headrace.cli.selecting import find_run
from headrace.cli.text import clean
from headrace.cli.times import MAX_SPAN_SECONDS, span_seconds
from headrace.client import get_client
from headrace.v1.run_pb2 import RunKind
from headrace.v1.run_service_pb2 import BlockingCause, ExplainRunResponse, ProposeStateResponse

__all__ = ["explain", "reschedule", "retry"]


async def retry(
    flow_runs: FlowRunArguments,
    /,
    *,
    output: Output = "table",
) -> None:
    """Run flow runs of deployments again that have ended.

    A worker begins the body from its start; a durable flow takes the steps that had completed from what was
    recorded. A run that completed and keeps its result is not run again.
    """
    await _each(flow_runs, None, "waits for a worker.", "cannot be retried", output)


async def reschedule(
    flow_runs: FlowRunArguments,
    /,
    *,
    at: Annotated[
        str,
        Parameter(
            name=["--at", "--start-at"],
            help="When it may start: 2026-02-28T17:30 in local time, or with an offset; `now`; or how long "
            "from now, e.g. 15m or '2 hours'.",
        ),
    ],
    output: Output = "table",
) -> None:
    """Give flow runs that nobody executes another time to start."""
    when = _instant(at)
    said = f"is scheduled for {when.astimezone():%Y-%m-%d %H:%M:%S %Z}."
    await _each(flow_runs, when, said, "cannot be rescheduled", output)


async def explain(flow_run: FlowRunArgument, /, *, output: Output = "table") -> None:
    """Say why a flow run does not run, and what would help."""
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        answer = await client.explain_run(run.id)
    emit_document(to_json(answer), lambda: _details(run.name, answer), output)


def _details(name: str, answer: ExplainRunResponse) -> list[tuple[str, str]]:
    cause = BlockingCause.Name(answer.cause).removeprefix("BLOCKING_CAUSE_").replace("_", " ").lower()
    now = datetime.now(UTC)
    until = text.local_time(answer.until) if answer.HasField("until") else ""
    rows = [
        ("Flow run", name),
        ("Cause", cause),
        ("Why", answer.message),
        ("What helps", answer.remedy),
        ("About", answer.subject),
        ("Until", f"{until} ({text.age(answer.until, now)})" if until else ""),
        ("Place in line", str(answer.position) if answer.position else ""),
        ("Held by", "\n".join(answer.holder_run_ids)),
    ]
    return [(title, value) for title, value in rows if value]


async def _each(words: tuple[str, ...], at: datetime | None, done: str, refused: str, output: Output) -> None:
    problems: list[str] = []
    shown: list[object] = []
    async with get_client() as client:
        runs = [await find_run(client, word, RunKind.RUN_KIND_FLOW) for word in words]
        for run in runs:
            verdict = await (client.retry_run(run.id) if at is None else client.reschedule_run(run.id, at))
            if verdict.HasField("accepted"):
                say(f"Flow run {clean(run.name)} {done}")
            else:
                problems.append(f"Flow run {clean(run.name)} {refused}: {_why(verdict)}")
            shown.append(to_json(await client.get_run(run.id)))
            if output == "jsonl":
                emit_json(shown[-1], indent=None)
    if output == "json":
        emit_json(shown)
    if problems:
        raise CliError("\n".join(problems))


def _why(verdict: ProposeStateResponse) -> str:
    return verdict.abort.reason or verdict.rejected.reason


def _instant(word: str) -> datetime:
    """The instant that somebody typed; without an offset it is local time."""
    if word == "now":
        return datetime.now(UTC)
    ahead = span_seconds(word)
    if ahead is not None and ahead <= MAX_SPAN_SECONDS:
        return datetime.now(UTC) + timedelta(seconds=ahead)
    try:
        return datetime.fromisoformat(word).astimezone(UTC)
    except ValueError:
        message = f"'{word}' is no date and time."
        raise CliError(message, "Write 2026-02-28T17:30, 15m or now.", code=ExitCode.USAGE) from None
