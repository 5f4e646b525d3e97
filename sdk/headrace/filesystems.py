"""Where results are kept: whole objects under keys, in a folder, in memory, or in an object store.

A key is a relative path of parts between slashes. Every write is of one whole object: a reader finds the old
one or the new one, never a part, however many write at once.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast, runtime_checkable
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from headrace.core.errors import ConfigurationError, HeadraceException, MissingExtraError
from headrace.settings import get_current_settings

__all__ = [
    "FileSystem",
    "LocalFileSystem",
    "MemoryFileSystem",
    "RemoteFileSystem",
    "filesystem_of",
    "locate",
    "object_at",
]

_REMOTE: Final = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})
# Of the connection, not of the store: obstore wants them apart.
_CLIENT_OPTIONS: Final = frozenset(
    {"allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout", "user_agent"}
)
_RETRIES: Final = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.]*)://", re.IGNORECASE)


@runtime_checkable
class FileSystem(Protocol):
    """Whole objects under keys."""

    @property
    def url(self) -> str:
        """Where it is; the same for every object that stands for the same place."""
        ...

    def read(self, key: str) -> bytes:
        """The object.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        ...

    def write(self, key: str, content: bytes) -> None:
        """Put an object in the place of whatever is there.

        Raises:
            OSError: it cannot be written.
            ValueError: the key leads out of this place.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object.

        Raises:
            OSError: nobody can say.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        ...


def _checked_key(key: str) -> str:
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{key!r} is no key: it must be a relative path without empty parts and dots.")
    return key


class LocalFileSystem:
    """A folder of this machine, made by the first write.

    Args:
        basepath: the folder.
    """

    is_local: ClassVar[bool] = True

    def __init__(self, basepath: str | os.PathLike[str]) -> None:
        self.basepath = Path(basepath).expanduser().absolute()

    @property
    def url(self) -> str:
        return f"file://{quote(str(self.basepath))}"

    def read(self, key: str) -> bytes:
        return self._path(key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        path = self._path(key)
        try:
            self._replace(path, content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(path, content)

    @staticmethod
    def _replace(path: Path, content: bytes) -> None:
        """Write beside the place, and move there: readers see one whole object."""
        temporary = path.parent / f".{secrets.token_hex(8)}.part"
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.basepath / _checked_key(key)

    def __repr__(self) -> str:
        return f"LocalFileSystem({str(self.basepath)!r})"


class MemoryFileSystem:
    """The memory of this process.

    Args:
        name: tells one from another; two of the same name hold the same objects.
    """

    is_local: ClassVar[bool] = True
    _spaces: ClassVar[dict[str, dict[str, bytes]]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str = "results") -> None:
        self.name = name
        with self._lock:
            self._objects = self._spaces.setdefault(name, {})

    @property
    def url(self) -> str:
        return f"memory://{quote(self.name, safe='')}"

    def read(self, key: str) -> bytes:
        try:
            return self._objects[key]
        except KeyError:
            raise FileNotFoundError(f"{self.url}/{key} is not in the memory of this process") from None

    def write(self, key: str, content: bytes) -> None:
        self._objects[_checked_key(key)] = content

    def exists(self, key: str) -> bool:
        return key in self._objects

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)

    def __repr__(self) -> str:
        return f"MemoryFileSystem({self.name!r})"


class RemoteFileSystem:
    """An object store: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

    Needs the extra `headrace[storage]`. Credentials, region and endpoint come from the environment,
    under the names that the store's own tools read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
    `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, …), unless `settings` has them.

    Args:
        basepath: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
        settings: configuration of the store by the names that obstore knows, e.g. `{"region": "eu-north-1"}`.
            Not recorded: a process that only reads takes them from its environment.

    Raises:
        ConfigurationError: no such kind of store, or the extra is not installed.
    """

    is_local: ClassVar[bool] = False

    def __init__(self, basepath: str, settings: Mapping[str, Any] | None = None) -> None:
        if urlsplit(basepath).scheme not in _REMOTE:
            raise ConfigurationError(
                f"{basepath!r} is no object store. Known are URLs of s3, gs, az and abfs."
            )
        self.basepath = basepath.rstrip("/")
        self.settings = dict(settings or {})

    @property
    def url(self) -> str:
        return self.basepath

    @cached_property
    def _store(self) -> Any:
        try:
            from obstore import store
        except ImportError as error:
            raise MissingExtraError(f"Storage at {self.basepath}", "headrace[storage]") from error
        try:
            config = {name: value for name, value in self.settings.items() if name not in _CLIENT_OPTIONS}
            client = {name: value for name, value in self.settings.items() if name in _CLIENT_OPTIONS}
            return cast("Any", store).from_url(
                self.basepath, config=config or None, client_options=client or None, retry_config=_RETRIES
            )
        except Exception as error:  # obstore has a class of its own for each kind of mistake
            raise ConfigurationError(f"{self.basepath} cannot be used: {error}") from error

    def read(self, key: str) -> bytes:
        return bytes(self._do("read", key, lambda: self._store.get(key).bytes()))

    def write(self, key: str, content: bytes) -> None:
        _checked_key(key)
        self._do("write", key, lambda: self._store.put(key, content))

    def exists(self, key: str) -> bool:
        try:
            self._do("find", key, lambda: self._store.head(key))
        except FileNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        try:
            self._do("delete", key, lambda: self._store.delete(key))
        except FileNotFoundError:
            pass

    def list_keys(self) -> Iterator[str]:
        """The keys of all objects.

        Raises:
            OSError: the store cannot be read.
        """
        pages: list[list[dict[str, Any]]] = self._do("list", "", lambda: list(self._store.list()))
        for page in pages:
            yield from (str(entry["path"]) for entry in page)

    def _do(self, what: str, key: str, action: Callable[[], Any]) -> Any:
        """Call the store; its errors become those of files."""
        try:
            return action()
        except HeadraceException:
            raise
        except Exception as error:  # obstore's own
            # What follows is for those who debug obstore.
            text = str(error).partition("\n\nDebug source:")[0]
            is_absent = isinstance(error, FileNotFoundError) and what != "write"
            kind = FileNotFoundError if is_absent else OSError
            raise kind(f"Cannot {what} {self.basepath}/{key}: {text}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"basepath": self.basepath, "settings": self.settings}

    def __repr__(self) -> str:
        return f"RemoteFileSystem({self.basepath!r})"


def filesystem_of(place: FileSystem | Path | str) -> FileSystem:
    """The file system that an option such as `result_storage` means.

    Args:
        place: a `Path`; "local" for the folder that settings name; "memory"; a URL (`file://`, `memory://`,
            `s3://`, `gs://`, `az://`); or a file system.

    Raises:
        ConfigurationError: it names a saved block, or a kind of store that there is not.
        TypeError: something else.
    """
    if isinstance(place, Path):
        return LocalFileSystem(place)
    if not isinstance(place, str):
        if isinstance(cast("object", place), FileSystem):
            return place
        raise TypeError(
            "A place for results is a path, 'local', 'memory', a URL such as 's3://bucket/prefix', or a file "
            f"system of headrace.filesystems; got {type(place).__name__}."
        )
    return _named(place)


def _named(place: str) -> FileSystem:
    if place == "local":
        return LocalFileSystem(_local_folder())
    if place == "memory":
        return MemoryFileSystem()
    scheme = _SCHEME.match(place)
    if scheme is not None:
        return _at(place)
    if "/" in place and not place.startswith(("/", "~", ".")):
        raise ConfigurationError(
            f"There is no saved storage {place!r}. Give a Path, 'local', 'memory', or a URL such as "
            "'s3://bucket/prefix'."
        )
    if place.startswith(("/", "~", ".")):
        return LocalFileSystem(place)
    raise ConfigurationError(
        f"{place!r} names no storage: 'local', 'memory', a Path, or a URL such as 's3://bucket/prefix'."
    )


def _local_folder() -> Path:
    settings = get_current_settings()
    return settings.results_local_storage_path or settings.home / "storage"


@lru_cache(maxsize=64)
def _at(url: str) -> FileSystem:
    """One object per place, so that connections are used again."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalFileSystem(url2pathname(parts.path))
    if parts.scheme == "memory":
        return MemoryFileSystem(unquote(parts.netloc))
    return RemoteFileSystem(url)


def locate(filesystem: FileSystem, key: str) -> str:
    """The URI of an object, from which any process that can reach the place finds it: see `object_at`."""
    return f"{filesystem.url}/{quote(key)}"


def object_at(uri: str) -> tuple[FileSystem, str]:
    """The file system and key of what `locate` named.

    Raises:
        ConfigurationError: there is no such kind of store.
    """
    if uri.startswith("memory://"):
        parts = urlsplit(uri)
        return MemoryFileSystem(unquote(parts.netloc)), unquote(parts.path[1:])
    base, _, key = uri.rpartition("/")
    return _at(base), unquote(key)
