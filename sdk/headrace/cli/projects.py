"""Project files on the command line: which is meant, in which environment, and carrying it out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from headrace.cli.failures import CliError, ExitCode
from headrace.cli.output import say
from headrace.cli.prompts import ask, can_ask
from headrace.cli.scripts import load_flow
from headrace.client import get_client
from headrace.deployments.deploying import Deployed, Failed, Plan, deploy_entries
from headrace.deployments.project import (
    DeploymentEntry,
    Project,
    ProjectError,
    entry_error,
    load_project,
    long_form,
    merge,
)
from headrace.settings import get_current_settings

__all__ = [
    "Environment",
    "Names",
    "ProjectFile",
    "YesTo",
    "agree",
    "carry_out",
    "read_project",
    "with_options",
]

Names = Annotated[
    tuple[str, ...],
    Parameter(name=["--name", "-n"], help="Which: a name, flow/name, with * for any text. Repeatable."),
]
ProjectFile = Annotated[
    Path | None, Parameter(name=["--file", "--prefect-file"], help="The file, instead of headrace.yaml.")
]
Environment = Annotated[
    str | None,
    Parameter(
        name="--env",
        help="One of the file's environments, merged over each deployment; else the one that the settings "
        "name, DEPLOY_ENVIRONMENT.",
    ),
]
YesTo = Annotated[
    str | None, Parameter(name="--yes-to", help="Name of a protected environment, to deploy to it unasked.")
]


def read_project(path: Path, environment: str | None) -> Project:
    """A project file in an environment; if none is given, in the one that the settings name.

    Raises:
        ProjectError: every mistake in it.
    """
    usual = get_current_settings().deploy_environment
    return load_project(path, environment, os.environ, usual_environment=usual)


def agree(project: Project, yes_to: str | None) -> None:
    """Go on only if whoever deploys to a protected environment says its name.

    Raises:
        CliError: it was not said.
    """
    name = project.environment
    if yes_to is not None and yes_to != name:
        is_there = f"the environment is {name}" if name else "no environment is deployed"
        raise CliError(f"--yes-to {yes_to} is said, and {is_there}.", code=ExitCode.USAGE)
    if not project.is_protected or yes_to == name:
        return
    if not can_ask():
        raise CliError(f"The environment {name} is protected.", f"Say --yes-to {name}.", code=ExitCode.USAGE)
    if ask(f"The environment {name} is protected. Type its name to deploy to it") != name:
        raise CliError("Nothing was deployed.")


async def carry_out(
    project: Project,
    path: Path | None,
    entries: Sequence[DeploymentEntry],
    *,
    labels: Mapping[str, str] | None = None,
    dry_run: bool = False,
    report: Callable[[str], None] = say,
) -> list[Deployed | Failed]:
    """Deploy entries of a project file.

    Args:
        project: the file.
        path: of it; None: there is none, and the working folder counts.
        entries: which.
        labels: that each deployment gets besides.
        dry_run: say what would change, change nothing.
        report: told what is being done.
    """
    plan = Plan(
        project=project,
        folder=(path or Path.cwd() / "x").resolve().parent,
        variables=os.environ,
        load=load_flow,
        labels=labels or {},
        is_dry=dry_run,
        report=report,
    )
    async with get_client() as client:
        return await deploy_entries(client, entries, plan)


def with_options(entries: list[DeploymentEntry], options: dict[str, Any]) -> list[DeploymentEntry]:
    """The options of the command line over what the file says."""
    over = {key: value for key, value in options.items() if key != "entrypoint"}
    pool = get_current_settings().default_work_pool_name
    if over and len(entries) > 1:
        say(f"Several deployments are meant: {', '.join(sorted(over))} of the command line are left out.")
        over = {}
    filled: list[DeploymentEntry] = []
    for entry in entries:
        one: dict[str, Any] = merge(long_form(entry.model_dump(exclude_unset=True)), over)
        if pool and entry.work_pool.name is None:
            one = {**one, "work_pool": merge({"name": pool}, one.get("work_pool") or {})}
        try:
            filled.append(DeploymentEntry.model_validate(one))
        except ValidationError as error:
            raise entry_error(entry.name or "?", error) from None
        except ValueError as error:
            raise ProjectError(f"{entry.name}: {error}") from None
    return filled
