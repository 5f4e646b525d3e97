"""`headrace work-pool`: where runs wait for workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.json_format import ParseDict, ParseError

from headrace.cli import text
from headrace.cli.as_json import enum_word, to_json
from headrace.cli.candidates import work_pool_names
from headrace.cli.changed import changed, show_changed
from headrace.cli.deleting import Doomed, delete_each
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Format, Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_json, emit_list, first, page_size, say
from headrace.cli.run_views import state_of
from headrace.client import get_client
from headrace.core.errors import ObjectNotFound
from headrace.core.job_templates import MANAGED, TEMPLATE_TYPES, base_job_template
from headrace.core.limits import PAGE_SIZE_MAX
from headrace.v1.run_pb2 import Run, RunFilter, RunKind
from headrace.v1.run_service_pb2 import RunOrder
from headrace.v1.state_pb2 import StateType
from headrace.v1.work_pool_pb2 import WorkLoad, WorkPool, WorkStatus

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

    from headrace.client.api import HeadraceClient

__all__ = [
    "clear_concurrency_limit",
    "create",
    "delete",
    "get_default_base_job_template",
    "get_pool",
    "inspect",
    "load_words",
    "ls",
    "pause",
    "preview",
    "resume",
    "set_concurrency_limit",
    "status_word",
    "update",
]

PoolArgument = Annotated[
    str, Parameter(name="WORK_POOL", help="The work pool's name.", completer=work_pool_names)
]
PoolArguments = Annotated[
    tuple[str, ...], Parameter(name="WORK_POOL", help="Names of work pools.", completer=work_pool_names)
]
LimitArgument = Annotated[int, Parameter(name="LIMIT", validator=Number(gte=0), help="Runs at once.")]
ConcurrencyLimit = Annotated[
    int | None,
    Parameter(name=["--concurrency-limit", "-l"], validator=Number(gte=0), help="Runs at once."),
]
Template = Annotated[
    Path | None,
    Parameter(help='File with the base job template, JSON; "-" reads stdin. Without it: that of the type.'),
]
Description = Annotated[str | None, Parameter(help="What it is for.")]


async def create(
    name: Annotated[str, Parameter(name="NAME", help="Of the work pool.")],
    /,
    *,
    type: Annotated[
        str,
        Parameter(
            name=["--type", "-t"],
            help="Of its workers: process, docker, kubernetes, another's, or managed (the server's own).",
        ),
    ] = "process",
    base_job_template: Template = None,
    description: Description = None,
    concurrency_limit: ConcurrencyLimit = None,
    paused: Annotated[bool, Parameter(negative="", help="Hand out no runs yet.")] = False,
    overwrite: Annotated[
        bool, Parameter(negative="", help="Change the pool of that name and type, if there is one.")
    ] = False,
    output: Output = "table",
) -> None:
    """Make a work pool."""
    asked = WorkPool(
        name=name,
        type=type,
        description=description or "",
        paused=paused,
        concurrency_limit=concurrency_limit,
    )
    if base_job_template is not None:
        _read_template(base_job_template, asked.base_job_template)
    async with get_client() as client:
        answer = await client.create_work_pool(asked, return_existing=overwrite)
        pool = answer.work_pool
        if answer.existed and overwrite:
            paths = ["description", "concurrency_limit", "paused"]
            paths += ["base_job_template"] if base_job_template is not None else []
            pool = await client.update_work_pool(asked, paths)
    if output != "table":
        emit_json(to_json(pool), indent=2 if output == "json" else None)
    how = "changed" if answer.existed and overwrite else "there already" if answer.existed else "made"
    say(f"Work pool '{pool.name}' of type '{pool.type}' is {how}.")
    if pool.type == MANAGED:
        say(
            f"The server works it itself, {pool.concurrency_limit} runs at once: there is no worker to start."
        )
    elif not answer.existed:
        if pool.type not in TEMPLATE_TYPES:
            own = nearest(pool.type, TEMPLATE_TYPES) or "The machines of its workers have to have that type."
            say(f"headrace itself has no workers of type '{pool.type}'. {own}")
        say(f"Start a worker for it: headrace worker start --pool '{pool.name}'")


async def ls(
    *,
    name: Annotated[str, Parameter(help="Only pools whose name contains this text.")] = "",
    type: Annotated[
        tuple[str, ...], Parameter(name=["--type", "-t"], help="Only pools of this type. Repeatable.")
    ] = (),
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List work pools by name."""
    listing: Listing[WorkPool] = Listing(
        headers=("NAME", "TYPE", "STATUS", "WORKERS", "LIMIT", "QUEUED", "RUNNING"),
        row=lambda pool: (
            pool.name,
            pool.type,
            status_word(pool.status),
            str(pool.online_workers),
            str(pool.concurrency_limit) if pool.HasField("concurrency_limit") else "-",
            str(pool.load.queued_runs),
            str(pool.load.held_runs),
        ),
        key=lambda pool: pool.name,
        json=to_json,
        none="No work pools. Make one: see `headrace work-pool create --help`.",
        shrink=("NAME",),
    )
    async with get_client() as client:
        pools = client.iter_work_pools(name, types=type, page_size=page_size(limit))
        await emit_list(first(limit, pools), listing, output, quiet=quiet)


