"""Real git repositories: one that is pushed to, and the clone it is pushed from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GIT_ENVIRONMENT", "PushedRepository"]

GIT_ENVIRONMENT: Mapping[str, str] = {
    **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "test@example.org" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
"""An author, and no settings of whoever runs the tests."""


class PushedRepository:
    """A bare repository and a clone of it.

    Args:
        folder: that both are made in.

    Attributes:
        url: `file://` address of the bare one.
    """

    def __init__(self, folder: Path) -> None:
        self.bare = folder / "shop.git"
        self._clone = folder / "clone"
        self.bare.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", folder=self.bare)
        self._clone.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", str(self.bare))
        self.url = self.bare.as_uri()

    def commit(self, files: Mapping[str, str]) -> str:
        """Commit the files, not yet pushed.

        Returns:
            The commit.
        """
        for name, content in files.items():
            path = self._clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", ", ".join(files) or "nothing")
        return self.git("rev-parse", "HEAD")

    def push(self, *words: str) -> None:
        """Push what is committed, or what the words say."""
        self.git("push", "--quiet", "--force", "origin", *(words or ["main"]))

    def pushed(self, files: Mapping[str, str]) -> str:
        """Commit and push the files.

        Returns:
            The commit.
        """
        commit = self.commit(files)
        self.push()
        return commit

    def git(self, *words: str, folder: Path | None = None) -> str:
        """Run git in the clone, or elsewhere."""
        done = subprocess.run(
            ["git", *words],
            cwd=folder or self._clone,
            env={**os.environ, **GIT_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()
