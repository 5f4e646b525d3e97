"""Deployments made in Python, for the workers of a pool: `flow.deploy`, `deploy`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.json_format import MessageToDict

from headrace.core.errors import ConfigurationError, ObjectNotFound
from headrace.core.job_templates import MANAGED
from headrace.deployments.sources import LocalStorage
from headrace.entrypoints import is_file
from headrace.execution.background import dispatched
from headrace.execution.server import server_for
from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient
    from headrace.deployments.declaring import RunnerDeployment
    from headrace.docker import DockerImage
    from headrace.v1.work_pool_pb2 import WorkPool

__all__ = ["adeploy", "deploy"]

_SEE_OUR_FILES: Final = ("process", MANAGED)


async def adeploy(
    *deployments: RunnerDeployment,
    work_pool_name: str | None = None,
    image: str | DockerImage | None = None,
    build: bool = True,
    push: bool = True,
    print_next_steps_message: bool = True,
    ignore_warnings: bool = False,
) -> list[str]:
    """Have deployments run by the workers of a pool. All are checked before the first is made.

    Args:
        deployments: made with `Flow.to_deployment`.
        work_pool_name: of those that name no pool themselves; default: setting `default_work_pool_name`.
        image: that their runs are started in, with the files of the current folder; None: whatever their job
            variables or the pool say.
        build: build the image, by the container engine of this machine; else it is taken as it is.
        push: push an image that was built, for workers of other machines.
        print_next_steps_message: say on standard error what there is now, and how to run it.
        ignore_warnings: take a flow of this machine's files for a pool whose workers may not see them.

    Returns:
        Their ids, in their order.

    Raises:
        ConfigurationError: no pool is named.
        ObjectNotFound: there is no such pool.
        ValueError: no deployment is given, the pool's workers could not find the code of one, or its runs
            are not started in images.
        ImageFailed: the image cannot be built or pushed.
        ParametersInvalid: parameters do not fit the flow.
        ServerUnavailable: there is no server, and none can be started.
    """
    if not deployments:
        raise ValueError("Name at least one deployment, as Flow.to_deployment makes it.")
    usual = work_pool_name or get_current_settings().default_work_pool_name or ""
    wanted = [replace(one, work_pool_name=one.work_pool_name or usual) for one in deployments]
    for one in wanted:
        if not one.work_pool_name:
            raise ConfigurationError(
                f"No work pool is named for deployment '{one.name}': give work_pool_name, or set "
                "HEADRACE_DEFAULT_WORK_POOL_NAME. A flow that runs without a pool is served: flow.serve()."
            )
    async with server_for("Deploying a flow") as client:
        pools = {name: await _pool(client, name) for name in {one.work_pool_name for one in wanted}}
        if image is not None:
            wanted = [_in_image(one, pools[one.work_pool_name]) for one in wanted]
        ready = [
            one if image is not None else _reachable(one, pools[one.work_pool_name], ignore_warnings)
            for one in wanted
        ]
        if image is not None:
            reference = await _provided(image, build, push)
            ready = [replace(one, job_variables={**one.job_variables, "image": reference}) for one in ready]
        messages = [(one.to_message(), one.paths) for one in ready]
        ids = [(await client.apply_deployment(*message)).deployment.id for message in messages]
    if print_next_steps_message:
        _print_next_steps(ready, pools)
    return ids


def deploy(
    *deployments: RunnerDeployment,
    work_pool_name: str | None = None,
    image: str | DockerImage | None = None,
    build: bool = True,
    push: bool = True,
    print_next_steps_message: bool = True,
    ignore_warnings: bool = False,
) -> list[str]:
    """Have deployments run by the workers of a pool; see `adeploy`."""
    return dispatched(
        adeploy(
            *deployments,
            work_pool_name=work_pool_name,
            image=image,
            build=build,
            push=push,
            print_next_steps_message=print_next_steps_message,
            ignore_warnings=ignore_warnings,
        )
    )


async def _pool(client: HeadraceClient, name: str) -> WorkPool:
    """The pool.

    Raises:
        ObjectNotFound: there is none; the message names the nearest.
    """
    try:
        return await client.get_work_pool(name)
    except ObjectNotFound as error:
        near = get_close_matches(name, [pool.name async for pool in client.iter_work_pools()], 1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Make it: headrace work-pool create {name}"
        raise ObjectNotFound(f"There is no work pool '{name}'. {hint}", facts=error.facts) from None


def _in_image(deployment: RunnerDeployment, pool: WorkPool) -> RunnerDeployment:
    """The deployment with its code where it is in an image of the current folder: in the image's own folder.

    Raises:
        ValueError: the pool's runs are not started in images, or the code is not below the current folder.
    """
    if "image" not in _variables(pool):
        raise ValueError(
            f"Runs of pool '{pool.name}', of type {pool.type}, are not started in images: leave `image` out, "
            "or name a pool of Docker or Kubernetes workers."
        )
    if deployment.storage is not None or not is_file(deployment.entrypoint.rpartition(":")[0]):
        return replace(deployment, path="")
    file, _, name = deployment.entrypoint.rpartition(":")
    path = (Path(deployment.path) / file).resolve()
    if not path.is_relative_to(Path.cwd()):
        raise ValueError(
            f"Flow '{deployment.flow_name}' is in {path}, and images have the files below the folder "
            f"{Path.cwd()}: deploy it from the folder of its project."
        )
    return replace(deployment, path="", entrypoint=f"{path.relative_to(Path.cwd()).as_posix()}:{name}")


def _variables(pool: WorkPool) -> Collection[str]:
    """The job variables of a pool."""
    if not pool.base_job_template.fields:
        from headrace.core.job_templates import base_job_template

        template = base_job_template(pool.type)
    else:
        template = MessageToDict(pool.base_job_template)
    properties: dict[str, object] = template.get("variables", {}).get("properties", {})
    return properties.keys()


async def _provided(image: str | DockerImage, build: bool, push: bool) -> str:
    """The image's name, once it is where workers find it."""
    if isinstance(image, str):
        if not build:
            return image
        from headrace.docker import DockerImage

        image = DockerImage(image)
    if build:
        await image.abuild()
        if push:
            await image.apush()
    return image.reference