async def inspect(work_pool: PoolArgument, /, *, output: Output = "table") -> None:
    """Show everything about one work pool."""
    async with get_client() as client:
        pool = await get_pool(client, work_pool)
    emit_document(to_json(pool), lambda: _details(pool), output)


async def update(
    work_pool: PoolArgument,
    /,
    *,
    base_job_template: Template = None,
    concurrency_limit: ConcurrencyLimit = None,
    description: Description = None,
    output: Output = "table",
) -> None:
    """Change a work pool."""
    change, paths = WorkPool(name=work_pool), list[str]()
    if description is not None:
        change.description = description
        paths.append("description")
    if concurrency_limit is not None:
        change.concurrency_limit = concurrency_limit
        paths.append("concurrency_limit")
    if base_job_template is not None:
        _read_template(base_job_template, change.base_job_template)
        paths.append("base_job_template")
    if not paths:
        raise CliError(
            "There is nothing to change.",
            "Give --description, --concurrency-limit or --base-job-template.",
            code=ExitCode.USAGE,
        )
    await _update(change, paths, output)


async def set_concurrency_limit(
    work_pool: PoolArgument, limit: LimitArgument, /, *, output: Output = "table"
) -> None:
    """Let at most so many runs of a work pool run at once."""
    await _update(WorkPool(name=work_pool, concurrency_limit=limit), ["concurrency_limit"], output)


async def clear_concurrency_limit(work_pool: PoolArgument, /, *, output: Output = "table") -> None:
    """Let any number of runs of a work pool run at once."""
    await _update(WorkPool(name=work_pool), ["concurrency_limit"], output)


async def _update(change: WorkPool, paths: Sequence[str], output: Format) -> None:
    async with get_client() as client:
        await get_pool(client, change.name)
        show_changed(await client.update_work_pool(change, paths), output)
    say(f"Work pool '{change.name}' is changed.")


async def pause(work_pools: PoolArguments, /, *, output: Output = "table") -> None:
    """Hand out no more runs of work pools.

    What runs goes on.
    """
    async with get_client() as client:
        with changed(output) as done:
            for name in work_pools:
                await get_pool(client, name)
                done.append(await client.pause_work_pool(name))
                say(f"Work pool '{name}' is paused.")


async def resume(work_pools: PoolArguments, /, *, output: Output = "table") -> None:
    """Hand out runs of work pools again."""
    async with get_client() as client:
        with changed(output) as done:
            for name in work_pools:
                await get_pool(client, name)
                done.append(await client.resume_work_pool(name))
                say(f"Work pool '{name}' goes on.")


