"""`python -m headrace_workers.managed`: the worker of one managed pool, started by a server as its child.

Where the server is and how to be let in is in the environment, as for any worker. It ends with the server:
when that is killed, the kernel kills this process, and with it everything that it runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace_workers.process.system import die_with_parent

__all__ = ["main"]


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace_workers.managed")
    parser.add_argument("pool")
    parser.add_argument("--name", required=True, help="of the worker")
    parser.add_argument("--parent", type=int, required=True, help="process id of the server")
    parser.add_argument("--grace-seconds", type=float, required=True, help="when it is told to leave")
    parser.add_argument("--environments", type=Path, required=True, help="folder of virtual environments")
    parser.add_argument("--keep-seconds", type=float, required=True, help="those that nobody uses")
    parser.add_argument("--keep-bytes", type=int, required=True, help="all of them")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Be the worker, until told to leave.

    Returns:
        The exit code.
    """
    told = _arguments(argv)
    die_with_parent(told.parent)
    import asyncio

    from headrace.core.errors import HeadraceException
    from headrace.settings import get_current_settings
    from headrace_workers.lines import LineWriter
    from headrace_workers.managed.environments import Environments
    from headrace_workers.managed.worker import ManagedWorker
    from headrace_workers.service import WorkerOptions, WorkerService

    writer = LineWriter()

    async def run() -> None:
        environments = Environments(told.environments, told.keep_seconds, told.keep_bytes)
        options = WorkerOptions(name=told.name, work_pool=told.pool, grace_seconds=told.grace_seconds)
        worker = ManagedWorker(environments)
        await WorkerService(options, worker, get_current_settings(), writer).run()

    try:
        asyncio.run(run())
    except HeadraceException as error:
        writer(f"Error: {error}")
        return 1
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