def _reachable(deployment: RunnerDeployment, pool: WorkPool, ignore_warnings: bool) -> RunnerDeployment:
    """The deployment as the pool's workers can run it.

    Raises:
        ValueError: its code is in files of this machine, which they may not see.
    """
    if pool.type in _SEE_OUR_FILES or ignore_warnings:
        return deployment
    if deployment.storage is None and not is_file(deployment.entrypoint.rpartition(":")[0]):
        # The module is part of the image, and our folder is not.
        return replace(deployment, path="")
    if deployment.storage is None or isinstance(deployment.storage, LocalStorage):
        raise ValueError(
            f"Workers of pool '{pool.name}', of type {pool.type}, do not see the files of this machine, "
            f"where flow '{deployment.flow_name}' is. Take it from a repository or an object store with "
            'flow.from_source, name its module with entrypoint_type="module", or say ignore_warnings=True.'
        )
    return deployment


def _print_next_steps(deployments: Sequence[RunnerDeployment], pools: Mapping[str, WorkPool]) -> None:
    for one in deployments:
        print(f"Deployed {one.flow_name}/{one.name} to pool {one.work_pool_name}.", file=sys.stderr)
    first = deployments[0]
    lines = [f"  headrace deployment run {first.flow_name}/{first.name}"]
    if pools[first.work_pool_name].type != MANAGED:
        start = f"  headrace worker start --pool {first.work_pool_name}     # if none is there"
        lines.insert(0, start)
    print("\n".join(lines), file=sys.stderr)
