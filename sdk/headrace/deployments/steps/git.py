"""The step that fetches code from git."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.deployments.git import GitRepository

__all__ = ["git_clone"]


async def git_clone(
    repository: str,
    branch: str | None = None,
    commit_sha: str | None = None,
    include_submodules: bool = False,
    access_token: str | None = None,
    credentials: Mapping[str, Any] | None = None,
    directories: Sequence[str] | None = None,
    clone_directory_name: str | None = None,
) -> dict[str, str]:
    """Clone a repository below the current directory, or bring the clone that is there up to date.

    Args:
        repository: where it is: https, ssh or a path.
        branch: a branch or a tag; unset: the repository's own choice.
        commit_sha: exactly this commit, instead of a branch.
        include_submodules: fetch the repositories it refers to as well.
        access_token: for https; never shown, nor kept in the clone.
        credentials: instead of the token: {"username": ..., "password": ...} or {"access_token": ...}.
        directories: only these.
        clone_directory_name: of the clone; unset: the repository's name, with the branch's if given.

    Returns:
        `directory`: name of the clone; `commit_sha`: what it is at.

    Raises:
        ValueError: arguments that exclude each other.
        GitError: git cannot do it; the text says why.
    """
    if access_token and credentials:
        raise ValueError("access_token and credentials exclude each other: give one of them.")
    source = GitRepository(
        repository,
        credentials={"access_token": access_token} if access_token else credentials,
        name=clone_directory_name,
        branch=branch,
        commit_sha=commit_sha,
        include_submodules=include_submodules,
        directories=directories,
    )
    source.set_base_path(Path.cwd())
    commit = await source.pull_code()
    return {"directory": source.destination.name, "commit_sha": commit}
