"""`headrace deployment`: flows made runnable elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.json_format import ParseDict

from headrace.cli import text
from headrace.cli.applying import apply
from headrace.cli.as_json import enum_word, to_json
from headrace.cli.backfilling import backfill
from headrace.cli.candidates import work_pool_names
from headrace.cli.changed import changed
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.finding_deployments import (
    DeploymentArgument,
    DeploymentArguments,
    find_deployment,
    name_of,
)
from headrace.cli.following import follow_to_end
from headrace.cli.options import Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_json, emit_list, first, page_size, say
from headrace.cli.parameters import read_parameters
from headrace.cli.times import MAX_SPAN_SECONDS, span_seconds
from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.core.errors import FieldsInvalid
from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import Deployment, DeploymentStatus, DeploymentVersion
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest, DeploymentFilter

__all__ = ["apply", "backfill", "delete", "inspect", "ls", "pause", "resume", "rollback", "run", "versions"]


async def ls(
    *,
    flow: Annotated[
        tuple[str, ...], Parameter(name=["--flow", "--flow-name"], help="Only of this flow. Repeatable.")
    ] = (),
    name: Annotated[str, Parameter(help="Only those whose own or flow's name contains this text.")] = "",
    pool: Annotated[
        tuple[str, ...],
        Parameter(name=["--pool", "-p"], help="Only of this work pool.", completer=work_pool_names),
    ] = (),
    tag: Annotated[
        tuple[str, ...],
        Parameter(name=["--tag", "-t"], help="Only with this tag. Repeat for all of several."),
    ] = (),
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List deployments by flow and name."""
    listing: Listing[Deployment] = Listing(
        headers=("NAME", "VERSION", "POOL", "QUEUE", "SCHEDULES", "STATUS"),
        row=lambda found: (
            name_of(found),
            str(found.version_number),
            found.work_pool or "-",
            found.work_queue or "-",
            str(len(found.schedules)) if found.schedules else "-",
            _status(found),
        ),
        key=lambda found: found.id,
        json=to_json,
        none="No deployments.",
        shrink=("NAME", "POOL"),
    )
    filter = DeploymentFilter(flow_names=flow, name_contains=name, work_pools=pool, tags_all=tag)
    async with get_client() as client:
        found = client.iter_deployments(filter, page_size=page_size(limit))
        await emit_list(first(limit, found), listing, output, quiet=quiet)


async def inspect(deployment: DeploymentArgument, /, *, output: Output = "table") -> None:
    """Show everything about one deployment."""
    async with get_client() as client:
        found = await find_deployment(client, deployment)
    emit_document(to_json(found), lambda: _details(found), output)


async def run(
    deployment: DeploymentArgument,
    /,
    *,
    param: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--param", "-p"],
            help="A parameter as NAME=VALUE; the value is JSON if it can be, else text. Repeatable.",
        ),
    ] = (),
    params: Annotated[str | None, Parameter(help='Parameters as a JSON object; "-" reads stdin.')] = None,
    job_variable: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--job-variable", "-jv"],
            help="A job variable as NAME=VALUE, e.g. env.LEVEL=debug. Repeatable.",
        ),
    ] = (),
    start_in: Annotated[str, Parameter(help='How long from now, e.g. "90s" or "2 hours".')] = "",
    start_at: Annotated[
        str, Parameter(help="When, an ISO 8601 time; the machine's own zone if it names none.")
    ] = "",
    name: Annotated[str, Parameter(name=["--name", "--flow-run-name"], help="Of the run.")] = "",
    tag: Annotated[
        tuple[str, ...],
        Parameter(name=["--tag", "-t"], help="A tag, besides the deployment's. Repeatable."),
    ] = (),
    work_queue: Annotated[str, Parameter(help="Another queue of the deployment's work pool.")] = "",
    priority: Annotated[
        int | None, Parameter(validator=Number(gte=0, lte=9), help="From 0 to 9; 9 goes first.")
    ] = None,
    idempotency_key: Annotated[
        str, Parameter(help="Makes one run, however often it is asked for with the same key.")
    ] = "",
    watch: Annotated[bool, Parameter(negative="", help="Follow the run until it ends.")] = False,
    watch_timeout: Annotated[
        float | None,
        Parameter(validator=Number(gt=0), help="Stop following after this many seconds; the run goes on."),
    ] = None,
    output: Output = "table",
) -> int:
    """Ask for a run of a deployment.

    With --watch the exit code is 0 when the run has completed, 1 when it has ended otherwise, 124 when
    --watch-timeout has passed.
    """
    request = CreateDeploymentRunRequest(
        run_id=new_id(),
        name=name,
        parameters=json.dumps(read_parameters(param, params)),
        tags=tag,
        idempotency_key=idempotency_key,
        work_queue=work_queue,
        priority=priority,
    )
    if job_variable:
        ParseDict(read_parameters(job_variable, None), request.job_variables)
    start = _start(start_in, start_at, datetime.now(UTC))
    if start is not None:
        request.scheduled_time.FromDatetime(start)
    async with get_client() as client:
        found = await find_deployment(client, deployment)
        request.deployment.CopyFrom(deployment_key(found.id))
        try:
            answer = await client.create_deployment_run(request)
        except FieldsInvalid as error:
            lines = "".join(f"\n  {v.field}: {v.description}" for v in error.violations)
            raise CliError(
                f"The run does not fit deployment '{name_of(found)}':{lines or error}", code=ExitCode.USAGE
            ) from None
        made = answer.run
        when = text.local_time(made.next_scheduled_start_time)
        how = "is there already" if answer.existed else f"is scheduled for {when}"
        say(f"Flow run {made.name} ({made.id}) {how}.")
        if watch:
            return await follow_to_end(client, made, watch_timeout, output)
    if output == "table":
        print(made.id)
    else:
        emit_json(to_json(made), indent=2 if output == "json" else None)
    return ExitCode.OK


