"""Where the code of a flow is: a folder of this machine, a git repository, an object store."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from headrace.deployments.git import GitRepository
from headrace.deployments.remote import RemoteStorage
from headrace.entrypoints import is_file, load_flow_from_entrypoint

if TYPE_CHECKING:
    from headrace.flows import Flow

__all__ = ["FlowSource", "LocalStorage", "Source", "Storage", "load_flow_from_source", "storage_of"]

_GIT_SCHEMES: Final = ("http", "https", "ssh", "git")


class LocalStorage:
    """A folder of this machine: the code is run where it is.

    Args:
        path: the folder; processes of runs have to see it under the same name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()

    @property
    def destination(self) -> Path:
        """The folder."""
        return self.path

    def set_base_path(self, path: Path) -> None:
        """Nothing is copied, so there is nothing to say."""

    async def pull_code(self) -> str:
        """Check that the folder is there.

        Returns:
            An empty text: a folder has no versions.

        Raises:
            NotADirectoryError: there is no such folder.
        """
        if not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is no directory on this machine.")
        return ""

    def to_pull_step(self) -> dict[str, Any]:
        """The step that goes there where the flow runs."""
        return {"headrace.deployments.steps.set_working_directory": {"directory": str(self.path)}}

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.path)!r})"


Storage: TypeAlias = "GitRepository | RemoteStorage | LocalStorage"
Source: TypeAlias = "str | Path | Storage"


@dataclass(frozen=True)
class FlowSource:
    """Where a flow came from.

    Attributes:
        storage: the code.
        entrypoint: the flow in it, relative to its top.
    """

    storage: Storage
    entrypoint: str


def storage_of(source: Source) -> Storage:
    """The storage that a path or an address means.

    Addresses of `http`, `https`, `ssh` and `git`, `user@host:path`, and paths that end in `.git` are git
    repositories; other addresses are object stores; everything else is a folder.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(source, (GitRepository, RemoteStorage, LocalStorage)):
        return source
    if isinstance(source, Path):
        return LocalStorage(source)
    if not isinstance(source, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            "'source' is a path, an address, a GitRepository, a RemoteStorage or a LocalStorage, "
            f"not {source!r}"
        )
    if "://" in source:
        parts = urlsplit(source)
        if parts.scheme in _GIT_SCHEMES or parts.path.endswith(".git"):
            return GitRepository(source)
        return LocalStorage(unquote(parts.path)) if parts.scheme == "file" else RemoteStorage(source)
    host, colon, _ = source.partition(":")
    if colon and "@" in host and "/" not in host:
        return GitRepository(source)
    if source.endswith(".git"):
        return GitRepository(str(Path(source).expanduser().resolve()))
    return LocalStorage(source)


async def load_flow_from_source(source: Source, entrypoint: str) -> Flow[..., Any]:
    """Fetch the code, and load the flow from it; see `Flow.from_source`."""
    storage = storage_of(source)
    if not isinstance(storage, LocalStorage):
        folder = Path(tempfile.mkdtemp(prefix="headrace-source-"))
        # The code may read its own files for as long as the program lasts.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        storage.set_base_path(folder)
    await storage.pull_code()
    flow = load_flow_from_entrypoint(_placed(entrypoint, storage.destination))
    flow.source = FlowSource(storage, entrypoint)
    return flow


def _placed(entrypoint: str, folder: Path) -> str:
    """The entrypoint for a process that is not in the folder."""
    place, colon, name = entrypoint.rpartition(":")
    if colon and is_file(place):
        return f"{folder / place}:{name}"
    sys.path.insert(0, str(folder))
    return entrypoint
