"""`headrace version`."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from headrace.cli.options import Output
from headrace.cli.output import emit_document
from headrace.core.limits import PROTOCOL_MAX, PROTOCOL_MIN

__all__ = ["version"]

_PATIENCE_SECONDS = 5.0


async def version(*, output: Output = "table") -> None:
    """Show the versions of client, server and database.

    No server is started for it: without one, what is known of the client is shown.
    """
    server, problem = await _server()
    document: dict[str, Any] = {
        "client": {
            "version": metadata.version("headrace"),
            "protocol_min": PROTOCOL_MIN,
            "protocol_max": PROTOCOL_MAX,
            "python": platform.python_version(),
            "grpc": metadata.version("grpcio"),
            "protobuf": metadata.version("protobuf"),
        },
        "server": server,
        "server_error": problem,
    }
    emit_document(document, lambda: _pairs(document), output)


async def _server() -> tuple[dict[str, Any] | None, str | None]:
    """What the server says of itself, or why there is nothing to say."""
    from headrace.cli.as_json import to_json
    from headrace.client import get_client
    from headrace.core.errors import ServiceError

    try:
        async with get_client(start_server=False) as client:
            info = await client.get_server_info(timeout=_PATIENCE_SECONDS)
            return {"address": client.address, **to_json(info)}, None
    except ServiceError as error:
        return None, str(error)


def _pairs(document: dict[str, Any]) -> list[tuple[str, str]]:
    client, server = document["client"], document["server"]
    pairs = [
        ("headrace", client["version"]),
        ("Protocol", _range(client)),
        ("Python", client["python"]),
        ("grpcio", client["grpc"]),
        ("protobuf", client["protobuf"]),
    ]
    if server is None:
        return [*pairs, ("Server", document["server_error"])]
    return [
        *pairs,
        ("Server", f"{server['version']} at {server['address']}"),
        ("Server protocol", _range(server)),
        ("Database", f"{server['database']} {server['database_version']}"),
        ("Schema", server["schema_revision"]),
        ("Time zones", server["time_zone_version"]),
    ]


def _range(part: dict[str, Any]) -> str:
    low, high = part["protocol_min"], part["protocol_max"]
    return str(low) if low == high else f"{low} to {high}"
