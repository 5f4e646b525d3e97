"""`headrace flow-run pause`, `resume` and `suspend`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError
from headrace.cli.options import FlowRunArgument, Format, Output
from headrace.cli.output import emit_json, say
from headrace.cli.parameters import read_parameters
from headrace.cli.prompts import can_ask, read_line
from headrace.cli.selecting import find_run
from headrace.cli.text import clean
from headrace.client import get_client
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import RunKind
from headrace.v1.run_service_pb2 import ListRunInputsRequest, PauseRunRequest, ResumeRunRequest

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.run_pb2 import Run
    from headrace.v1.run_service_pb2 import ProposeStateResponse

__all__ = ["pause", "resume", "suspend"]

_Timeout = Annotated[
    float | None,
    Parameter(help="Seconds after which the run fails unless it is resumed.", validator=Number(gte=0)),
]


async def resume(
    flow_run: FlowRunArgument,
    /,
    *,
    param: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--param", "-p"],
            help="A field of what the run asks for, as NAME=VALUE; a VALUE that is JSON is taken as JSON. "
            "Repeatable.",
        ),
    ] = (),
    input: Annotated[
        str | None,
        Parameter(help="All that the run asks for, as a JSON object; - reads it from standard input."),
    ] = None,
    output: Output = "table",
) -> None:
    """Let a paused flow run go on, with what it asks for."""
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        answer = read_parameters(param, input)
        if not param and input is None and run.state.paused.input_keyset and can_ask():
            answer = await _asked(client, run)
        request = ResumeRunRequest(run_id=run.id, state_id=new_id(), input=json.dumps(answer))
        _obey(run, await client.resume_run(request), "resumed")
        await _tell(client, run, f"Flow run {clean(run.name)} goes on.", output)


async def pause(flow_run: FlowRunArgument, /, *, timeout: _Timeout = None, output: Output = "table") -> None:
    """Have a flow run begin no further task until it is resumed.

    Tasks that run go on, and the process stays.
    """
    await _pause(flow_run, timeout, output, suspend=False)


async def suspend(
    flow_run: FlowRunArgument, /, *, timeout: _Timeout = None, output: Output = "table"
) -> None:
    """Have a flow run of a deployment leave its process until it is resumed."""
    await _pause(flow_run, timeout, output, suspend=True)


async def _pause(flow_run: str, timeout: float | None, output: Format, *, suspend: bool) -> None:
    async with get_client() as client:
        run = await find_run(client, flow_run, RunKind.RUN_KIND_FLOW)
        request = PauseRunRequest(run_id=run.id, state_id=new_id(), pause_key=new_id(), suspend=suspend)
        if timeout is not None:
            request.timeout.FromTimedelta(timedelta(seconds=timeout))
        _obey(run, await client.pause_run(request), "suspended" if suspend else "paused")
        what = "suspended: it leaves its process at" if suspend else "paused: it waits before"
        await _tell(client, run, f"Flow run {clean(run.name)} is {what} its next task.", output)


def _obey(run: Run, verdict: ProposeStateResponse, past: str) -> None:
    """Raise what stands against it, if something does."""
    if not verdict.HasField("accepted"):
        reason = verdict.rejected.reason or verdict.abort.reason or verdict.wait.reason
        raise CliError(f"Flow run {clean(run.name)} cannot be {past}: {reason}")


async def _tell(client: HeadraceClient, run: Run, text: str, output: Format) -> None:
    if output == "table":
        say(text)
        return
    emit_json(to_json(await client.get_run(run.id)), indent=2 if output == "json" else None)


# What a paused run asks for, asked of the person at the terminal


async def _asked(client: HeadraceClient, run: Run) -> dict[str, Any]:
    keyset = run.state.paused.input_keyset
    keys = [f"{keyset}-{part}" for part in ("schema", "description")]
    found = await client.list_run_inputs(ListRunInputsRequest(run_id=run.id, keys=keys))
    said = {kept.key: json.loads(kept.value) for kept in found.inputs}
    if keys[1] in said:
        say(clean(str(said[keys[1]])))
    schema = said.get(keys[0])
    if not isinstance(schema, Mapping):
        return {}
    rules = cast("Mapping[str, Any]", schema)
    required = set(cast("list[str]", rules.get("required", ())))
    fields: Mapping[str, Any] = rules.get("properties", {})
    answer: dict[str, Any] = {}
    for name, field in fields.items():
        given = _ask(name, field, is_required=name in required)
        if given is not None:
            answer[name] = given[0]
    return answer


def _ask(name: str, field: Mapping[str, Any], *, is_required: bool) -> tuple[Any] | None:
    """What the person gives for one field; None: nothing, so that its default holds."""
    if field.get("description"):
        say(f"  {clean(str(field['description']))}")
    default = f" [{json.dumps(field['default'])}]" if "default" in field else ""
    while True:
        line = read_line(f"{clean(name)}{_kind(field)}{default}: ")
        if not line:
            raise CliError("Nothing was changed: the answer ended too early.")
        typed = line.rstrip("\n")
        if typed:
            return (_value(typed, field),)
        if not is_required:
            return None
        say(f"{clean(name)} is required.")


def _kind(field: Mapping[str, Any]) -> str:
    choices = field.get("enum")
    if choices:
        return f" ({', '.join(json.dumps(choice) for choice in choices)})"
    return f" ({field['type']})" if isinstance(field.get("type"), str) else ""


def _value(typed: str, field: Mapping[str, Any]) -> Any:
    """Text where text is asked for; else what it says as JSON, or the text."""
    if field.get("type") == "string":
        return typed
    try:
        return json.loads(typed)
    except ValueError:
        return typed
