"""The command `headrace worker`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from headrace.cli.failures import CliError, ExitCode

if TYPE_CHECKING:
    from headrace.v1.work_pool_pb2 import WorkPool
    from headrace_workers.base import BaseWorker

__all__ = ["worker"]

DEFAULT_TYPE = "process"

worker = App(
    name="worker",
    help="Workers: processes that take runs from the server and see them through.",
    help_format="plaintext",
    version_flags=[],
    default_parameter=Parameter(negative=()),
)
# Their own words, so that a list of commands need not import them.
_QUERIES = {
    "ls": "List workers by name.",
    "inspect": "Show everything about one worker.",
    "drain": "Have a worker take nothing new, finish what it holds, and leave.",
    "delete": "Forget a worker that is offline.",
}
for _name, _help in _QUERIES.items():
    worker.command(f"headrace_workers.queries:{_name}", name=_name, help=_help)


@worker.command
def start(
    *,
    pool: Annotated[str, Parameter(name=["--pool", "-p"], help="The work pool whose runs it takes.")],
    name: Annotated[str, Parameter(name=["--name", "-n"], help="What people see; else one is made up.")] = "",
    type: Annotated[
        str | None,
        Parameter(name=["--type", "-t"], help="Type of the worker: the pool's, else `process`."),
    ] = None,
    limit: Annotated[
        int | None,
        Parameter(name=["--limit", "-l"], validator=Number(gte=1), help="At most so many runs at once."),
    ] = None,
    work_queue: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--work-queue", "-q"],
            help="Only runs of this queue. Repeatable. One that is not there yet is waited for.",
        ),
    ] = (),
    label: Annotated[
        tuple[str, ...],
        Parameter(help="KEY=VALUE that runs may ask of their worker. Repeatable."),
    ] = (),
    prefetch_seconds: Annotated[
        float, Parameter(validator=Number(gte=0), help="Take runs so long before their time.")
    ] = 10.0,
    run_once: Annotated[bool, Parameter(help="Take what is there now, see it through, and leave.")] = False,
    with_healthcheck: Annotated[
        bool, Parameter(help="Serve /health, /ready and /metrics over HTTP, on port 8080.")
    ] = False,
    health_address: Annotated[
        str, Parameter(help="HOST:PORT of the health server; port 0 takes any free one.")
    ] = "0.0.0.0:8080",
    create_pool_if_not_found: Annotated[
        bool,
        Parameter(
            negative="--no-create-pool-if-not-found", help="Make the pool if there is none of that name."
        ),
    ] = True,
    base_job_template: Annotated[
        Path | None, Parameter(help="File with the template of the pool that is made, as JSON.")
    ] = None,
    strict_lease: Annotated[
        bool,
        Parameter(help="End runs before others may be given them, while the server cannot be reached."),
    ] = False,
    grace_seconds: Annotated[
        float | None,
        Parameter(
            validator=Number(gte=0),
            help="How long runs may go on when the worker is told to leave; else until they end.",
        ),
    ] = None,
) -> int:
    """Start a worker in the foreground.

    Ctrl-C, or SIGTERM, lets it drain: it takes nothing new and leaves when its runs have ended. The second
    time, what still runs is ended and given back to the server, so that another worker can have it.
    """
    import asyncio

    from headrace.settings import get_current_settings
    from headrace_workers.lines import LineWriter
    from headrace_workers.service import WorkerOptions, WorkerService

    settings = get_current_settings()
    template = _read_template(base_job_template)
    address = _address(health_address) if with_healthcheck else None
    labels = _labels(label)
    writer = LineWriter()

    async def run() -> None:
        # Until the worker takes them over: a signal that comes early ends the command.
        found = await _find_pool(pool, type, template, create=create_pool_if_not_found, tell=writer)
        instance = _new_worker(found.type)
        options = WorkerOptions(
            name=name,
            work_pool=pool,
            work_queues=work_queue,
            labels=labels,
            limit=limit,
            prefetch_seconds=prefetch_seconds,
            run_once=run_once,
            is_strict=strict_lease,
            grace_seconds=grace_seconds,
            health_address=address,
        )
        service = WorkerService(options, instance, settings, writer)
        writer(f"Worker {service.name} of pool {pool} ({found.type}). Ctrl-C lets it drain and leave.")
        await service.run()
        writer(f"Worker {service.name} has left.")

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        asyncio.run(run())
    finally:
        writer.close()
    return ExitCode.OK


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _new_worker(type: str) -> BaseWorker[Any]:
    from headrace_workers.registry import find_worker_type

    return find_worker_type(type)()


async def _find_pool(
    name: str, type: str | None, template: dict[str, Any] | None, *, create: bool, tell: Any
) -> WorkPool:
    """The pool, made if that is wanted.

    Raises:
        CliError: there is none, or it is of another type.
    """
    from google.protobuf.json_format import ParseDict

    from headrace.client import get_client
    from headrace.core.errors import ObjectNotFound
    from headrace.v1.work_pool_pb2 import WorkPool
    from headrace_workers.registry import find_worker_type

    async with get_client() as client:
        try:
            found = await client.get_work_pool(name)
        except ObjectNotFound:
            if not create:
                raise
            wanted = WorkPool(name=name, type=type or DEFAULT_TYPE)
            own = template or find_worker_type(wanted.type).get_default_base_job_template()
            ParseDict(own, wanted.base_job_template)
            found = (await client.create_work_pool(wanted, return_existing=True)).work_pool
            tell(f"Made the work pool {name} ({found.type}).")
    if type is not None and type != found.type:
        raise CliError(
            f"The work pool {name} is for workers of type '{found.type}', not '{type}'.",
            f"Leave --type out, or say --type {found.type}.",
            code=ExitCode.USAGE,
        )
    return found


def _read_template(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        template: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.", code=ExitCode.NOT_FOUND) from None
    except ValueError as error:
        raise CliError(f"{path} is no JSON: {error}.", code=ExitCode.USAGE) from None
    return template


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise CliError(f"--label {text} is not KEY=VALUE.", code=ExitCode.USAGE)
        labels[key] = value
    return labels


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise CliError(f"--health-address {text} is not HOST:PORT.", code=ExitCode.USAGE)
    return host.strip("[]"), int(port)
