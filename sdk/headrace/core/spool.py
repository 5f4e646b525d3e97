"""The spool on disk: what a process has recorded, kept until a server has it.

One folder per recorder under `<home>/spool/`, named by the recorder's id:

    lock            held (flock) by the process that records, for as long as it lives
    meta.json       who records, and for whom: `SpoolMeta`
    NNN….seg        segments of entries; NNN… is the sequence number of the first, 20 digits
    durable         8 bytes, little-endian: the highest sequence number a server has acknowledged
    sealed          exists once the process has said that it is done; holds the last sequence number

An entry in a segment is `<length: u32 LE> <crc32 of the bytes: u32 LE> <bytes>`; the bytes are one
serialised `headrace.v1.RecordEntry`. Sequence numbers are contiguous, so they are not written. A crash
can leave a torn entry at the end of the last segment: reading stops there, and nothing before it is lost.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

__all__ = ["HEADER", "SpoolMeta", "frame", "read_durable", "read_entries", "read_sealed", "segments"]

HEADER: Final = struct.Struct("<II")
SEGMENT_SUFFIX: Final = ".seg"


@dataclass(frozen=True, slots=True)
class SpoolMeta:
    """What `meta.json` says.

    Attributes:
        recorder_id: the folder's name.
        address: where the entries belong: "auto" for the server of this home, else an address.
        host: name of the machine.
        pid: process id on that machine.
        created_at: microseconds since 1970-01-01 UTC.
        sdk_version: version of headrace that writes.
        python_version: e.g. "3.11.7".
        protocol: version of the record stream the entries are written for.
    """

    recorder_id: str
    address: str
    host: str
    pid: int
    created_at: int
    sdk_version: str
    python_version: str
    protocol: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, folder: Path) -> SpoolMeta:
        """The meta of the spool in `folder`.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            return cls(**json.loads((folder / "meta.json").read_text()))
        except (OSError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder / 'meta.json'} cannot be read: {error}") from None


def frame(entry: bytes) -> bytes:
    """`entry` as it stands in a segment."""
    return HEADER.pack(len(entry), zlib.crc32(entry)) + entry


def segment_path(folder: Path, first_seq: int) -> Path:
    """Where the segment that begins with `first_seq` is."""
    return folder / f"{first_seq:020d}{SEGMENT_SUFFIX}"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """First sequence number and path of each segment, in order."""
    found = [(int(p.stem), p) for p in folder.glob(f"*{SEGMENT_SUFFIX}") if p.stem.isdigit()]
    return sorted(found)


def read_entries(folder: Path, after: int = 0) -> Iterator[tuple[int, bytes]]:
    """Sequence number and bytes of every whole entry after `after`, in order.

    Stops at a torn or damaged entry, and at a gap between segments: what follows cannot be trusted to
    be contiguous.
    """
    listed = segments(folder)
    for index, (first, path) in enumerate(listed):
        if index + 1 < len(listed) and listed[index + 1][0] <= after + 1:
            continue
        data = path.read_bytes()
        position, seq = 0, first
        while position + HEADER.size <= len(data):
            length, crc = HEADER.unpack_from(data, position)
            entry = data[position + HEADER.size : position + HEADER.size + length]
            if len(entry) < length or zlib.crc32(entry) != crc:
                return
            if seq > after:
                yield seq, entry
            position += HEADER.size + length
            seq += 1
        if index + 1 < len(listed) and listed[index + 1][0] != seq:
            return


def read_durable(folder: Path) -> int:
    """The highest acknowledged sequence number that is written down (0 if none)."""
    try:
        data = (folder / "durable").read_bytes()
    except FileNotFoundError:
        return 0
    return int.from_bytes(data[:8], "little") if len(data) >= 8 else 0


def read_sealed(folder: Path) -> int | None:
    """The last sequence number, when the recorder has said that it is done."""
    try:
        text = (folder / "sealed").read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.strip().isdigit() else None
