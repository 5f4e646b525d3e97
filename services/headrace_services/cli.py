"""The commands `headrace server` and `headrace db`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

__all__ = ["db", "main", "server"]

Home = Annotated[Path | None, Parameter(help="Folder of the server; HEADRACE_HOME, else ~/.headrace.")]
DatabaseUrl = Annotated[
    str | None,
    Parameter(
        help="postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///path; else the home's own file."
    ),
]


def _app(name: str, help: str) -> App:
    return App(
        name=name,
        help=help,
        help_format="plaintext",
        version_flags=[],
        default_parameter=Parameter(negative=()),
    )


server = _app("server", "Start, stop and look at the server of this home.")
db = _app("db", "Look after the database's schema.")


@server.command
def start(
    *,
    host: Annotated[str | None, Parameter(help="Address to listen on; 127.0.0.1.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 4200. 0 takes any free one.")] = None,
    database_url: DatabaseUrl = None,
    auth_string: Annotated[
        str | None,
        Parameter(help="user:password that every call must carry; better set in the environment."),
    ] = None,
    home: Home = None,
    log_level: Annotated[str | None, Parameter(help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")] = None,
    grace: Annotated[float | None, Parameter(help="Seconds that calls in flight get when it stops.")] = None,
    background: Annotated[
        bool, Parameter(name=["--background", "-b"], help="Return once it is healthy.")
    ] = False,
    on_demand: Annotated[bool, Parameter(help="Take any free port, and leave when nobody needs it.")] = False,
) -> int:
    """Start the server of this home."""
    from headrace_services.settings import load_settings

    given = {
        "home": home,
        "server_api_host": host,
        "server_api_port": 0 if on_demand and port is None else port,
        "server_api_auth_string": auth_string,
        "server_database_connection_url": database_url,
        "server_logging_level": log_level,
        "server_shutdown_grace_seconds": grace,
    }
    settings = load_settings(given)
    settings.check()
    if background:
        from headrace_services.launch import launch

        note = launch(settings, given, on_demand=on_demand)
        print(f"The server listens on {note.address} (pid {note.pid}).", file=sys.stderr)
        return 0
    from headrace.core.direct_polling import direct_polling

    with direct_polling():
        from headrace_services.foreground import run_server

    return run_server(settings, settings.server_idle_timeout_seconds if on_demand else None)


@server.command
def stop(
    *,
    home: Home = None,
    timeout: Annotated[
        float, Parameter(name=["--timeout", "-t"], help="Seconds to wait for its end.")
    ] = 30.0,
) -> int:
    """Stop the server of this home; calls in flight may end."""
    from headrace_services.processes import stop_server
    from headrace_services.settings import load_settings

    folder = load_settings({"home": home}).home
    note = stop_server(folder, timeout)
    if note is None:
        print(f"No server serves {folder}.", file=sys.stderr)
    else:
        print(f"Stopped the server at {note.address} (pid {note.pid}).", file=sys.stderr)
    return 0


@server.command
def status(
    *,
    home: Home = None,
    wait: Annotated[bool, Parameter(help="Wait until the server is healthy.")] = False,
    timeout: Annotated[float, Parameter(name=["--timeout", "-t"], help="Seconds to wait at most.")] = 30.0,
    output: Annotated[
        Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"], help="How to print.")
    ] = "table",
) -> int:
    """Show the server of this home. The exit code is 0 when it is healthy, else 1."""
    from dataclasses import asdict

    from headrace_services.processes import Health, check_health, wait_until_healthy
    from headrace_services.settings import load_settings

    folder = load_settings({"home": home}).home
    note, health = wait_until_healthy(folder, timeout) if wait else check_health(folder)
    facts: dict[str, Any] = {"health": health, "home": str(folder), **(asdict(note) if note else {})}
    if output != "table":
        import json

        print(json.dumps(facts, indent=2 if output == "json" else None))
    else:
        _print_facts(facts)
    if health == Health.ABSENT and output == "table":
        print("Start one with `headrace server start`.", file=sys.stderr)
    return 0 if health == Health.SERVING else 1


def _print_facts(facts: Mapping[str, Any]) -> None:
    from headrace.core.clock import from_micros

    shown = {k: v for k, v in facts.items() if v is not None}
    if "started_at" in shown:
        shown["started_at"] = from_micros(shown["started_at"]).isoformat(timespec="seconds")
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name.replace('_', ' '):<{width}}  {value}")


@db.command(name="upgrade")
def db_upgrade(*, database_url: DatabaseUrl = None, home: Home = None) -> int:
    """Bring the database's schema up to date."""
    before, after = _with_database(database_url, home, _upgrade)
    if before == after:
        print(f"The database is up to date (schema {after}).", file=sys.stderr)
    else:
        print(f"Upgraded the database from schema {before or 'none'} to {after}.", file=sys.stderr)
    return 0


@db.command(name="check")
def db_check(*, database_url: DatabaseUrl = None, home: Home = None) -> int:
    """Show whether the database's schema is the one this version needs. The exit code is 0 when it is."""
    from headrace.core.errors import HeadraceException
    from headrace_services.storage.migrations import check_revision

    revision, _ = _with_database(database_url, home, _look)
    try:
        check_revision(revision)
    except HeadraceException as error:
        print(str(error), file=sys.stderr)
        return 1
    print(f"The database is up to date (schema {revision}).", file=sys.stderr)
    return 0


async def _upgrade(url: str) -> tuple[str | None, str]:
    from headrace_services.storage import migrations

    before = await migrations.current_revision(url)
    await migrations.upgrade(url)
    return before, migrations.head_revision()


async def _look(url: str) -> tuple[str | None, str]:
    from headrace_services.storage import migrations

    return await migrations.current_revision(url), migrations.head_revision()


def _with_database(database_url: str | None, home: Path | None, ask: Callable[[str], Any]) -> Any:
    import asyncio

    from headrace.core.errors import HeadraceException
    from headrace_services.settings import load_settings
    from headrace_services.start_errors import check_url, explain

    settings = load_settings({"home": home, "server_database_connection_url": database_url})
    check_url(settings.database_url)
    try:
        return asyncio.run(ask(settings.database_url))
    except HeadraceException as error:
        raise explain(error, settings.database_url) from None


def main(argv: list[str] | None = None) -> int:
    """`server` and `db` on their own, for a process that needs nothing else of the CLI.

    Returns:
        The exit code: 0 done, 1 not possible now, 2 not understood.
    """
    from headrace.core.errors import ConfigurationError, HeadraceException

    app = _app("headrace_services", "The server of headrace.")
    app.command(server)
    app.command(db)
    try:
        command, bound, _ = app.parse_args(argv, exit_on_error=False, print_error=False)
        result = command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        error.verbose = False
        print(f"Error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except HeadraceException as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
