"""`headrace work-queue`: the lines within work pools."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.candidates import work_pool_names, work_queue_names
from headrace.cli.changed import changed, show_changed
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Format, Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_json, emit_list, first, page_size, say
from headrace.cli.work_pools import get_pool, load_words, status_word
from headrace.client import get_client
from headrace.core.errors import ObjectNotFound
from headrace.v1.work_pool_pb2 import WorkQueue

if TYPE_CHECKING:
    from headrace.client.api import HeadraceClient

__all__ = [
    "clear_concurrency_limit",
    "create",
    "delete",
    "inspect",
    "ls",
    "pause",
    "resume",
    "set_concurrency_limit",
    "update",
]

QueueArgument = Annotated[
    str, Parameter(name="WORK_QUEUE", help="The work queue's name.", completer=work_queue_names)
]
QueueArguments = Annotated[
    tuple[str, ...], Parameter(name="WORK_QUEUE", help="Names of work queues.", completer=work_queue_names)
]
Pool = Annotated[
    str, Parameter(name=["--pool", "-p"], help="The work pool it is in.", completer=work_pool_names)
]
ConcurrencyLimit = Annotated[
    int | None,
    Parameter(name=["--concurrency-limit", "-l"], validator=Number(gte=0), help="Runs at once."),
]
Priority = Annotated[
    int | None,
    Parameter(
        name=["--priority", "-q"],
        validator=Number(gte=1),
        help="1 comes first. Who has it makes room. Without it: the first that is free.",
    ),
]


async def create(
    name: Annotated[str, Parameter(name="NAME", help="Of the work queue.")],
    /,
    *,
    pool: Pool,
    priority: Priority = None,
    concurrency_limit: ConcurrencyLimit = None,
    description: Annotated[str, Parameter(help="What it is for.")] = "",
    output: Output = "table",
) -> None:
    """Make a work queue."""
    asked = WorkQueue(
        work_pool=pool,
        name=name,
        description=description,
        priority=priority or 0,
        concurrency_limit=concurrency_limit,
    )
    async with get_client() as client:
        await get_pool(client, pool)
        answer = await client.create_work_queue(asked)
    queue = answer.work_queue
    if output != "table":
        emit_json(to_json(queue), indent=2 if output == "json" else None)
    how = "there already" if answer.existed else "made"
    say(f"Work queue '{queue.name}' of work pool '{pool}' is {how}, with priority {queue.priority}.")


async def ls(
    *,
    pool: Annotated[
        str,
        Parameter(name=["--pool", "-p"], help="Only queues of this work pool.", completer=work_pool_names),
    ] = "",
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List work queues by pool and priority."""
    listing: Listing[WorkQueue] = Listing(
        headers=("POOL", "NAME", "PRIORITY", "STATUS", "LIMIT", "QUEUED", "RUNNING"),
        row=lambda queue: (
            queue.work_pool,
            queue.name,
            str(queue.priority),
            status_word(queue.status),
            str(queue.concurrency_limit) if queue.HasField("concurrency_limit") else "-",
            str(queue.load.queued_runs),
            str(queue.load.held_runs),
        ),
        key=lambda queue: f"{queue.work_pool}/{queue.name}",
        json=to_json,
        none="No work queues. Each work pool comes with one: see `headrace work-pool create --help`.",
        shrink=("POOL", "NAME"),
    )
    async with get_client() as client:
        if pool:
            await get_pool(client, pool)
        queues = client.iter_work_queues(pool, page_size=page_size(limit))
        await emit_list(first(limit, queues), listing, output, quiet=quiet)


async def inspect(work_queue: QueueArgument, /, *, pool: Pool, output: Output = "table") -> None:
    """Show everything about one work queue."""
    async with get_client() as client:
        queue = await _get(client, pool, work_queue)
    emit_document(to_json(queue), lambda: _details(queue), output)


