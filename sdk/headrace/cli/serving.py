"""`headrace flow serve`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.failures import CliError, ExitCode
from headrace.cli.scripts import load_flow

__all__ = ["serve"]


def serve(
    entrypoint: Annotated[
        str, Parameter(name="FLOW", help="path/file.py:flow, package.module:flow or package.module.flow.")
    ],
    /,
    *,
    name: Annotated[str, Parameter(name=["--name", "-n"], help="Of the deployment; else the flow's.")] = "",
    description: Annotated[str | None, Parameter(help="For people; else the flow's.")] = None,
    version: Annotated[str | None, Parameter(name=["--version", "-v"], help="Any text.")] = None,
    tag: Annotated[
        tuple[str, ...], Parameter(name=["--tag", "-t"], help="A tag of its runs. Repeatable.")
    ] = (),
    fairness_key: Annotated[
        str | None,
        Parameter(help="Runs of equal keys take turns with those of others, e.g. '{{ parameters.tenant }}'."),
    ] = None,
    cron: Annotated[str | None, Parameter(help="When runs are made, such as '0 9 * * MON-FRI'.")] = None,
    interval: Annotated[
        float | None, Parameter(validator=Number(gte=1), help="Seconds between runs, instead.")
    ] = None,
    anchor_date: Annotated[
        str | None, Parameter(help="An ISO 8601 instant that the series of an interval goes through.")
    ] = None,
    rrule: Annotated[str | None, Parameter(help="A recurrence rule, instead.")] = None,
    timezone: Annotated[str | None, Parameter(help="Of the schedule, such as Europe/Oslo; else UTC.")] = None,
    pause_on_shutdown: Annotated[
        bool, Parameter(negative="--no-pause-on-shutdown", help="Pause the deployment at the end.")
    ] = True,
    limit: Annotated[
        int | None, Parameter(name=["--limit", "-l"], validator=Number(gte=1), help="Runs at once, here.")
    ] = None,
    global_limit: Annotated[
        int | None, Parameter(validator=Number(gte=1), help="Runs at once, wherever they run.")
    ] = None,
) -> None:
    """Serve a flow as a deployment, until told to stop.

    Each run has a process of its own. Ctrl-C lets those that run end.
    """
    from headrace.runner import RunnerDeployment
    from headrace.runner import serve as serve_deployments
    from headrace.schedules import Schedule

    flow = load_flow(entrypoint)
    schedule = None
    if cron is not None or interval is not None or rrule is not None:
        try:
            schedule = Schedule(
                cron=cron,
                interval=None if interval is None else timedelta(seconds=interval),
                rrule=rrule,
                timezone=timezone,
                anchor_date=None if anchor_date is None else datetime.fromisoformat(anchor_date),
            )
        except ValueError as error:
            raise CliError(f"The schedule makes no sense: {error}.", code=ExitCode.USAGE) from None
    elif timezone is not None or anchor_date is not None:
        raise CliError(
            "--timezone and --anchor-date belong to a schedule.",
            "Give --cron, --interval or --rrule.",
            code=ExitCode.USAGE,
        )
    deployment = RunnerDeployment.from_flow(
        flow,
        name or flow.name,
        schedule=schedule,
        concurrency_limit=global_limit,
        description=description,
        tags=tag,
        fairness_key=fairness_key,
        version=version,
    )
    if ":" in entrypoint:
        deployment = replace(deployment, entrypoint=entrypoint)
    serve_deployments(deployment, pause_on_shutdown=pause_on_shutdown, limit=limit)
