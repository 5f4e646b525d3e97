"""Images with the code of flows, built and pushed by the container engine of this machine."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

from headrace.docker.building import (
    BuildBackend,
    BuildOptions,
    ImageFailed,
    buildx,
    check_options,
    engine_build,
)
from headrace.docker.context import DOCKERFILE, default_dockerfile, pack
from headrace.docker.engine import engine_error, open_engine, registry_auth
from headrace.docker.names import default_image
from headrace.execution.background import dispatched
from headrace.settings import get_current_settings

__all__ = ["DockerImage", "ImageFailed"]

_AUTO: Final = "auto"


class DockerImage:
    """An image that is built from the files of a folder.

    Args:
        name: `repository`, `registry/repository` or either with `:tag`. Without a `/`, the setting
            `default_docker_build_namespace` stands before it.
        tag: of the image, if `name` has none; default: the time.
        dockerfile: path of one in the folder; "auto": one that puts the folder, and what its
            `requirements.txt` names, on top of headrace's own image.
        additional_tags: of the image, besides `tag`; pushed with it.
        path: the folder; None: the current one.
        build_backend: "engine": the container engine; "buildx": `docker buildx build`.
        build_kwargs: `buildargs`, `labels`, `platform`, `nocache`, `pull`, `target` and what else
            `headrace.docker.building.BuildOptions` has.

    Attributes:
        name: without the tag.
        tag: of the image.
        additional_tags: besides it.

    Raises:
        ValueError: there are two tags, or the backend does not know an option.
        TypeError: there is no such option.
    """

    def __init__(
        self,
        name: str,
        tag: str | None = None,
        dockerfile: str | Path = _AUTO,
        *,
        additional_tags: Sequence[str] = (),
        path: str | Path | None = None,
        build_backend: BuildBackend = "engine",
        **build_kwargs: Unpack[BuildOptions],
    ) -> None:
        folder, slash, last = name.rpartition("/")
        last, colon, own_tag = last.partition(":")
        if colon and tag:
            raise ValueError(f"The image has two tags: '{own_tag}' in its name, and '{tag}'.")
        if not last or any(map(str.isspace, name)):
            raise ValueError(f"{name!r} is no name of an image.")
        namespace = get_current_settings().default_docker_build_namespace
        self.name = f"{folder}{slash}{last}"
        if namespace and not slash:
            self.name = f"{namespace.rstrip('/')}/{last}"
        self.tag = own_tag or tag or datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        self.additional_tags = list(additional_tags)
        self._dockerfile = dockerfile
        self._path = path
        self._backend = build_backend
        self._options = build_kwargs
        check_options(build_kwargs, build_backend)

    @property
    def reference(self) -> str:
        """Name and tag: what a job variable `image` says."""
        return f"{self.name}:{self.tag}"

    @property
    def references(self) -> list[str]:
        """Name and tag, for every tag."""
        return [f"{self.name}:{tag}" for tag in (self.tag, *self.additional_tags)]

    def build(self) -> str:
        """Build it; what the engine says goes to standard error.

        Returns:
            Id of the image; empty if buildx has pushed it and the engine does not have it.

        Raises:
            ImageFailed: the engine cannot build it.
            ConfigurationError: there is no engine.
            FileNotFoundError: there is no such Dockerfile, or folder.
        """
        return dispatched(self.abuild())

    def push(self, credentials: Mapping[str, str] | None = None) -> None:
        """Push it to its registry, with all its tags.

        Args:
            credentials: `username`, `password` and, if it is not in the name, `registry_url`; None: whoever
                `docker login` has noted.

        Raises:
            ImageFailed: the registry does not take it.
            ConfigurationError: there is no engine.
        """
        dispatched(self.apush(credentials))

    async def abuild(self) -> str:
        """`build`, for code on an event loop."""
        folder = Path.cwd() / (self._path or "")
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
        text = self.generated_dockerfile()
        if text is None and not (folder / self._dockerfile).is_file():
            raise FileNotFoundError(f"There is no Dockerfile {self._dockerfile} in {folder}.")
        if self._backend == "buildx":
            return await self._build_by_buildx(folder, text)
        return await self._build_by_engine(folder, text)

    async def apush(self, credentials: Mapping[str, str] | None = None) -> None:
        """`push`, for code on an event loop."""
        auth = registry_auth(self.reference) if credentials is None else _auth(credentials)
        async with _Asking("pushed") as asking:
            for tag in (self.tag, *self.additional_tags):
                call = partial(_push, name=self.name, tag=tag, auth=auth)
                await asking(f"{self.name}:{tag}", call)

    def generated_dockerfile(self) -> str | None:
        """The text of the Dockerfile that is made up; None: there is one in the folder."""
        if self._dockerfile != _AUTO:
            return None
        return default_dockerfile(Path.cwd() / (self._path or ""), default_image())

    async def _build_by_engine(self, folder: Path, text: str | None) -> str:
        name = DOCKERFILE if text is not None else (folder / self._dockerfile).relative_to(folder).as_posix()
        packed = await asyncio.to_thread(pack, folder, text)
        with packed:
            async with _Asking("built") as asking:
                await asking(
                    self.reference,
                    lambda engine: engine_build(engine, packed, name, self.reference, self._options),
                )
                for tag in self.additional_tags:
                    await asking.engine.images.tag(self.reference, self.name, tag=tag)
                return str((await asking.engine.images.inspect(self.reference))["Id"])

    async def _build_by_buildx(self, folder: Path, text: str | None) -> str:
        with tempfile.TemporaryDirectory(prefix="headrace-image-") as place:
            dockerfile = folder / self._dockerfile
            if text is not None:
                dockerfile = Path(place) / DOCKERFILE
                dockerfile.write_text(text)
            return await buildx(folder, dockerfile, self.references, self._options)


def _push(engine: Any, name: str, tag: str, auth: Mapping[str, str] | None) -> Any:
    return engine.images.push(name, tag=tag, auth=auth, stream=True)


def _auth(credentials: Mapping[str, str]) -> dict[str, str]:
    """What an engine wants to know of who one is.

    Raises:
        ValueError: it is not said.
    """
    missing = [name for name in ("username", "password") if not credentials.get(name)]
    if missing:
        raise ValueError(f"The credentials for the registry have no {' and no '.join(missing)}.")
    auth = {name: str(credentials[name]) for name in ("username", "password")}
    if credentials.get("registry_url"):
        auth["serveraddress"] = str(credentials["registry_url"])
    return auth


class _Asking:
    """The engine, open to be asked for what takes its time; what it says meanwhile is shown.

    Args:
        done: what is asked for, for messages: "built".
    """

    def __init__(self, done: str) -> None:
        self._done = done
        self._reference = ""
        self.engine: Any = None

    async def __aenter__(self) -> _Asking:
        self.engine = await open_engine()
        return self

    async def __call__(self, reference: str, ask: Callable[[Any], AsyncIterator[Mapping[str, Any]]]) -> None:
        """Ask for it, for an image."""
        self._reference = reference
        async for said in ask(self.engine):
            if error := said.get("error"):
                raise ImageFailed(f"The image {reference} cannot be {self._done}: {error}")
            if text := str(said.get("stream") or "").strip():
                print(text, file=sys.stderr)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.engine.close()
        from aiodocker.exceptions import DockerError

        if isinstance(error, DockerError):
            message = f"The image {self._reference} cannot be {self._done}: {engine_error(error)}"
            raise ImageFailed(message) from None
