"""Which deployment is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from headrace.cli.candidates import deployment_names
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.output import first
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import is_id
from headrace.core.limits import PAGE_SIZE_MAX
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import DeploymentFilter

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = ["DeploymentArgument", "DeploymentArguments", "find_deployment", "name_of"]

DeploymentArgument = Annotated[
    str,
    Parameter(
        name="DEPLOYMENT",
        help="The deployment: flow-name/deployment-name, its own name if no other has it, or its id.",
        completer=deployment_names,
    ),
]
DeploymentArguments = Annotated[
    tuple[str, ...],
    Parameter(
        name="DEPLOYMENT", help="Deployments: flow-name/deployment-name, or ids.", completer=deployment_names
    ),
]


async def find_deployment(client: HeadraceClient, word: str) -> Deployment:
    """The deployment that the word means.

    Raises:
        CliError: there is none, or more than one.
    """
    if is_id(word.lower()) or "/" in word:
        try:
            return await client.get_deployment(word.lower() if is_id(word.lower()) else word)
        except ObjectNotFound:
            raise await _none(client, word) from None
    found = [d async for d in first(6, client.iter_deployments(DeploymentFilter(names=[word])))]
    if not found:
        raise await _none(client, word)
    if len(found) > 1:
        named = ", ".join(name_of(deployment) for deployment in found)
        raise CliError(
            f"'{word}' means more than one deployment: {named}.", "Name the flow too.", code=ExitCode.USAGE
        )
    return found[0]


async def _none(client: HeadraceClient, word: str) -> CliError:
    listed = first(PAGE_SIZE_MAX, client.iter_deployments(page_size=PAGE_SIZE_MAX))
    hint = nearest(word, [name_of(deployment) async for deployment in listed])
    return CliError(
        f"There is no deployment '{word}'.", hint or "See `headrace deployment ls`.", code=ExitCode.NOT_FOUND
    )


def name_of(deployment: Deployment) -> str:
    """How it is named to people."""
    return f"{deployment.flow_name}/{deployment.name}"
