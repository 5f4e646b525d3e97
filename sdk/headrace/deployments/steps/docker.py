"""Steps that build and push images, with the container engine of the machine that deploys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import anyio

from headrace.docker.building import BuildBackend
from headrace.docker.images import DockerImage

__all__ = ["build_docker_image", "push_docker_image"]

_done: Final[dict[str, dict[str, Any]]] = {}
"""What steps of this process have put out, by what they were asked: deployments of one file that build the
same image build it once, and run in the same."""


async def build_docker_image(
    image_name: str,
    dockerfile: str = "Dockerfile",
    tag: str | None = None,
    additional_tags: Sequence[str] | None = None,
    ignore_cache: bool = False,
    persist_dockerfile: bool = False,
    dockerfile_output_path: str = "Dockerfile.generated",
    build_backend: str = "engine",
    **build_kwargs: Any,
) -> dict[str, Any]:
    """Build an image from the files of the current folder.

    The same step is taken once in a process: another deployment that asks for the same gets the same image.

    Args:
        image_name: `repository` or `registry/repository`. Without a `/`, the setting
            `default_docker_build_namespace` stands before it.
        dockerfile: path of one; `auto`: one that puts the folder, and what its `requirements.txt` names, on
            top of headrace's own image.
        tag: of the image; unset: the time.
        additional_tags: further ones.
        ignore_cache: build even if this process has taken the same step.
        persist_dockerfile: keep the Dockerfile that `auto` has made.
        dockerfile_output_path: where.
        build_backend: `engine`, which `docker-py` means too, or `buildx`.
        build_kwargs: `path` of the folder, and what `headrace.docker.building.BuildOptions` has.

    Returns:
        `image_name`, `tag`, `image` (name and tag), `image_id`, `additional_tags`.

    Raises:
        ImageFailed: it cannot be built.
        ConfigurationError: there is no engine.
        FileNotFoundError: there is no such Dockerfile.
        TypeError, ValueError: options that are none, or exclude each other.
    """
    if persist_dockerfile and dockerfile != "auto":
        raise ValueError("persist_dockerfile keeps what `dockerfile: auto` makes; here there is one already.")
    asked = _key("build", {**locals(), "ignore_cache": None})
    if asked in _done and not ignore_cache:
        return _done[asked]
    backend = "engine" if build_backend == "docker-py" else build_backend
    image = DockerImage(
        image_name,
        tag,
        dockerfile,
        additional_tags=additional_tags or (),
        path=build_kwargs.pop("path", None),
        build_backend=cast("BuildBackend", backend),
        **build_kwargs,
    )
    if persist_dockerfile:
        await anyio.Path(dockerfile_output_path).write_text(image.generated_dockerfile() or "")
    image_id = await image.abuild()
    _done[asked] = {**_outputs(image), "image_id": image_id}
    return _done[asked]


async def push_docker_image(
    image_name: str,
    tag: str | None = None,
    credentials: Mapping[str, str] | None = None,
    additional_tags: Sequence[str] | None = None,
    ignore_cache: bool = False,
) -> dict[str, Any]:
    """Push an image to its registry. The same step is taken once in a process.

    Args:
        image_name: `repository` or `registry/repository`, as `build_docker_image` takes it and puts it out.
        tag: of the image; unset: `latest`.
        credentials: `username`, `password` and, if it is not in the name, `registry_url`; unset: whoever
            `docker login` has noted.
        additional_tags: to push as well.
        ignore_cache: push even if this process has taken the same step.

    Returns:
        `image_name`, `tag`, `image` (name and tag), `additional_tags`.

    Raises:
        ImageFailed: the registry does not take it.
        ConfigurationError: there is no engine.
        ValueError: the credentials are not complete.
    """
    asked = _key("push", {**locals(), "ignore_cache": None})
    if asked in _done and not ignore_cache:
        return _done[asked]
    if tag is None and ":" not in image_name.rpartition("/")[2]:
        tag = "latest"
    image = DockerImage(image_name, tag, additional_tags=additional_tags or ())
    await image.apush(credentials)
    _done[asked] = _outputs(image)
    return _done[asked]


def _key(step: str, arguments: Mapping[str, Any]) -> str:
    """What makes two steps the same: what is said, and where."""
    around = [str(Path.cwd()), os.environ.get("DOCKER_HOST")]
    return json.dumps([step, arguments, around], sort_keys=True, default=str)


def _outputs(image: DockerImage) -> dict[str, Any]:
    return {
        "image_name": image.name,
        "tag": image.tag,
        "image": image.reference,
        "additional_tags": image.additional_tags,
    }
