"""What has been spooled and not yet acknowledged, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from headrace.core.spool import read_entries
from headrace.recorder.entries import chunk

__all__ = ["MEMORY_BYTES", "Backlog", "Batch"]

MEMORY_BYTES: Final = 16 * 1024 * 1024
"""Above this, entries that wait are only on disk and are read back when their turn comes."""


class Batch(NamedTuple):
    """Entries that follow each other, as members of `RecordEntries`.

    Attributes:
        first_seq: of the first one.
        chunks: their wire form.
        size: bytes of all chunks.
    """

    first_seq: int
    chunks: list[bytes]
    size: int

    @property
    def last_seq(self) -> int:
        """Sequence number of the last one."""
        return self.first_seq + len(self.chunks) - 1


class Backlog:
    """The newest run of entries in memory, older ones on disk. Not thread-safe: the caller has a lock."""

    def __init__(self, folder: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        # Entry `_first` is at `_head`; what is before it was acknowledged.
        self._chunks: list[bytes] = []
        self._head = 0
        self._first = 1
        self._bytes = 0
        self._reader: Iterator[tuple[int, bytes]] = iter(())
        self._read_next = 0
        self._held: tuple[int, bytes] | None = None

    @property
    def _end(self) -> int:
        return self._first + len(self._chunks) - self._head

    def add(self, seq: int, data: bytes, sent: int) -> None:
        """Keep entry `seq` in memory if it fits there.

        Args:
            seq: one more than that of the call before.
            data: the serialised entry.
            sent: the highest sequence number already taken; memory starts again after it when it is empty.
        """
        if self._head == len(self._chunks) and sent >= seq - 1:
            self._chunks, self._head, self._first = [], 0, seq
        if seq != self._end or self._bytes >= self._memory_bytes:
            return
        self._chunks.append(piece := chunk(data))
        self._bytes += len(piece)

    def release(self, seq: int) -> None:
        """Everything up to `seq` is acknowledged."""
        count = min(seq - self._first + 1, len(self._chunks) - self._head)
        if count <= 0:
            return
        self._bytes -= sum(map(len, self._chunks[self._head : self._head + count]))
        self._head += count
        self._first += count
        if self._head > 1000 and self._head * 2 > len(self._chunks):
            del self._chunks[: self._head]
            self._head = 0

    def take(self, first: int, last: int, max_bytes: int) -> Batch:
        """Entries from `first` up to `last`: at least one, and no more than fit in `max_bytes`.

        The batch is empty when the spool does not hold `first` any more.
        """
        if not self._first <= first < self._end:
            return self._take_from_disk(first, last, max_bytes)
        start = self._head + first - self._first
        chunks = self._chunks[start : start + last - first + 1]
        size = 0
        for index, piece in enumerate(chunks):
            if size + len(piece) > max_bytes and index:
                return Batch(first, chunks[:index], size)
            size += len(piece)
        return Batch(first, chunks, size)

    def _take_from_disk(self, first: int, last: int, max_bytes: int) -> Batch:
        """Read on where the last batch ended, or find the place anew.

        A segment is read whole, so a reader does not see what was appended to it later: one that ends
        early is tried again from the files as they are now.
        """
        if self._read_next == first:
            batch = self._read_on(first, last, max_bytes)
            if batch.chunks:
                return batch
        self._seek(first)
        return self._read_on(first, last, max_bytes)

    def _read_on(self, first: int, last: int, max_bytes: int) -> Batch:
        chunks: list[bytes] = []
        size = 0
        while self._read_next <= last:
            item = self._held or next(self._reader, None)
            self._held = None
            if item is None or item[0] != self._read_next:
                self._seek(0)
                break
            piece = chunk(item[1])
            if chunks and size + len(piece) > max_bytes:
                self._held = item
                break
            chunks.append(piece)
            size += len(piece)
            self._read_next += 1
        return Batch(first, chunks, size)

    def _seek(self, first: int) -> None:
        self._reader = read_entries(self._folder, after=first - 1) if first else iter(())
        self._read_next, self._held = first, None

    def get(self, seq: int) -> bytes | None:
        """The serialised entry `seq`, if it is still held."""
        if self._first <= seq < self._end:
            piece = self._chunks[self._head + seq - self._first]
            return piece[_prefix_length(piece) :]
        return next((data for found, data in read_entries(self._folder, after=seq - 1) if found == seq), None)


def _prefix_length(piece: bytes) -> int:
    """Bytes of the tag and of the length before the entry itself."""
    length = 1
    while piece[length] & 0x80:
        length += 1
    return length + 1
