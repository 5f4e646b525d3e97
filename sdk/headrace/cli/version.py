"""`headrace version`."""

from __future__ import annotations

from headrace.cli.options import Output


def version(*, output: Output = "table") -> None:
    """Show the versions of client, server and database."""
    print(output)
