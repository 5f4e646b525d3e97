"""Spools that were left behind for a server elsewhere: sent under the old recorder's id.

The server of a home takes that home's spools in by itself. For one at an explicit address, the next process
that records there does it, or `headrace spool flush`.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from headrace.core.errors import ServiceError
from headrace.core.limits import BATCH_BYTES, BATCH_ENTRIES
from headrace.core.spool import SpoolMeta, read_durable, read_entries, read_sealed
from headrace.recorder.entries import dropped_notice, without_verdict
from headrace.recorder.spool import locked
from headrace.v1 import record_service_pb2 as pb

__all__ = ["Send", "adopt", "deliver"]

logger = logging.getLogger("headrace.recorder")

Send: TypeAlias = Callable[[pb.RecordBatchRequest], Awaitable[pb.RecordBatchResponse]]
"""Makes one `RecordBatch` call; raises `ServiceError`."""


async def adopt(send: Send, root: Path, address: str) -> int:
    """Deliver every spool under `root` that was written on this machine for `address` and left behind.

    Returns:
        How many were delivered. One that the server does not take is left as it is, with a warning.
    """
    delivered = 0
    for folder in _left_behind(root, address):
        with locked(folder) as is_free:
            if not is_free:
                continue
            try:
                await deliver(send, folder)
                delivered += 1
            except ServiceError as error:
                logger.warning("The spool %s cannot be delivered yet: %s", folder, error)
    return delivered


def _left_behind(root: Path, address: str) -> list[Path]:
    """Spools of this machine's processes for that address, dead or alive."""
    found: list[Path] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            meta = SpoolMeta.read(folder)
        except ValueError:
            continue
        if meta.address == address and meta.host == socket.gethostname():
            found.append(folder)
    return found


async def deliver(send: Send, folder: Path) -> int:
    """Send what a spool holds, then remove it. The caller has its lock.

    Without a seal in the spool the recorder's lease runs out, and the server ends the runs of the process
    that died.

    Returns:
        How many entries the server had not had.

    Raises:
        ServiceError: the server did not take it; the spool is as it was.
        ValueError: the spool's `meta.json` cannot be read.
    """
    meta = SpoolMeta.read(folder)
    opening = pb.RecorderOpen(
        protocol_min=meta.protocol,
        protocol_max=meta.protocol,
        recorder_id=meta.recorder_id,
        known_durable_seq=read_durable(folder),
        sdk=pb.SdkInfo(name="headrace", version=meta.sdk_version, host=meta.host, pid=meta.pid),
    )
    opened = await send(pb.RecordBatchRequest(recorder_id=meta.recorder_id, open=opening))
    first = last = opened.ack.durable_seq
    for batch in _batches(folder, first):
        answer = await send(pb.RecordBatchRequest(recorder_id=meta.recorder_id, entries=batch))
        last = answer.ack.durable_seq
    if read_sealed(folder) is not None:
        await send(pb.RecordBatchRequest(recorder_id=meta.recorder_id, seal=True))
    shutil.rmtree(folder, ignore_errors=True)
    return last - first


def _batches(folder: Path, after: int) -> Iterator[pb.RecordEntries]:
    """What comes after `after`, in batches that the server takes."""
    batch, size = pb.RecordEntries(first_seq=after + 1), 0
    for data in _contiguous(folder, after):
        if batch.entries and (len(batch.entries) >= BATCH_ENTRIES or size + len(data) > BATCH_BYTES):
            yield batch
            batch, size = pb.RecordEntries(first_seq=batch.first_seq + len(batch.entries)), 0
        batch.entries.append(pb.RecordEntry.FromString(without_verdict(data)))
        size += len(data)
    if batch.entries:
        yield batch


def _contiguous(folder: Path, after: int) -> Iterator[bytes]:
    """The entries, with notices in the place of those that were acknowledged once and are gone."""
    for seq, data in read_entries(folder, after):
        while after + 1 < seq:
            after += 1
            yield dropped_notice(0, 0).data
        after = seq
        yield data
