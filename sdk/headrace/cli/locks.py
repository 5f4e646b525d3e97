"""`headrace lock`: locks that the server keeps."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_json, emit_list, first, page_size, say
from headrace.cli.prompts import confirm
from headrace.client import get_client
from headrace.core.errors import ObjectNotFound
from headrace.v1.lock_pb2 import Lock

__all__ = ["ls", "release"]


async def ls(
    *,
    prefix: Annotated[str, Parameter(help="Only locks whose keys begin so, e.g. flow/nightly/.")] = "",
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List locks by key: who has them, and until when."""
    listing: Listing[Lock] = Listing(
        headers=("KEY", "HOLDER", "PROCESS", "SINCE", "LEASE ENDS"),
        row=lambda lock: (
            lock.key,
            lock.holder,
            lock.client or "-",
            text.local_time(lock.acquire_time),
            text.local_time(lock.expire_time),
        ),
        key=lambda lock: lock.key,
        json=to_json,
        none="No locks.",
        shrink=("KEY", "HOLDER"),
    )
    async with get_client() as client:
        found = client.iter_locks(prefix, page_size=page_size(limit))
        await emit_list(first(limit, found), listing, output, quiet=quiet)


async def release(
    key: Annotated[str, Parameter(name="KEY", help="Of the lock.")],
    /,
    *,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Take a lock away from its holder, which may still be at work.

    A lock of a process that has died needs no such thing: it ends with its lease.
    """
    async with get_client() as client:
        try:
            lock = await client.get_lock(key)
        except ObjectNotFound:
            known = [lock.key async for lock in first(1000, client.iter_locks())]
            hint = nearest(key, known) or "See `headrace lock ls`."
            raise CliError(f"Nobody has the lock '{key}'.", hint, code=ExitCode.NOT_FOUND) from None
        confirm(f"Take the lock '{key}' away from {lock.holder} ({lock.client or 'unknown'})?", yes=yes)
        released = await client.release_lock(key, lock.holder, fence=lock.fence)
    if output != "table":
        emit_json(to_json(lock) | {"released": released}, indent=2 if output == "json" else None)
    say(f"The lock '{key}' is free." if released else f"The lock '{key}' has got another holder meanwhile.")
