"""The server in this process: its event loop, its log, and its failures told in one line."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

# The C core would otherwise write its own lines about every connection that breaks.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from headrace.core.errors import HeadraceException
from headrace_services.server import Server, new_event_loop, serve
from headrace_services.settings import ServerSettings
from headrace_services.start_errors import check_url, explain

__all__ = ["run_server"]


def run_server(settings: ServerSettings, idle_timeout_seconds: float | None) -> int:
    """Serves until told to stop.

    Returns:
        The exit code, 0.

    Raises:
        HeadraceException: the server could not start; the message says what to do.
    """
    check_url(settings.database_url)
    _set_up_log(settings.server_logging_level)

    def ready(server: Server) -> None:
        print(
            f"headrace serves {settings.home} on {server.address} ({server.database.dialect}). "
            "Stop it with Ctrl-C or `headrace server stop`.",
            file=sys.stderr,
            flush=True,
        )

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings, idle_timeout_seconds=idle_timeout_seconds, ready=ready))
    except HeadraceException as error:
        raise explain(error, settings.database_url) from None
    return 0


def _set_up_log(level: str) -> None:
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(_shorten)


def _shorten(record: logging.LogRecord) -> bool:
    """What the driver logs about a lost connection is a warning of one line, not a traceback of ours."""
    if record.name.startswith("asyncpg") and record.exc_info:
        record.msg, record.args = f"{record.getMessage()} ({record.exc_info[1]})", ()
        record.exc_info = record.exc_text = None
    return True
