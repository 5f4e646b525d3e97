"""What came of deploying, as it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, explain
from headrace.cli.output import emit_json
from headrace.deployments.deploying import Deployed, Failed
from headrace.v1.deployment_pb2 import FieldChange

__all__ = ["describe", "reason", "show"]


def show(done: Sequence[Deployed | Failed], dry_run: bool, output: str) -> None:
    """Print the outcomes in the format asked for."""
    if output == "table":
        for one in done:
            print("\n".join(describe(one, dry_run)))
        return
    documents = [_document(one) for one in done]
    if output == "json":
        emit_json(documents)
    else:
        for document in documents:
            emit_json(document, indent=None)


def describe(one: Deployed | Failed, dry_run: bool = False) -> list[str]:
    """The lines that tell people what came of one: the outcome, and what has changed."""
    lines = [_line(one, dry_run)]
    if isinstance(one, Failed) and isinstance(one.error, CliError) and one.error.detail:
        lines += [f"    {line}" for line in one.error.detail.splitlines()]
    if isinstance(one, Deployed) and not one.response.created:
        lines += [f"    {_change(change)}" for change in one.response.changes]
    return lines


def reason(failed: Failed) -> str:
    """Why one was not deployed, in a line."""
    known = explain(failed.error)
    return known[0] if known else str(failed.error)


def _line(one: Deployed | Failed, dry_run: bool) -> str:
    if isinstance(one, Failed):
        return f"{one.name}: failed: {reason(one)}"
    if one.response.created:
        return f"{one.name}: {'would be created' if dry_run else 'created'}"
    if not one.response.changes:
        return f"{one.name}: unchanged, version {one.response.deployment.version_number}"
    version = one.response.deployment.version_number
    return f"{one.name}: {'would change' if dry_run else f'changed, now version {version}'}"


def _change(change: FieldChange) -> str:
    return f"{change.path}: {_short(change.old_value)} -> {_short(change.new_value)}"


def _short(value: str) -> str:
    return "(not set)" if not value else value if len(value) <= 60 else f"{value[:57]}..."


def _document(one: Deployed | Failed) -> dict[str, Any]:
    if isinstance(one, Failed):
        return {"name": one.name, "error": reason(one)}
    return {"name": one.name, **cast("dict[str, Any]", to_json(one.response))}
