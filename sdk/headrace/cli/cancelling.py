"""`headrace flow-run cancel`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError
from headrace.cli.options import FlowRunArguments, Output
from headrace.cli.output import emit_json, say
from headrace.cli.selecting import find_run
from headrace.cli.text import clean
from headrace.client import get_client
from headrace.v1.run_pb2 import RunKind
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLED, STATE_TYPE_CANCELLING

__all__ = ["cancel"]


async def cancel(
    flow_runs: FlowRunArguments,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; kept as the message of the last state.")] = "",
    grace: Annotated[
        float | None,
        Parameter(
            help="Seconds that a process may take to end its run; then the server ends it. Default: 30.",
            validator=Number(gte=0),
        ),
    ] = None,
    output: Output = "table",
) -> None:
    """End flow runs before their bodies do.

    A run that no process holds is cancelled at once. Any other is cancelling: its process is told, interrupts
    the body and what runs below it, calls the `on_cancellation` hooks, and ends the run.
    """
    refused: list[str] = []
    async with get_client() as client:
        runs = [await find_run(client, word, RunKind.RUN_KIND_FLOW) for word in flow_runs]
        shown: list[object] = []
        for run in runs:
            verdict = await client.cancel_run(run.id, reason=reason, grace_seconds=grace)
            said, is_done = _said(verdict)
            if is_done:
                say(f"Flow run {clean(run.name)} {said}")
            else:
                refused.append(f"Flow run {clean(run.name)} {said}")
            shown.append(to_json(await client.get_run(run.id)))
            if output == "jsonl":
                emit_json(shown[-1], indent=None)
        if output == "json":
            emit_json(shown)
    if refused:
        raise CliError("\n".join(refused))


def _said(verdict: ProposeStateResponse) -> tuple[str, bool]:
    """What became of the request, and whether that is what was asked for."""
    if verdict.HasField("accepted"):
        return "is being cancelled: its process is told.", True
    state = verdict.rejected.state.type
    if state == STATE_TYPE_CANCELLED:
        return "is cancelled: no process held it.", True
    if state == STATE_TYPE_CANCELLING:
        return "is being cancelled already.", True
    return f"cannot be cancelled: {verdict.abort.reason or verdict.rejected.reason}", False
