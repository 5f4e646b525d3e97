"""Deploying the entries of a project file: build, push, then tell the server.

One entry that fails does not keep the others from being deployed.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.core.errors import HeadraceException, ObjectNotFound
from headrace.deployments import versions
from headrace.deployments.messages import FlowFacts, deployment_message
from headrace.deployments.project import DeploymentEntry, Project, ProjectError
from headrace.deployments.steps import run_steps
from headrace.deployments.templating import find_placeholders, kept, outputs, resolve
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import ApplyDeploymentResponse

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.flows import Flow

__all__ = ["Deployed", "Failed", "Plan", "deploy_entries", "select"]

_CLONE: Final = "headrace.deployments.steps.git_clone"
_FOLDER: Final = "headrace.deployments.steps.set_working_directory"


@dataclass(frozen=True, slots=True)
class Deployed:
    """An entry that was deployed.

    Attributes:
        name: `flow/deployment`.
        response: what the server says.
    """

    name: str
    response: ApplyDeploymentResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """An entry that was not.

    Attributes:
        name: of the deployment.
        error: why.
    """

    name: str
    error: HeadraceException


@dataclass(slots=True)
class Plan:
    """What is to be deployed, and how.

    Attributes:
        project: the file.
        folder: it is in; entrypoints are relative to it.
        variables: of the environment.
        load: from an entrypoint to its flow.
        labels: that each deployment gets, beside those it has.
        is_dry: say what would change, change nothing; no step is run.
        report: told what is being done.
    """

    project: Project
    folder: Path
    variables: Mapping[str, str]
    load: Callable[[str], Flow[..., Any]]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    is_dry: bool = False
    report: Callable[[str], None] = field(default=lambda _: None)


def select(
    entries: Sequence[DeploymentEntry], patterns: Sequence[str]
) -> tuple[list[DeploymentEntry], list[str]]:
    """The entries that the names mean, in the order of the file, and a message for each name that means none.

    Args:
        entries: of the file.
        patterns: names, with `*`; or `flow/name`, where the flow is the entry's `flow_name` or the function
            of its entrypoint.
    """
    chosen = [entry for entry in entries if any(_is_meant(entry, pattern) for pattern in patterns)]
    missed = [pattern for pattern in patterns if not any(_is_meant(entry, pattern) for entry in entries)]
    names = [entry.name or "" for entry in entries]
    return chosen, [_no_match(pattern, names) for pattern in missed]


def _is_meant(entry: DeploymentEntry, pattern: str) -> bool:
    flow, _, name = pattern.rpartition("/")
    if flow:
        function = (entry.entrypoint or "").rpartition(":")[2].rpartition(".")[2]
        flows = {entry.flow_name or "", function, function.replace("_", "-")}
        if not any(fnmatch.fnmatchcase(one, flow) for one in flows):
            return False
    return fnmatch.fnmatchcase(entry.name or "", name)


def _no_match(pattern: str, names: list[str]) -> str:
    near = get_close_matches(pattern.rpartition("/")[2], names, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names) or 'none'}."
    return f"No deployment is called {pattern}. {hint}"


async def deploy_entries(
    client: HeadraceClient, entries: Sequence[DeploymentEntry], plan: Plan
) -> list[Deployed | Failed]:
    """Deploy each entry; an error of one is its outcome."""
    done: list[Deployed | Failed] = []
    for entry in entries:
        try:
            done.append(await _deploy(client, entry, plan))
        except HeadraceException as error:
            done.append(Failed(entry.name or "?", error))
    return done


async def _deploy(client: HeadraceClient, entry: DeploymentEntry, plan: Plan) -> Deployed:
    if not entry.name:
        raise ProjectError("a deployment without a name cannot be deployed: add `name:`, or say --name.")
    if not entry.entrypoint:
        raise ProjectError(f"{entry.name} has no entrypoint, such as flows/orders.py:orders.")
    flow = plan.load(entry.entrypoint)
    known: dict[str, Any] = {}
    for kind in ("build", "push"):
        steps = entry.steps(kind, plan.project)
        if steps and not plan.is_dry:
            plan.report(f"{entry.name}: {kind}")
            known = await run_steps(steps, known, report=lambda step: plan.report(f"  {step}"))
    if not plan.is_dry:
        entry = entry.with_outputs(known)
    said, paths = deployment_message(entry, _facts(flow, entry, plan), *_pull(entry, plan, known))
    if plan.labels:
        await _add_labels(client, said, paths, plan.labels)
    response = await client.apply_deployment(said, paths, dry_run=plan.is_dry)
    return Deployed(f"{said.flow_name}/{said.name}", response)


async def _add_labels(
    client: HeadraceClient, said: Deployment, paths: list[str], labels: Mapping[str, str]
) -> None:
    """Add labels to those of the entry, or, where it does not speak of any, to those on the server."""
    if "labels" not in paths:
        with contextlib.suppress(ObjectNotFound):
            said.labels.update((await client.get_deployment(f"{said.flow_name}/{said.name}")).labels)
        paths.append("labels")
    said.labels.update(labels)


def _facts(flow: Flow[..., Any], entry: DeploymentEntry, plan: Plan) -> FlowFacts:
    entrypoint = entry.entrypoint or ""
    file = plan.folder / entrypoint.partition(":")[0]
    content = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else entrypoint
    return FlowFacts(
        name=flow.name,
        entrypoint=entrypoint,
        parameter_schema=flow.parameters,
        description=flow.description or "",
        version=versions.infer_version(entry.version_type, plan.folder, plan.variables, content),
        is_durable=bool(flow.durable),
    )


def _pull(
    entry: DeploymentEntry, plan: Plan, known: Mapping[str, Any]
) -> tuple[list[dict[str, Any]] | None, str]:
    """The steps that fetch the code where the flow runs, and the path it is at then.

    What build and push steps have put out is filled in. Variables of the environment are not: those of the
    machine that runs the flow are meant, and secrets must not get into the record.
    """
    steps = entry.steps("pull", plan.project)
    if steps is not None:
        later = (kept("$", "headrace.", "prefect.", *_own_outputs(steps)), outputs(known))
        return resolve(steps, *later), ""
    origin = versions.git_origin(plan.folder)
    if origin is None:
        return [{_FOLDER: {"directory": str(plan.folder.resolve())}}], ""
    url, branch = origin
    return [{_CLONE: {"repository": url, "branch": branch}}], ""


def _own_outputs(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Placeholders for what the pull steps themselves put out."""
    ids = [str(options["id"]) for step in steps for options in step.values() if options and "id" in options]
    names = {found.name for found in find_placeholders(list(steps))}
    return [name for name in names if name.partition(".")[0] in ids or name == "directory"]
