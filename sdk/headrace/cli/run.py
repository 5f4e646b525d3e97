"""`headrace run`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from headrace.cli.execution import execute, execute_again
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output
from headrace.cli.parameters import check_parameters, read_parameters
from headrace.cli.scripts import load_flow

__all__ = ["run"]


def run(
    entrypoint: Annotated[
        str,
        Parameter(
            name="FLOW",
            help="path/file.py:flow or package.module:flow; the name may be left out when there is one flow.",
        ),
    ],
    /,
    *,
    param: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--param", "-p"],
            allow_leading_hyphen=True,
            help="NAME=VALUE for a parameter: JSON if VALUE is JSON, else text. Repeatable.",
        ),
    ] = (),
    params: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True, help="All parameters as one JSON object; - reads it from stdin."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        Parameter(
            name="--resume",
            help="Take this flow run (an id, its beginning, or a name) up again, instead of starting one.",
        ),
    ] = None,
    force: Annotated[
        bool,
        Parameter(
            negative="", help="With --resume: also from a process that may still be executing the run."
        ),
    ] = False,
    name: Annotated[str | None, Parameter(help="Name of the flow run.")] = None,
    tag: Annotated[
        tuple[str, ...], Parameter(name=["--tag", "-t"], help="A tag for the run. Repeatable.")
    ] = (),
    output: Output = "table",
) -> int:
    """Run a flow in this process.

    The exit code is 0 when it has completed, else 1. Ctrl-C ends the run as Crashed. The run can be looked
    at afterwards: a server for this home is started if there is none. -o json prints the flow run.

    --resume runs the body of a run that crashed, failed or was cancelled again, under the same id and with
    its parameters, those given here apart. Of a durable flow, steps that have completed do not run again.
    """
    given = read_parameters(param, params)
    if resume is None and force:
        raise CliError("--force goes with --resume.", code=ExitCode.USAGE)
    if resume is not None and (name is not None or tag):
        raise CliError("A run that is resumed keeps its name and its tags.", code=ExitCode.USAGE)
    flow = load_flow(entrypoint)
    if resume is not None:
        return execute_again(flow, resume, given, force=force, output=output)
    check_parameters(flow, given)
    return execute(flow, given, name=name, tags=tag, output=output)