def _start(start_in: str, start_at: str, now: datetime) -> datetime | None:
    """When the run is to start; None: now.

    Raises:
        CliError: both are given, or one cannot be read.
    """
    if start_in and start_at:
        raise CliError("Give --start-in or --start-at, not both.", code=ExitCode.USAGE)
    if start_in:
        ahead = span_seconds(start_in)
        if ahead is None or ahead > MAX_SPAN_SECONDS:
            raise CliError(
                f"'{start_in}' is no length of time.", "Give e.g. 90s, 15m or 2 hours.", code=ExitCode.USAGE
            )
        return now + timedelta(seconds=ahead)
    if start_at:
        try:
            return datetime.fromisoformat(start_at.strip()).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            raise CliError(
                f"'{start_at}' is no time.",
                "Give e.g. 2026-11-20T08:00 or 2026-11-20T08:00+01:00.",
                code=ExitCode.USAGE,
            ) from None
    return None


async def versions(
    deployment: DeploymentArgument, /, *, limit: Limit = 50, output: Output = "table", quiet: Quiet = False
) -> None:
    """List the versions of a deployment, newest first."""
    now = datetime.now(UTC)
    listing: Listing[DeploymentVersion] = Listing(
        headers=("NUMBER", "VERSION", "DIGEST", "WHEN", "BY", "CHANGED"),
        row=lambda version: (
            str(version.number),
            version.deployment.version or "-",
            version.digest,
            text.age(version.create_time, now),
            version.created_by or "-",
            ", ".join(change.path for change in version.changes) or "-",
        ),
        key=lambda version: version.id,
        json=to_json,
        none="No versions.",
        shrink=("CHANGED",),
    )
    async with get_client() as client:
        found = await find_deployment(client, deployment)
        listed = client.iter_deployment_versions(found.id, page_size=page_size(limit))
        await emit_list(first(limit, listed), listing, output, quiet=quiet)


async def rollback(
    deployment: DeploymentArgument,
    /,
    *,
    to: Annotated[
        int, Parameter(validator=Number(gte=0), help="Number of the version; the one before if not given.")
    ] = 0,
    output: Output = "table",
) -> None:
    """Make a deployment what it was in an older version.

    That makes a new version. Runs that exist keep the one they were made with.
    """
    async with get_client() as client:
        found = await find_deployment(client, deployment)
        answer = await client.rollback_deployment(found.id, to)
    if output != "table":
        emit_json(to_json(answer), indent=2 if output == "json" else None)
    if not answer.changes:
        say(f"Deployment '{name_of(found)}' is that already: nothing changed.")
        return
    say(f"Deployment '{name_of(found)}' is at version {answer.deployment.version_number}. Changed:")
    for change in answer.changes:
        say(f"  {change.path}: {change.old_value or 'not set'} -> {change.new_value or 'not set'}")


async def pause(deployments: DeploymentArguments, /, *, output: Output = "table") -> None:
    """Let the schedules of deployments make no runs.

    Runs made by hand still start.
    """
    async with get_client() as client:
        with changed(output) as done:
            for found in [await find_deployment(client, word) for word in deployments]:
                done.append(await client.pause_deployment(found.id))
                say(f"Deployment '{name_of(found)}' is paused.")


async def resume(deployments: DeploymentArguments, /, *, output: Output = "table") -> None:
    """Let the schedules of deployments make runs again."""
    async with get_client() as client:
        with changed(output) as done:
            for found in [await find_deployment(client, word) for word in deployments]:
                done.append(await client.resume_deployment(found.id))
                say(f"Deployment '{name_of(found)}' goes on.")


async def delete(deployments: DeploymentArguments, /, *, yes: Yes = False, output: Output = "table") -> None:
    """Delete deployments with their schedules and every run that never started."""
    async with get_client() as client:
        found = [await find_deployment(client, word) for word in deployments]

        async def delete_one(thing: Doomed) -> int:
            return (await client.delete_deployment(thing.id)).deleted_runs

        doomed = [Doomed(deployment.id, name_of(deployment)) for deployment in found]
        await delete_each(
            doomed,
            "deployment",
            delete_one,
            along="its schedules and every run that never started",
            yes=yes,
            output=output,
        )


def _status(deployment: Deployment) -> str:
    if deployment.paused:
        return "paused"
    word = enum_word(DeploymentStatus.DESCRIPTOR, deployment.status) or "-"
    return word.replace("_", " ").lower()


def _details(found: Deployment) -> Sequence[tuple[str, str]]:
    now = datetime.now(UTC)
    where = "/".join(part for part in (found.work_pool, found.work_queue) if part)
    number = f"{found.version_number}{f' ({found.version})' if found.version else ''}"
    return [
        ("ID", found.id),
        ("Name", name_of(found)),
        ("Description", found.description),
        ("Version", number),
        ("Status", _status(found)),
        ("Work pool", where or "none: a process serves it"),
        ("Entrypoint", found.entrypoint),
        ("Path", found.path),
        ("Parameters", found.parameters),
        ("Tags", ", ".join(found.tags)),
        ("Labels", "\n".join(f"{key}={value}" for key, value in sorted(found.labels.items()))),
        ("Schedules", ", ".join(schedule.slug or schedule.id for schedule in found.schedules)),
        ("Limit", str(found.concurrency.limit) if found.HasField("concurrency") else "none"),
        ("Changed", f"{text.local_time(found.update_time)} ({text.age(found.update_time, now)})"),
    ]
