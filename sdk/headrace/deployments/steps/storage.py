"""Steps that find code that is there already, or fetch it from an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.deployments.remote import RemoteStorage

__all__ = ["pull_from_remote_storage", "set_working_directory"]


def set_working_directory(directory: str) -> dict[str, str]:
    """Say where the code is.

    Raises:
        NotADirectoryError: there is no such directory.
    """
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is no directory on this machine.")
    return {"directory": str(path)}


async def pull_from_remote_storage(url: str, **settings: Any) -> dict[str, str]:
    """Copy everything below an address of an object store into the current directory.

    Args:
        url: e.g. `s3://bucket/flows`.
        settings: options of the store, e.g. `endpoint_url`.

    Returns:
        `directory`: name of the folder it is in.

    Raises:
        OSError: the store cannot be read, or has nothing there.
        MissingExtraError: object stores take the extra `storage`.
    """
    storage = RemoteStorage(url, **settings)
    storage.set_base_path(Path.cwd())
    await storage.pull_code()
    return {"directory": storage.destination.name}
