"""The process that applies the project file of the folder it is started in: `python -m` this, with an order.

It imports the code that was pushed, which may do anything: print, exit, crash. So its outcome goes to a file,
and what is printed is for whoever reads the log.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.cli.deployed import describe, reason
from headrace.cli.failures import CliError, ExitCode, explain
from headrace.cli.projects import agree, carry_out, read_project, with_options
from headrace.client import get_client
from headrace.core.errors import HeadraceException
from headrace.deployments.deploying import Deployed, Failed, select
from headrace.deployments.project import DeploymentEntry, Project, find_project

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.v1.deployment_pb2 import Deployment

__all__ = ["LABEL", "Order", "Outcome", "main"]

LABEL: Final = "headrace.git-sync"
"""Label of the deployments that a sync has made; its value is the sync's id."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        sync_id: of the sync.
        outcome_path: where the outcome is written.
        environment: of the project file; empty: none.
        names: which deployments; none: all.
        prune: delete what the sync has made and the file has no more.
        yes_to: the protected environment that is meant; empty: none.
    """

    sync_id: str
    outcome_path: str
    environment: str = ""
    names: Sequence[str] = ()
    prune: bool = False
    yes_to: str = ""


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        failures: each with its reason; none: all was applied.
        deployments: `name`, `outcome` and what belongs to that.
    """

    failures: list[str] = field(default_factory=list[str])
    deployments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def main() -> int:
    """Apply, and write the outcome."""
    order = Order(**json.loads(sys.argv[1]))
    try:
        outcome = asyncio.run(_apply(order))
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        if isinstance(error, CliError) and error.detail:
            print(error.detail.rstrip("\n"))
        outcome = Outcome([told[0]])
    fresh = Path(f"{order.outcome_path}.new")
    fresh.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    fresh.replace(order.outcome_path)
    return ExitCode.FAILED if outcome.failures else ExitCode.OK


async def _apply(order: Order) -> Outcome:
    folder = Path.cwd()
    path = find_project(folder)
    if path is None:
        raise CliError("There is no headrace.yaml in this folder of the repository.")
    project = read_project(path, order.environment or None)
    agree(project, order.yes_to or None)
    entries, missed = project.deployments, list[str]()
    if order.names:
        entries, missed = select(entries, order.names)
    if not project.deployments:
        raise CliError(f"{path.name} has no deployments.")
    wanted = with_options(list(entries), {})
    done = await carry_out(project, path, wanted, labels={LABEL: order.sync_id}, report=print)
    outcome = Outcome(missed + [f"{one.name}: {reason(one)}" for one in done if isinstance(one, Failed)])
    for one in done:
        print("\n".join(describe(one)))
        outcome.deployments.append(_document(one))
    if not outcome.failures:
        async with get_client() as client:
            gone = await _no_longer_there(client, order.sync_id, project, entries, done)
            outcome.deployments += [await _let_go(client, one, order.prune) for one in gone]
    return outcome


def _document(one: Deployed | Failed) -> dict[str, Any]:
    if isinstance(one, Failed):
        return {"name": one.name, "outcome": "failed", "error": reason(one)}
    changed = [] if one.response.created else sorted({change.path for change in one.response.changes})
    return {
        "name": one.name,
        "outcome": "created" if one.response.created else "changed" if changed else "unchanged",
        "version_number": one.response.deployment.version_number,
        # Without their values: who may ask how the sync is need not be one who may see those.
        "changed_fields": changed,
    }


async def _no_longer_there(
    client: HeadraceClient,
    sync_id: str,
    project: Project,
    entries: Sequence[DeploymentEntry],
    done: Sequence[Deployed | Failed],
) -> list[Deployment]:
    """The deployments of the sync that the file has no more; what `names` leaves out it still has."""
    applied = {one.name for one in done}
    left_out = {entry.name for entry in project.deployments if entry not in entries}
    return [
        deployment
        async for deployment in client.iter_deployments()
        if deployment.labels.get(LABEL) == sync_id
        and f"{deployment.flow_name}/{deployment.name}" not in applied
        and deployment.name not in left_out
    ]


async def _let_go(client: HeadraceClient, deployment: Deployment, prune: bool) -> dict[str, Any]:
    name = f"{deployment.flow_name}/{deployment.name}"
    if not prune:
        print(f"{name}: no longer in the file, and kept; --prune deletes what is not")
        return {"name": name, "outcome": "kept"}
    try:
        runs = (await client.delete_deployment(deployment.id)).deleted_runs
    except HeadraceException as error:
        print(f"{name}: no longer in the file, and could not be deleted: {error}")
        return {"name": name, "outcome": "kept", "error": str(error)}
    print(f"{name}: no longer in the file: deleted, with {runs} runs that had not begun")
    return {"name": name, "outcome": "deleted"}


if __name__ == "__main__":
    sys.exit(main())
