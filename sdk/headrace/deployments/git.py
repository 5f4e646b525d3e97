"""Code in a git repository, fetched by the `git` program.

A token reaches git through its environment: it is in no argument that other users of the machine can list, in
no file of the clone, and in no error.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import anyio

from headrace.core.errors import HeadraceException

__all__ = ["GitError", "GitRepository", "without_user"]

_TRIES: Final = 3
_FIRST_WAIT_SECONDS: Final = 1.0
_USERNAMES: Final = {"gitlab": "oauth2", "bitbucket": "x-token-auth"}
# git asks this for a user name and a password, which the environment has.
_HELPER: Final = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" '
    '"$HEADRACE_GIT_USERNAME" "$HEADRACE_GIT_PASSWORD"; }; f'
)
# Worth another try: the network's fault, not the request's.
_PASSING: Final = re.compile(
    "could not resolve host|connection (reset|refused|timed out)|early eof|rpc failed|timed out|"
    "the remote end hung up|http/2 stream|ssl|gnutls|50[0234]",
    re.IGNORECASE,
)


class GitError(HeadraceException):
    """git could not do what it was asked; without any secret in its text."""


class GitRepository:
    """A repository, and which part of its history is wanted.

    Args:
        url: https, ssh or a path. A user name and a password in it are taken out and treated as credentials.
        credentials: {"access_token": ...} or {"username": ..., "password": ...}.
        name: of the clone's folder; unset: the repository's name, with the branch's if given.
        branch: a branch or a tag.
        commit_sha: exactly this commit, instead of a branch.
        include_submodules: fetch the repositories it refers to as well.
        directories: only these.
        pull_interval: seconds after which a process that serves flows of it looks for news; None: never.

    Raises:
        ValueError: `branch` and `commit_sha` are both given.
    """

    def __init__(
        self,
        url: str,
        credentials: Mapping[str, Any] | None = None,
        name: str | None = None,
        branch: str | None = None,
        commit_sha: str | None = None,
        include_submodules: bool = False,
        directories: Sequence[str] | None = None,
        pull_interval: int | None = 60,
    ) -> None:
        if branch and commit_sha:
            raise ValueError("branch and commit_sha exclude each other: give one of them.")
        self.url, inline = without_user(url)
        self._username, self._password = _login(self.url, credentials or inline)
        self.branch = branch
        self.commit_sha = commit_sha
        self.include_submodules = include_submodules
        self.directories = list(directories) if directories else None
        self.pull_interval = pull_interval
        repository = self.url.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".git")
        self.name = name or "-".join([repository, *([branch.replace("/", "-")] if branch else [])])
        self._base_path = Path.cwd()

    def set_base_path(self, path: Path) -> None:
        """Say below which folder the clone is."""
        self._base_path = path

    @property
    def destination(self) -> Path:
        """The folder of the clone."""
        return self._base_path / self.name

    async def pull_code(self) -> str:
        """Clone the repository, or bring the clone that is there up to date: changes made in it are gone.

        Returns:
            The commit it is at.

        Raises:
            GitError: git is missing or refuses; another repository is in the folder.
        """
        _need_git()
        if (self.destination / ".git").exists():
            await self._update()
        else:
            await self._clone()
        if self.include_submodules:
            await self._git("submodule", "sync", "--recursive")
            await self._git("submodule", "update", "--init", "--recursive", "--force", is_remote=True)
        return (await self._git("rev-parse", "HEAD")).strip()

    async def newest_commit(self) -> str:
        """The commit that the branch is at in the repository; without a branch: the repository's usual one.

        Raises:
            GitError: git is missing or refuses, or there is no such branch.
        """
        _need_git()
        self._base_path.mkdir(parents=True, exist_ok=True)
        wanted = f"refs/heads/{self.branch}" if self.branch else "HEAD"
        told = await self._git("ls-remote", "--", self.url, wanted, is_remote=True, folder=self._base_path)
        lines = [line.split() for line in told.splitlines()]
        found = [commit for commit, name in lines if name == wanted]
        if not found:
            raise GitError(
                f"{_shown(self.url)} has no {f'branch {self.branch}' if self.branch else 'commit'}."
            )
        return found[0]

    async def name_branch(self, name: str) -> None:
        """Say of the clone which branch its commit is on, for those who ask the clone.

        Raises:
            GitError: git refuses the name.
        """
        await self._git("checkout", "--quiet", "-B", name)

    def to_pull_step(self) -> dict[str, Any]:
        """The step that does the same where the flow runs.

        Raises:
            ValueError: it has credentials, which would be kept in the deployment for everybody to read.
        """
        if self._password:
            raise ValueError(
                "Credentials of a repository would be kept in the deployment as they are. Name an "
                'environment variable of the workers instead: access_token: "{{ $GIT_TOKEN }}" in a '
                "git_clone step of headrace.yaml."
            )
        options: dict[str, Any] = {
            "repository": self.url,
            "branch": self.branch,
            "commit_sha": self.commit_sha,
            "include_submodules": self.include_submodules or None,
            "directories": self.directories,
        }
        return {
            "headrace.deployments.steps.git_clone": {
                key: value for key, value in options.items() if value is not None
            }
        }

    async def _clone(self) -> None:
        """Make the clone beside its place and move it there: a half-made one is never taken for whole."""
        self._base_path.mkdir(parents=True, exist_ok=True)
        if self.destination.exists() and any(self.destination.iterdir()):
            raise GitError(f"{self.destination} is in the way: it is not empty and not a clone.")
        self.destination.mkdir(exist_ok=True)
        try:
            await self._git("init", "--quiet")
            await self._git("remote", "add", "--", "origin", self.url)
            await self._check_out()
        except BaseException:
            shutil.rmtree(self.destination, ignore_errors=True)
            raise

    async def _update(self) -> None:
        there = (await self._git("config", "--get", "remote.origin.url")).strip()
        if there != self.url:
            raise GitError(f"{self.destination} is a clone of {_shown(there)}, not of {_shown(self.url)}.")
        await self._check_out()
        await self._git("clean", "-ffdxq")

    async def _check_out(self) -> None:
        if self.directories:
            await self._git("sparse-checkout", "set", "--", *self.directories)
        wanted = self.commit_sha or self.branch or "HEAD"
        filters = ["--filter=blob:none"] if self.directories else []
        fetch = ("fetch", "--quiet", "--force", *filters)
        try:
            await self._git(*fetch, "--depth=1", "--", "origin", wanted, is_remote=True)
        except GitError:
            if self.commit_sha is None:
                raise
            # Some servers hand out commits only with the branches they are on.
            await self._git(
                *fetch, "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*", is_remote=True
            )
            await self._git("reset", "--quiet", "--hard", self.commit_sha)
            return
        # A sparse clone fetches the files it lacks only now.
        await self._git("reset", "--quiet", "--hard", "FETCH_HEAD", is_remote=bool(self.directories))

    async def _git(self, *arguments: str, is_remote: bool = False, folder: Path | None = None) -> str:
        """Run git in the clone, or in a folder.

        Raises:
            GitError: it failed, after another try or two where the network was at fault.
        """
        command = ["git", "-c", "credential.helper="]
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        if self._password:
            command += ["-c", f"credential.helper={_HELPER}"]
            environment |= {
                "HEADRACE_GIT_USERNAME": self._username,
                "HEADRACE_GIT_PASSWORD": self._password,
            }
        attempt = 0
        while True:
            attempt += 1
            done = await anyio.run_process(
                [*command, *arguments], cwd=folder or self.destination, env=environment, check=False
            )
            if done.returncode == 0:
                return done.stdout.decode(errors="replace")
            text = self._without_secrets(done.stderr.decode(errors="replace").strip())
            if not is_remote or attempt == _TRIES or not _PASSING.search(text):
                raise GitError(f"git {arguments[0]} of {_shown(self.url)} failed: {text}")
            await anyio.sleep(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1))

    def _without_secrets(self, text: str) -> str:
        if self._password:
            for secret in {self._password, quote(self._password, safe="")}:
                text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"GitRepository({_shown(self.url)!r}, branch={self.branch!r}, commit_sha={self.commit_sha!r})"


def _need_git() -> None:
    if shutil.which("git") is None:
        raise GitError("Fetching code from a repository takes the git program, and there is none here.")


def without_user(url: str) -> tuple[str, dict[str, str] | None]:
    """The address without the login in it, and the login."""
    if "://" not in url or not url.lower().startswith("http"):
        return url, None
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    host = parts.netloc.rpartition("@")[2]
    plain = urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment))
    if parts.password is None:
        return plain, {"access_token": unquote(parts.username)}
    return plain, {"username": unquote(parts.username), "password": unquote(parts.password)}


def _login(url: str, credentials: Mapping[str, Any] | None) -> tuple[str, str]:
    if not credentials:
        return "", ""
    given = {key: _revealed(value) for key, value in credentials.items() if value is not None}
    secret = given.get("access_token") or given.get("token") or given.get("password") or ""
    if not secret:
        raise ValueError("Credentials hold an access_token, or a username and a password.")
    host = (urlsplit(url).hostname or "").lower()
    usual = next((name for part, name in _USERNAMES.items() if part in host), "x-access-token")
    return given.get("username") or usual, secret


def _revealed(value: Any) -> str:
    """The text of a value that hides itself from being printed."""
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if callable(reveal) else value)


def _shown(url: str) -> str:
    return without_user(url)[0]
