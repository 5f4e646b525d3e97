"""`headrace spool`: what processes have recorded that no server has yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby

from headrace.cli import text
from headrace.cli.failures import ExitCode
from headrace.cli.options import Output, Quiet
from headrace.cli.output import Listing, emit_list, iterate, say
from headrace.core.clock import from_micros
from headrace.core.errors import ServiceError
from headrace.core.spool import SpoolMeta, read_durable, read_entries, read_sealed
from headrace.recorder.spool import locked
from headrace.settings import get_current_settings, home_folder

__all__ = ["flush", "ls"]


@dataclass(frozen=True, slots=True)
class _Spool:
    """One spool as it is on the disk.

    Attributes:
        recorder_id: the folder's name.
        address: the server it is for; "auto" for the one of this home.
        state: "recording" (its process lives), "ended" (it has said that it is done) or "left" (it died).
        pid: of its process.
        host: its machine.
        created_at: RFC 3339, UTC.
        entries: how many it holds that no server has acknowledged.
        size_bytes: of all its files.
    """

    recorder_id: str
    address: str
    state: str
    pid: int
    host: str
    created_at: str
    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of flushing one spool; `error` is empty when its entries are with the server."""

    recorder_id: str
    address: str
    entries: int
    error: str


async def ls(*, output: Output = "table", quiet: Quiet = False) -> None:
    """List spools."""
    now = datetime.now(UTC)
    listing: Listing[_Spool] = Listing(
        headers=("RECORDER", "FOR", "STATE", "PID", "HOST", "ENTRIES", "SIZE", "CREATED"),
        row=lambda s: (
            s.recorder_id,
            s.address,
            s.state,
            str(s.pid),
            s.host,
            str(s.entries),
            f"{s.size_bytes / 1024:.0f} KiB",
            text.ago(datetime.fromisoformat(s.created_at), now),
        ),
        key=lambda s: s.recorder_id,
        json=asdict,
        none="No spools: every record is with a server.",
        shrink=("HOST",),
    )
    await emit_list(iterate(_spools()), listing, output, quiet=quiet)


async def flush(*, output: Output = "table", quiet: Quiet = False) -> int:
    """Hand every spool of this home to its server.

    Spools whose process still records are left to it. A server for this home is started if there is none.
    """
    waiting = sorted((s for s in _spools() if s.state != "recording"), key=lambda s: s.address)
    outcomes: list[_Outcome] = []
    for address, group in groupby(waiting, key=lambda s: s.address):
        outcomes.extend(await _flush_to(address, list(group)))
    listing: Listing[_Outcome] = Listing(
        headers=("RECORDER", "FOR", "ENTRIES", "OUTCOME"),
        row=lambda o: (o.recorder_id, o.address, str(o.entries), o.error or "delivered"),
        key=lambda o: o.recorder_id,
        json=asdict,
        none="No spools to flush.",
    )
    await emit_list(iterate(outcomes), listing, output, quiet=quiet)
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        say(f"Error: {failed[0].error}")
    return ExitCode.FAILED if failed else ExitCode.OK


def _spools() -> Iterator[_Spool]:
    root = home_folder() / "spool"
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            meta = SpoolMeta.read(folder)
        except ValueError:
            continue
        with locked(folder) as is_free:
            state = "recording" if not is_free else "ended" if read_sealed(folder) is not None else "left"
        yield _Spool(
            recorder_id=meta.recorder_id,
            address=meta.address,
            state=state,
            pid=meta.pid,
            host=meta.host,
            created_at=f"{from_micros(meta.created_at):%Y-%m-%dT%H:%M:%S.%fZ}",
            entries=sum(1 for _ in read_entries(folder, read_durable(folder))),
            size_bytes=sum(p.stat().st_size for p in folder.iterdir() if p.is_file()),
        )


async def _flush_to(address: str, spools: list[_Spool]) -> list[_Outcome]:
    from headrace.client import get_client
    from headrace.recorder.replay import deliver

    outcomes: list[_Outcome] = []
    root = home_folder() / "spool"
    try:
        async with get_client(replace(get_current_settings(), api_url=address)) as client:
            for spool in spools:
                with locked(root / spool.recorder_id) as is_free:
                    # The server of this home takes spools in by itself, and may have been quicker.
                    if is_free:
                        await deliver(client.record_batch, root / spool.recorder_id)
                outcomes.append(_Outcome(spool.recorder_id, address, spool.entries, ""))
    except ServiceError as error:
        told = {outcome.recorder_id for outcome in outcomes}
        outcomes.extend(
            _Outcome(s.recorder_id, address, s.entries, str(error))
            for s in spools
            if s.recorder_id not in told
        )
    return outcomes
