"""`headrace task`: tasks that are served."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.scripts import load_tasks

__all__ = ["serve"]


def serve(
    entrypoints: Annotated[
        tuple[str, ...],
        Parameter(
            name="TASKS",
            help="path/file.py:task, or a file or module alone for all of its tasks. Repeatable.",
        ),
    ],
    /,
    *,
    limit: Annotated[
        int, Parameter(name=["--limit", "-l"], validator=Number(gte=1), help="Runs at once, here.")
    ] = 10,
    status_server_port: Annotated[
        int | None,
        Parameter(
            validator=Number(gte=0, lte=65535),
            help="Serve /status, /health, /ready and /metrics over HTTP there, on loopback. 0: any port.",
        ),
    ] = None,
) -> None:
    """Run what others ask of tasks with delay(), until told to stop.

    Runs share this process. Ctrl-C lets those that run end; the second one gives them back to others.
    """
    from headrace.task_worker import serve as serve_tasks

    tasks = [task for entrypoint in entrypoints for task in load_tasks(entrypoint)]
    serve_tasks(*tasks, limit=limit, status_server_port=status_server_port)
