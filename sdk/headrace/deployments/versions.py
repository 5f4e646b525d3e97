"""Which version of the code a deployment is of: read from the CI's variables, from git, or from the files."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from headrace.core.errors import HeadraceException
from headrace.deployments.git import without_user

__all__ = [
    "CI_VARIABLES",
    "VERSION_TYPES",
    "CodeVersion",
    "UnknownVersionError",
    "git_origin",
    "infer_version",
]

CodeVersion = dict[str, str]
"""`type` and `version`, and what else is known: `branch`, `message`, `repository`, `url`."""

SIMPLE: Final = "headrace:simple"
# type -> the variables of version, branch, repository and web address.
_CI: Final = {
    "vcs:github": ("GITHUB_SHA", "GITHUB_REF_NAME", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL"),
    "vcs:gitlab": ("CI_COMMIT_SHA", "CI_COMMIT_REF_NAME", "CI_PROJECT_NAME", "CI_PROJECT_URL"),
    "vcs:bitbucket": (
        "BITBUCKET_COMMIT",
        "BITBUCKET_BRANCH",
        "BITBUCKET_REPO_SLUG",
        "BITBUCKET_GIT_HTTP_ORIGIN",
    ),
    "vcs:azuredevops": (
        "BUILD_SOURCEVERSION",
        "BUILD_SOURCEBRANCHNAME",
        "BUILD_REPOSITORY_NAME",
        "BUILD_REPOSITORY_URI",
    ),
}
VERSION_TYPES: Final = (*_CI, "vcs:git", SIMPLE)


CI_VARIABLES: Final = frozenset(name for names in _CI.values() for name in names)
"""What a version is read from before git is asked."""


class UnknownVersionError(ValueError, HeadraceException):
    """The version cannot be read where it was said to be."""


def infer_version(kind: str | None, folder: Path, variables: Mapping[str, str], content: str) -> CodeVersion:
    """The version of the code in a folder.

    Args:
        kind: one of VERSION_TYPES; None: the first that there is.
        folder: with the code.
        variables: of the environment.
        content: what a simple version is the digest of, e.g. the entrypoint and its file.

    Raises:
        UnknownVersionError: no such kind, or nothing of the kind is known here.
    """
    if kind is not None:
        kind = SIMPLE if kind.endswith(":simple") or kind == "simple" else kind
        if kind not in VERSION_TYPES:
            raise UnknownVersionError(f"{kind} is no type of version; there are {', '.join(VERSION_TYPES)}.")
    for one in VERSION_TYPES if kind is None else (kind,):
        if one == SIMPLE:
            return {"type": SIMPLE, "version": hashlib.sha256(content.encode()).hexdigest()[:12]}
        found = _of_git(folder) if one == "vcs:git" else _of_ci(one, variables)
        if found is not None:
            return found
    raise UnknownVersionError(f"There is no version of type {kind} here.")


def _of_ci(kind: str, variables: Mapping[str, str]) -> CodeVersion | None:
    version, branch, repository, url = (variables.get(name, "") for name in _CI[kind])
    if not version:
        return None
    if kind == "vcs:github":
        url = f"{url}/{repository}/tree/{version}" if url else ""
    found = {"type": kind, "version": version, "branch": branch, "repository": repository, "url": url}
    return {key: value for key, value in found.items() if value}


def _of_git(folder: Path) -> CodeVersion | None:
    version = _git(folder, "rev-parse", "HEAD")
    if not version:
        return None
    found = {
        "type": "vcs:git",
        "version": version,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "message": _git(folder, "log", "-1", "--format=%s"),
        "repository": Path(_git(folder, "rev-parse", "--show-toplevel")).name,
    }
    return {key: value for key, value in found.items() if value}


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def git_origin(folder: Path) -> tuple[str, str] | None:
    """The remote repository and the branch of the clone that a folder is in, if it is in one."""
    url = _git(folder, "config", "--get", "remote.origin.url")
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    # A CI's clone may have a token in its address, which must not get into a record.
    return (without_user(url)[0], branch) if url and branch and branch != "HEAD" else None
