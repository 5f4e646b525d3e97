"""What an image is built of: the files of a folder, without those that `.dockerignore` names."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

__all__ = ["default_dockerfile", "pack"]

DOCKERFILE: Final = "Dockerfile.headrace"
"""The name, within what is sent to the engine, of a Dockerfile that is not a file of the folder."""


def default_dockerfile(folder: Path, base_image: str) -> str:
    """What puts a folder with flows into an image, with what its `requirements.txt` names."""
    place = f"/opt/headrace/{folder.name}/"
    lines = [f"FROM {base_image}", f"WORKDIR {place}"]
    if (folder / "requirements.txt").is_file():
        lines += [f"COPY requirements.txt {place}", "RUN python -m pip install -r requirements.txt"]
    return "\n".join([*lines, f"COPY . {place}", ""])


def pack(folder: Path, dockerfile: str | None) -> IO[bytes]:
    """The files, as the engine takes them: a gzipped tar, in a temporary file at its beginning.

    Args:
        folder: whose files.
        dockerfile: text of one that is added as `DOCKERFILE`; None: none is.
    """
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for path in _files(folder, _rules(folder)):
            tar.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
        if dockerfile is not None:
            entry = tarfile.TarInfo(DOCKERFILE)
            entry.size = len(dockerfile.encode())
            tar.addfile(entry, io.BytesIO(dockerfile.encode()))
    packed.seek(0)
    return packed


def _files(folder: Path, rules: Sequence[tuple[re.Pattern[str], bool]]) -> Iterator[Path]:
    """All below the folder that no rule leaves out; the last rule that fits decides."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_left_out = False
        for pattern, leaves_out in rules:
            if pattern.match(name):
                is_left_out = leaves_out
        if not is_left_out:
            yield path


def _rules(folder: Path) -> list[tuple[re.Pattern[str], bool]]:
    """What `.dockerignore` says: patterns of names and of all below them, and whether they leave it out."""
    try:
        lines = (folder / ".dockerignore").read_text().splitlines()
    except FileNotFoundError:
        return []
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").strip().strip("/").removeprefix("./")
            rules.append((re.compile(_regex(pattern) + r"(/.*)?\Z"), not line.startswith("!")))
    return rules


def _regex(pattern: str) -> str:
    """A pattern with `*`, `?`, `[…]` and `**`, as an expression."""
    found = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    words = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part, part if part.startswith("[") else re.escape(part)) for part in found)