async def update(
    work_queue: QueueArgument,
    /,
    *,
    pool: Pool,
    priority: Priority = None,
    concurrency_limit: ConcurrencyLimit = None,
    description: Annotated[str | None, Parameter(help="What it is for.")] = None,
    name: Annotated[str, Parameter(help="What it is called from now on.")] = "",
    output: Output = "table",
) -> None:
    """Change a work queue.

    Deployments and waiting runs go with its name.
    """
    said = {"priority": priority, "concurrency_limit": concurrency_limit, "description": description}
    paths = [path for path, value in said.items() if value is not None]
    if not paths and not name:
        raise CliError(
            "There is nothing to change.",
            "Give --priority, --concurrency-limit, --description or --name.",
            code=ExitCode.USAGE,
        )
    change = WorkQueue(
        priority=priority or 0, concurrency_limit=concurrency_limit, description=description or ""
    )
    await _update(pool, work_queue, change, paths, output, name)


async def set_concurrency_limit(
    work_queue: QueueArgument,
    limit: Annotated[int, Parameter(name="LIMIT", validator=Number(gte=0), help="Runs at once.")],
    /,
    *,
    pool: Pool,
    output: Output = "table",
) -> None:
    """Let at most so many runs of a work queue run at once."""
    await _update(pool, work_queue, WorkQueue(concurrency_limit=limit), ["concurrency_limit"], output)


async def clear_concurrency_limit(
    work_queue: QueueArgument, /, *, pool: Pool, output: Output = "table"
) -> None:
    """Let any number of runs of a work queue run at once."""
    await _update(pool, work_queue, WorkQueue(), ["concurrency_limit"], output)


async def _update(
    pool: str, name: str, change: WorkQueue, paths: Sequence[str], output: Format, new_name: str = ""
) -> None:
    change.work_pool, change.name = pool, name
    async with get_client() as client:
        await _get(client, pool, name)
        show_changed(await client.update_work_queue(change, paths, new_name=new_name), output)
    say(f"Work queue '{name}' of work pool '{pool}' is changed.")


async def pause(work_queues: QueueArguments, /, *, pool: Pool, output: Output = "table") -> None:
    """Hand out no more runs of work queues.

    What runs goes on.
    """
    async with get_client() as client:
        with changed(output) as done:
            for name in work_queues:
                await _get(client, pool, name)
                done.append(await client.pause_work_queue(pool, name))
                say(f"Work queue '{name}' is paused.")


async def resume(work_queues: QueueArguments, /, *, pool: Pool, output: Output = "table") -> None:
    """Hand out runs of work queues again."""
    async with get_client() as client:
        with changed(output) as done:
            for name in work_queues:
                await _get(client, pool, name)
                done.append(await client.resume_work_queue(pool, name))
                say(f"Work queue '{name}' goes on.")


async def delete(
    work_queues: QueueArguments, /, *, pool: Pool, yes: Yes = False, output: Output = "table"
) -> None:
    """Delete work queues; their runs wait in the pool's default one."""
    async with get_client() as client:
        doomed = [
            Doomed(queue.id, queue.name) for queue in [await _get(client, pool, n) for n in work_queues]
        ]

        async def delete_one(thing: Doomed) -> None:
            await client.delete_work_queue(pool, thing.name)

        await delete_each(doomed, "work queue", delete_one, yes=yes, output=output)


async def _get(client: HeadraceClient, pool: str, name: str) -> WorkQueue:
    await get_pool(client, pool)
    try:
        return await client.get_work_queue(pool, name)
    except ObjectNotFound:
        names = [queue.name async for queue in client.iter_work_queues(pool)]
        hint = nearest(name, names) or f"It has: {', '.join(names)}."
        raise CliError(f"Work pool '{pool}' has no queue '{name}'.", hint, code=ExitCode.NOT_FOUND) from None


def _details(queue: WorkQueue) -> Sequence[tuple[str, str]]:
    now = datetime.now(UTC)
    return [
        ("ID", queue.id),
        ("Work pool", queue.work_pool),
        ("Name", queue.name + (" (the default)" if queue.is_default else "")),
        ("Description", queue.description),
        ("Priority", str(queue.priority)),
        ("Status", status_word(queue.status)),
        ("Limit", str(queue.concurrency_limit) if queue.HasField("concurrency_limit") else "none"),
        ("Runs", load_words(queue.load)),
        ("Made", f"{text.local_time(queue.create_time)} ({text.age(queue.create_time, now)})"),
    ]