async def preview(
    work_pool: PoolArgument, /, *, limit: Limit = 50, output: Output = "table", quiet: Quiet = False
) -> None:
    """List the runs that wait in a work pool, the next one first."""
    listing: Listing[Run] = Listing(
        headers=("ID", "NAME", "FLOW", "QUEUE", "STATE", "DUE"),
        row=lambda run: (
            run.id,
            run.name,
            run.flow_name,
            run.work_queue or "-",
            state_of(run),
            text.local_time(run.next_scheduled_start_time),
        ),
        key=lambda run: run.id,
        json=to_json,
        none=f"No runs wait in work pool '{work_pool}'.",
        shrink=("NAME", "FLOW"),
    )
    filter = RunFilter(
        kinds=[RunKind.RUN_KIND_FLOW],
        state_types=[StateType.STATE_TYPE_SCHEDULED],
        work_pools=[work_pool],
    )
    async with get_client() as client:
        await get_pool(client, work_pool)
        order = RunOrder.RUN_ORDER_EXPECTED_START_ASC
        runs = client.iter_runs(filter, order=order, page_size=page_size(limit))
        await emit_list(first(limit, runs), listing, output, quiet=quiet)


def get_default_base_job_template(
    *,
    type: Annotated[
        str, Parameter(name=["--type", "-t"], help=f"One of {', '.join(TEMPLATE_TYPES)}.")
    ] = "process",
    file: Annotated[Path | None, Parameter(name=["--file", "-f"], help="Write it here.")] = None,
) -> None:
    """Print the base job template of a type of worker."""
    if type not in TEMPLATE_TYPES:
        hint = nearest(type, TEMPLATE_TYPES) or f"There are: {', '.join(TEMPLATE_TYPES)}."
        raise CliError(f"headrace has no template for '{type}'.", hint, code=ExitCode.USAGE)
    template = base_job_template(type)
    if file is None:
        emit_json(template)
    else:
        file.write_text(json.dumps(template, indent=2) + "\n", encoding="utf-8")
        say(f"Wrote {file}.")


async def delete(work_pools: PoolArguments, /, *, yes: Yes = False, output: Output = "table") -> None:
    """Delete work pools with their queues.

    Deployments and runs keep the name, and wait.
    """
    async with get_client() as client:
        doomed = [Doomed(pool.id, pool.name) for pool in [await get_pool(client, n) for n in work_pools]]

        async def delete_one(thing: Doomed) -> None:
            await client.delete_work_pool(thing.name)

        await delete_each(doomed, "work pool", delete_one, along="its queues", yes=yes, output=output)


async def get_pool(client: HeadraceClient, name: str) -> WorkPool:
    """The pool with the name.

    Raises:
        CliError: there is none; the nearest name is told.
    """
    try:
        return await client.get_work_pool(name)
    except ObjectNotFound:
        listed = first(PAGE_SIZE_MAX, client.iter_work_pools(page_size=PAGE_SIZE_MAX))
        names = [pool.name async for pool in listed]
        hint = nearest(name, names) or "See `headrace work-pool ls`."
        raise CliError(f"There is no work pool '{name}'.", hint, code=ExitCode.NOT_FOUND) from None


def _read_template(path: Path, into: Struct) -> None:
    try:
        document = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        parsed: Any = json.loads(document)
        if not isinstance(parsed, dict):
            raise ValueError("it is no JSON object")
        ParseDict(cast("dict[str, Any]", parsed), into)
    except (OSError, ValueError, ParseError) as error:
        raise CliError(
            f"The base job template {path} cannot be read: {error}.", code=ExitCode.USAGE
        ) from None


def status_word(status: WorkStatus.ValueType) -> str:
    """The status as people read it."""
    return (enum_word(WorkStatus.DESCRIPTOR, status) or "-").replace("_", " ").lower()


def load_words(load: WorkLoad) -> str:
    """What waits and what runs, in one line."""
    words = f"{load.queued_runs} queued, {load.held_runs} running, {load.upcoming_runs} later"
    if load.HasField("oldest_age"):
        words += f"; the oldest has waited {text.elapsed(load.oldest_age)}"
    return words


def _details(pool: WorkPool) -> Sequence[tuple[str, str]]:
    now = datetime.now(UTC)
    return [
        ("ID", pool.id),
        ("Name", pool.name),
        ("Type", pool.type),
        ("Description", pool.description),
        ("Status", status_word(pool.status)),
        ("Online workers", str(pool.online_workers)),
        ("Limit", str(pool.concurrency_limit) if pool.HasField("concurrency_limit") else "none"),
        ("Runs", load_words(pool.load)),
        ("Default queue", pool.default_queue),
        ("Made", f"{text.local_time(pool.create_time)} ({text.age(pool.create_time, now)})"),
    ]
