"""Spools as a recording process leaves them behind."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headrace.core.spool import SpoolMeta, frame, segment_path
from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["held", "write_spool"]


def write_spool(
    root: Path,
    recorder_id: str,
    entries: Sequence[RecordEntry | bytes],
    *,
    sealed: bool | int = False,
    meta_text: str | None = None,
    torn: bytes = b"",
    address: str = "auto",
    pid: int = 2**22 - 3,
) -> Path:
    """A spool with these entries in one segment, whose process is gone. It appears all at once.

    Args:
        sealed: whether the process has said that it is done; a number says after which entry.
        meta_text: what `meta.json` says instead of the truth.
        torn: bytes after the last whole entry, as a crash in the middle of a write leaves them.
        pid: of the process; nobody has the default one.
    """
    folder = root.parent / f"making-{recorder_id}"
    folder.mkdir(parents=True)
    root.mkdir(exist_ok=True)
    (folder / "lock").write_bytes(b"")
    meta = SpoolMeta(
        recorder_id=recorder_id,
        address=address,
        host=socket.gethostname(),
        pid=pid,
        created_at=0,
        sdk_version="test",
        python_version="3.11",
        protocol=1,
    )
    (folder / "meta.json").write_text(meta.to_json() if meta_text is None else meta_text)
    data = [e if isinstance(e, bytes) else e.SerializeToString() for e in entries]
    segment_path(folder, 1).write_bytes(b"".join(map(frame, data)) + torn)
    if sealed:
        (folder / "sealed").write_text(str(len(entries) if sealed is True else sealed))
    os.utime(folder, (0, 0))
    return folder.rename(root / recorder_id)


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Holds the spool's lock, as its living process does."""
    descriptor = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
