"""`headrace worker ls`, `inspect`, `drain` and `delete`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.changed import show_changed
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Limit, Output, Quiet
from headrace.cli.output import Listing, emit_document, emit_list, first, page_size, say
from headrace.client import get_client
from headrace.v1.worker_pb2 import Worker, WorkerStatus

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = ["delete", "drain", "inspect", "ls"]

WorkerArgument = Annotated[
    str, Parameter(name="WORKER", help="A worker: its name, its id, or a unique beginning of one.")
]


async def ls(
    *,
    pool: Annotated[str, Parameter(name=["--pool", "-p"], help="Only workers of this pool.")] = "",
    online: Annotated[bool, Parameter(help="Leave out those that are offline.")] = False,
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List workers by name."""
    now = datetime.now(UTC)
    listing: Listing[Worker] = Listing(
        headers=("ID", "NAME", "POOL", "TYPE", "STATUS", "RUNS", "HEARD"),
        row=lambda worker: (
            worker.id,
            worker.name,
            worker.work_pool,
            worker.type,
            _status(worker),
            str(len(worker.held)),
            text.age(worker.last_heartbeat_time, now),
        ),
        key=lambda worker: worker.id,
        json=to_json,
        none="No workers. Start one with `headrace worker start --pool default`.",
        shrink=("NAME", "POOL"),
    )
    wanted = [WorkerStatus.WORKER_STATUS_ONLINE, WorkerStatus.WORKER_STATUS_DRAINING] if online else []
    async with get_client() as client:
        found = client.iter_workers(pool, statuses=wanted, page_size=page_size(limit))
        await emit_list(first(limit, found), listing, output, quiet=quiet)


async def inspect(worker: WorkerArgument, /, *, output: Output = "table") -> None:
    """Show everything about one worker."""
    async with get_client() as client:
        found = await client.get_worker((await _find(client, worker)).id)
    emit_document(to_json(found), lambda: _details(found), output)


async def drain(
    worker: WorkerArgument,
    /,
    *,
    grace_seconds: Annotated[
        float | None,
        Parameter(validator=Number(gte=0), help="What still runs then is given back; else it may end."),
    ] = None,
    output: Output = "table",
) -> None:
    """Have a worker take nothing new, finish what it holds, and leave."""
    async with get_client() as client:
        found = await client.drain_worker((await _find(client, worker)).id, deadline_seconds=grace_seconds)
    show_changed(found, output)
    say(f"Worker {text.clean(found.name)} drains; it holds {_runs(len(found.held))}.")


async def delete(worker: WorkerArgument, /) -> None:
    """Forget a worker that is offline."""
    async with get_client() as client:
        found = await _find(client, worker)
        await client.delete_worker(found.id)
    say(f"Deleted worker {text.clean(found.name)}.")


async def _find(client: HeadraceClient, word: str) -> Worker:
    """The worker that `word` means.

    Raises:
        CliError: there is none, or more than one.
    """
    workers = [worker async for worker in client.iter_workers()]
    exact = [w for w in workers if word in (w.id, w.name)]
    found = exact or [w for w in workers if w.id.startswith(word) or w.name.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(f"{w.name} ({w.id})" for w in found[:5])
        raise CliError(f"'{word}' means more than one worker: {shown}.", "Give an id.", code=ExitCode.USAGE)
    hint = nearest(word, [w.name for w in workers]) or "See `headrace worker ls`."
    raise CliError(f"There is no worker '{word}'.", hint, code=ExitCode.NOT_FOUND)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


def _status(worker: Worker) -> str:
    return WorkerStatus.Name(worker.status).removeprefix("WORKER_STATUS_").capitalize()


def _details(worker: Worker) -> list[tuple[str, str]]:
    slots = ", ".join(f"{slot.total} of {slot.kind}" for slot in worker.slots)
    facts = [
        ("ID", worker.id),
        ("Name", worker.name),
        ("Pool", worker.work_pool),
        ("Deployments", ", ".join(worker.deployment_ids)),
        ("Type", worker.type),
        ("Queues", ", ".join(worker.work_queues)),
        ("Status", _status(worker)),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(worker.labels.items()))),
        ("Slots", slots),
        ("Host", worker.sdk.host),
        ("Process", str(worker.sdk.pid or "")),
        ("Version", worker.sdk.version),
        ("Heard", text.local_time(worker.last_heartbeat_time)),
        ("Runs", "\n".join(held.attempt.run_id for held in worker.held)),
    ]
    return [(label, value) for label, value in facts if value]
