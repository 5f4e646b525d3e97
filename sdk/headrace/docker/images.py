"""Images with the code of flows, built and pushed by the container engine of this machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.core.errors import HeadraceException
from headrace.docker.context import DOCKERFILE, default_dockerfile, pack
from headrace.docker.engine import engine_error, open_engine, registry_auth
from headrace.docker.names import default_image
from headrace.execution.background import dispatched

__all__ = ["DockerImage", "ImageFailed"]


class ImageFailed(HeadraceException):
    """An image could not be built or pushed; the message is the engine's."""


class DockerImage:
    """An image that is built from the files of the current folder.

    Args:
        name: `repository`, `registry/repository` or either with `:tag`.
        tag: of the image, if `name` has none; default: the time.
        dockerfile: path of one in the current folder; "auto": one that puts the folder, and what its
            `requirements.txt` names, on top of headrace's own image.
        buildargs: values of the Dockerfile's arguments.
        labels: of the image.
        platform: such as `linux/amd64`; default: the engine's.
        nocache: build every layer anew.
        pull: look for a newer image to build upon.

    Attributes:
        name: without the tag.
        tag: of the image.

    Raises:
        ValueError: there are two tags.
    """

    def __init__(
        self,
        name: str,
        tag: str | None = None,
        dockerfile: str | Path = "auto",
        *,
        buildargs: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        nocache: bool = False,
        pull: bool = False,
    ) -> None:
        folder, slash, last = name.rpartition("/")
        last, colon, own_tag = last.partition(":")
        if colon and tag:
            raise ValueError(f"The image has two tags: '{own_tag}' in its name, and '{tag}'.")
        self.name = f"{folder}{slash}{last}"
        self.tag = own_tag or tag or datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        self._dockerfile = dockerfile
        self._options: dict[str, Any] = {
            "buildargs": dict(buildargs) if buildargs else None,
            "labels": dict(labels) if labels else None,
            "platform": platform,
            "nocache": nocache,
            "pull": pull,
        }

    @property
    def reference(self) -> str:
        """Name and tag: what a job variable `image` says."""
        return f"{self.name}:{self.tag}"

    def build(self) -> None:
        """Build it; what the engine says goes to standard error.

        Raises:
            ImageFailed: the engine cannot build it.
            ConfigurationError: there is no engine.
            FileNotFoundError: there is no such Dockerfile.
        """
        dispatched(self.abuild())

    def push(self) -> None:
        """Push it to its registry, as whoever `docker login` has noted.

        Raises:
            ImageFailed: the registry does not take it.
            ConfigurationError: there is no engine.
        """
        dispatched(self.apush())

    async def abuild(self) -> None:
        """`build`, for code on an event loop."""
        folder = Path.cwd()
        text, name = None, DOCKERFILE
        if self._dockerfile == "auto":
            text = default_dockerfile(folder, default_image())
        elif not (folder / self._dockerfile).is_file():
            raise FileNotFoundError(f"There is no Dockerfile {self._dockerfile} in {folder}.")
        else:
            name = (folder / self._dockerfile).relative_to(folder).as_posix()
        packed = await asyncio.to_thread(pack, folder, text)
        with packed:
            await _asked(
                "built",
                self.reference,
                lambda engine: engine.images.build(
                    fileobj=packed,
                    encoding="gzip",
                    path_dockerfile=name,
                    tag=self.reference,
                    stream=True,
                    **self._options,
                ),
            )

    async def apush(self) -> None:
        """`push`, for code on an event loop."""
        auth = registry_auth(self.reference)
        await _asked(
            "pushed",
            self.reference,
            lambda engine: engine.images.push(self.name, tag=self.tag, auth=auth, stream=True),
        )


async def _asked(done: str, reference: str, ask: Callable[[Any], Any]) -> None:
    """Ask the engine for something that takes its time; what it says meanwhile is shown."""
    engine = await open_engine()
    from aiodocker.exceptions import DockerError

    try:
        async for said in ask(engine):
            if error := said.get("error"):
                raise ImageFailed(f"The image {reference} cannot be {done}: {error}")
            if text := str(said.get("stream") or "").strip():
                print(text, file=sys.stderr)
    except DockerError as error:
        raise ImageFailed(f"The image {reference} cannot be {done}: {engine_error(error)}") from None
    finally:
        await engine.close()
