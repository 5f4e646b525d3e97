"""Code in an object store."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread

from headrace.filesystems import LocalFileSystem, RemoteFileSystem, filesystem_of

__all__ = ["RemoteStorage"]

# The names of fsspec's S3 file system, which other tools' files have.
_FSSPEC: Final = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "endpoint_url": "endpoint",
}


class RemoteStorage:
    """A folder of an object store.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`.
        pull_interval: seconds after which a process that serves flows of it looks for news; None: never.
        settings: options of the store by obstore's names, or fsspec's `key`, `secret` and `endpoint_url`;
            what is not given comes from the environment.
    """

    def __init__(self, url: str, pull_interval: int | None = 60, **settings: Any) -> None:
        self.url = url.rstrip("/")
        self.settings = {_FSSPEC.get(name, name): value for name, value in settings.items()}
        if str(self.settings.get("endpoint", "")).startswith("http://"):
            self.settings.setdefault("allow_http", True)
        self.pull_interval = pull_interval
        parts = urlsplit(self.url)
        self.name = PurePosixPath(parts.path).name or parts.netloc
        self._base_path = Path.cwd()

    def set_base_path(self, path: Path) -> None:
        """Say below which folder the copy is."""
        self._base_path = path

    @property
    def destination(self) -> Path:
        """The folder of the copy."""
        return self._base_path / self.name

    async def pull_code(self) -> str:
        """Copy everything; what was there before and is not in the store any more goes.

        Returns:
            An empty text: an object store has no versions of the whole.

        Raises:
            FileNotFoundError: there is nothing below the address.
            OSError: the store cannot be read, or a key leads out of the folder.
            ConfigurationError: no such kind of store.
            MissingExtraError: object stores take the extra `storage`.
        """
        await anyio.to_thread.run_sync(self._pull)
        return ""

    def to_pull_step(self) -> dict[str, Any]:
        """The step that does the same where the flow runs.

        Raises:
            ValueError: its settings hold a secret, which everybody could read in the deployment.
        """
        secret = [name for name in self.settings if "secret" in name or "token" in name or "key" in name]
        if secret:
            raise ValueError(
                f"{', '.join(secret)} would be kept in the deployment as it is. Let the workers' environment "
                "hold the store's credentials instead."
            )
        return {
            "headrace.deployments.steps.pull_from_remote_storage": {"url": self.url, **self.settings},
        }

    def _pull(self) -> None:
        """Copy beside the place and move there: a flow never runs on half of the files."""
        self._base_path.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=self._base_path))
        try:
            if not self._copy(fresh):
                raise FileNotFoundError(f"There is nothing at {self.url}.")
            if self.destination.exists():
                shutil.rmtree(self.destination)
            fresh.rename(self.destination)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _copy(self, folder: Path) -> int:
        source = filesystem_of(self.url)
        if isinstance(source, LocalFileSystem):
            shutil.copytree(source.basepath, folder, dirs_exist_ok=True)
            return 1
        store = RemoteFileSystem(self.url, self.settings)
        count = 0
        for key in store.list_keys():
            path = folder / _checked(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(key))
            count += 1
        return count

    def __repr__(self) -> str:
        return f"RemoteStorage({self.url!r})"


def _checked(key: str) -> str:
    if key.startswith("/") or ".." in PurePosixPath(key).parts:
        raise OSError(f"The key {key!r} leads out of the folder it is copied to.")
    return key
