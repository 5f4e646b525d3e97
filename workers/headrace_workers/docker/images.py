"""Having the image of a container on the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiodocker.exceptions import DockerError

from headrace.core.errors import HeadraceException
from headrace.docker.engine import registry_auth
from headrace_workers.docker.configuration import DockerJobConfiguration

__all__ = ["ImageUnavailable", "provide_image"]

_NOT_FOUND: Final = 404


class ImageUnavailable(HeadraceException):
    """There is no such image, or it may not be pulled."""


async def provide_image(
    engine: Any, configuration: DockerJobConfiguration, tell: Callable[[str], None]
) -> None:
    """Pull the image of a container, if its policy wants that.

    Raises:
        ImageUnavailable: it is not there now.
        DockerError: the engine is in trouble.
    """
    image, policy = configuration.image_name, configuration.pull_policy
    if policy in ("IfNotPresent", "Never") and await _is_there(engine, image):
        return
    if policy == "Never":
        raise ImageUnavailable(
            f"The image {image} is not there, and image_pull_policy Never does not pull it."
        )
    credentials = configuration.registry_credentials
    tell(f"Pulling the image {image}.")
    try:
        await _pull(engine, image, credentials.as_auth(image) if credentials else registry_auth(image))
    except DockerError as error:
        if policy == "IfPossible" and await _is_there(engine, image):
            return
        raise ImageUnavailable(f"The image {image} cannot be pulled: {error.message}") from None


async def _is_there(engine: Any, image: str) -> bool:
    try:
        await engine.images.inspect(image)
    except DockerError as error:
        if error.status == _NOT_FOUND:
            return False
        raise
    return True


async def _pull(engine: Any, image: str, auth: dict[str, str] | None) -> None:
    if auth is not None and "/" not in image:
        image = f"docker.io/library/{image}"  # whoever says who he is says to whom
    pulled = engine.images.pull(image, auth=auth, stream=True)
    async for _ in pulled:  # an error in it is raised
        pass
