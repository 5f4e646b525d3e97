"""How an image is built: what can be said of it, and the two that do it, the engine and `docker buildx`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, TypedDict

from headrace.core.errors import ConfigurationError, HeadraceException

__all__ = ["BuildBackend", "BuildOptions", "ImageFailed", "buildx", "check_options", "engine_build"]

BuildBackend: TypeAlias = Literal["engine", "buildx"]

_CHUNK_BYTES: Final = 64 * 1024
_LAST_LINES: Final = 5
_LINE_BYTES: Final = 1024 * 1024


class ImageFailed(HeadraceException):
    """An image could not be built or pushed; the message is the engine's."""


class BuildOptions(TypedDict, total=False):
    """What can be said of a build.

    Attributes:
        buildargs: values of the Dockerfile's arguments.
        labels: of the image.
        platform: such as `linux/amd64`; default: the engine's.
        nocache: build every layer anew.
        pull: look for a newer image to build upon.
        target: stage of the Dockerfile to build; default: the last.
        network_mode: of what the Dockerfile runs.
        shmsize: of its `/dev/shm`, in bytes.
        cache_from: images, or caches of buildx, whose layers may be taken.
        extra_hosts: names of hosts with their addresses, for what buildx runs.
        cache_to: where buildx puts its cache.
        platforms: several, for buildx, which then has to push: an engine keeps images of one.
        secrets: files that buildx mounts while it builds: `id=token,src=token.txt`.
        ssh: agents or keys that buildx lends: `default`.
        push: have buildx push what it has built.
    """

    buildargs: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    platform: str | None
    nocache: bool
    pull: bool
    target: str | None
    network_mode: str | None
    shmsize: int | None
    cache_from: Sequence[str]
    extra_hosts: Mapping[str, str]
    cache_to: str | None
    platforms: Sequence[str]
    secrets: Sequence[str]
    ssh: str | None
    push: bool


_OF_BUILDX: Final = ("extra_hosts", "cache_to", "platforms", "secrets", "ssh", "push")


def check_options(options: BuildOptions, backend: str) -> None:
    """That a backend takes the options.

    Raises:
        TypeError: there is no such option; the message names the nearest.
        ValueError: there is no such backend, or an option is only for the other one.
    """
    if backend not in ("engine", "buildx"):
        raise ValueError(f"An image is built by 'engine' or by 'buildx', not by {backend!r}.")
    names = list(BuildOptions.__annotations__)
    for name, value in options.items():
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
            raise TypeError(f"A build has no option '{name}'. {hint}")
        if value and name in _OF_BUILDX and backend == "engine":
            raise ValueError(f"'{name}' is for buildx: say build_backend 'buildx'.")


def engine_build(
    engine: Any, packed: IO[bytes], dockerfile: str, reference: str, options: BuildOptions
) -> AsyncIterator[Mapping[str, Any]]:
    """Have the engine build the files; what it says of it.

    Args:
        engine: an `aiodocker.Docker`.
        packed: a gzipped tar.
        dockerfile: its name within the tar.
        reference: name and tag of the image.
        options: of the build.
    """
    from aiohttp import ClientTimeout

    # `images.build` of aiodocker does not take all that an engine does.
    call = engine._query(
        "build",
        "POST",
        params=_engine_parameters(dockerfile, reference, options),
        headers={"content-type": "application/x-tar", "Content-Encoding": "gzip"},
        data=_chunks(packed),
        timeout=ClientTimeout(total=None),
    )
    said: AsyncIterator[Mapping[str, Any]] = engine.images._handle_stream(call)
    return said


def _engine_parameters(dockerfile: str, reference: str, options: BuildOptions) -> dict[str, str]:
    said: dict[str, Any] = {
        "t": reference,
        "dockerfile": dockerfile,
        "rm": True,
        "nocache": options.get("nocache"),
        "pull": options.get("pull"),
        "platform": options.get("platform"),
        "target": options.get("target"),
        "networkmode": options.get("network_mode"),
        "shmsize": options.get("shmsize"),
        "buildargs": dict(options.get("buildargs") or {}),
        "labels": dict(options.get("labels") or {}),
        "cachefrom": list(options.get("cache_from") or ()),
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items() if value
    }


async def _chunks(packed: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := packed.read(_CHUNK_BYTES):
        yield chunk


async def buildx(folder: Path, dockerfile: Path, references: Sequence[str], options: BuildOptions) -> str:
    """Build with `docker buildx`; the id of the image, empty if it was only pushed.

    Args:
        folder: with the files.
        dockerfile: its path.
        references: names and tags of the image.
        options: of the build.

    Raises:
        ImageFailed: it cannot be built, or not be pushed.
        ConfigurationError: there is no `docker`.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-image-") as place:
        id_file = Path(place) / "id"
        command = ["docker", "buildx", "build", "--file", str(dockerfile), "--iidfile", str(id_file)]
        command += [word for reference in references for word in ("--tag", reference)]
        command += [*_buildx_words(options), str(folder)]
        code, last = await _shown(command)
        if code:
            raise ImageFailed(f"The image {references[0]} cannot be built: {last}")
        return id_file.read_text().strip() if id_file.is_file() else ""


def _buildx_words(options: BuildOptions) -> Iterator[str]:
    """The options as `docker buildx build` takes them."""
    # An image that is not pushed is to be with the engine, whichever builder makes it.
    yield "--push" if options.get("push") else "--load"
    if options.get("nocache"):
        yield "--no-cache"
    if options.get("pull"):
        yield "--pull"
    platforms = [*filter(None, [options.get("platform")]), *options.get("platforms", ())]
    several: dict[str, Sequence[object]] = {
        "--platform": [",".join(platforms)],
        "--build-arg": [f"{name}={value}" for name, value in (options.get("buildargs") or {}).items()],
        "--label": [f"{name}={value}" for name, value in (options.get("labels") or {}).items()],
        "--add-host": [f"{name}:{address}" for name, address in options.get("extra_hosts", {}).items()],
        "--target": [options.get("target")],
        "--network": [options.get("network_mode")],
        "--shm-size": [options.get("shmsize")],
        "--cache-from": options.get("cache_from") or (),
        "--cache-to": [options.get("cache_to")],
        "--secret": options.get("secrets", ()),
        "--ssh": [options.get("ssh")],
    }
    for flag, values in several.items():
        for value in values:
            if value:
                yield from (flag, str(value))


async def _shown(command: Sequence[str]) -> tuple[int, str]:
    """Run a program and show what it writes; its exit code, and the last lines."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
        )
    except FileNotFoundError:
        raise ConfigurationError(f"There is no program '{command[0]}': install Docker's client.") from None
    last: deque[str] = deque(maxlen=_LAST_LINES)
    assert process.stdout is not None
    async for line in process.stdout:
        if text := line.decode(errors="replace").strip():
            last.append(text)
            print(text, file=sys.stderr)
    return await process.wait(), "\n".join(last)
