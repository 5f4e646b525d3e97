"""`headrace diff`: what deploying would change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headrace.cli.deployed import show
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output
from headrace.cli.output import say
from headrace.cli.projects import (
    Environment,
    Names,
    ProjectFile,
    carry_out,
    read_project,
    with_options,
)
from headrace.deployments.deploying import Failed, select
from headrace.deployments.project import ProjectError, find_project

__all__ = ["diff"]


async def diff(
    *,
    name: Names = (),
    file: ProjectFile = None,
    env: Environment = None,
    exit_code: Annotated[bool, Parameter(help="Exit with 1 if anything would change.")] = False,
    output: Output = "table",
) -> int:
    """Show what deploying headrace.yaml would change; nothing is changed.

    No build or push step is run: what those would put out is shown as its placeholder.
    """
    path = file or find_project(Path.cwd())
    if path is None:
        raise CliError("There is no headrace.yaml here.", "See `headrace init --help`.", code=ExitCode.USAGE)
    try:
        project = read_project(path, env)
        entries, missed = select(project.deployments, name) if name else (project.deployments, [])
        entries = with_options(list(entries), {})
    except ProjectError as error:
        raise CliError(str(error), code=ExitCode.USAGE) from None
    done = await carry_out(project, path, entries, dry_run=True)
    show(done, True, output)
    for message in missed:
        say(message)
    if missed or any(isinstance(one, Failed) for one in done):
        return ExitCode.FAILED
    differs = any(
        not isinstance(one, Failed) and (one.response.created or one.response.changes) for one in done
    )
    return ExitCode.FAILED if exit_code and differs else ExitCode.OK
