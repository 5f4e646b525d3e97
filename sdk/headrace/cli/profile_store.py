"""`<home>/profiles.toml`: read as settings read it, changed without losing a comment or another's change."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.core import config
from headrace.core.errors import ConfigurationError
from headrace.settings import DEFAULT_PROFILE, home_folder

__all__ = ["ProfileFile", "editing", "read"]


class ProfileFile:
    """The parsed file; `default` is there even when it is not written."""

    def __init__(self, document: Any, path: Path) -> None:
        self.document = document
        self.path = path
        if not isinstance(document.get("profiles", {}), dict):
            raise ConfigurationError(f"{path}: tables [profiles.NAME] are expected.")

    @property
    def active(self) -> str:
        """The profile in force when neither `--profile` nor `HEADRACE_PROFILE` names another."""
        return str(self.document.get("active", DEFAULT_PROFILE))

    @property
    def names(self) -> list[str]:
        """Every profile, `default` first if it is not written."""
        written = [str(name) for name in self.document.get("profiles", {})]
        return written if DEFAULT_PROFILE in written else [DEFAULT_PROFILE, *written]

    def values(self, name: str) -> dict[str, Any]:
        """The settings of a profile as they are written.

        Raises:
            CliError: there is no such profile.
        """
        self.expect(name)
        table = self.document.get("profiles", {}).get(name, {})
        return dict(cast("Mapping[str, Any]", table.unwrap() if hasattr(table, "unwrap") else table))

    def table(self, name: str) -> Any:
        """The table of a profile, to change; made if it is not there."""
        import tomlkit

        profiles = self.document.setdefault("profiles", tomlkit.table(is_super_table=True))
        if name not in profiles:
            profiles[name] = tomlkit.table()
        return profiles[name]

    def expect(self, name: str) -> None:
        """
        Raises:
            CliError: there is no profile of that name.
        """
        if name not in self.names:
            raise CliError(
                f"There is no profile '{name}'.",
                nearest(name, self.names) or "See `headrace profile ls`.",
                code=ExitCode.NOT_FOUND,
            )


def read() -> ProfileFile:
    """The file as it is.

    Raises:
        ConfigurationError: it cannot be read or is not TOML.
    """
    path = home_folder() / "profiles.toml"
    return ProfileFile(config.read_toml(path), path)


@contextmanager
def editing() -> Generator[ProfileFile]:
    """The file, to change; written when the block ends without an error.

    Others who change it wait; who reads it sees the old file or the new one.

    Raises:
        ConfigurationError: it cannot be read or is not TOML.
    """
    # Not at the top: most commands only read.
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = home_folder() / "profiles.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "profiles.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config.read_toml(path)
        try:
            document = (
                tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
            )
        except TOMLKitError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        file = ProfileFile(document, path)
        yield file
        _replace(path, tomlkit.dumps(document))


def _replace(path: Path, content: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".profiles-")
    try:
        # mkstemp gives 0600, which is what a file with credentials should have.
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
