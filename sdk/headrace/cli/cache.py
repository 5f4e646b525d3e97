"""`headrace cache`: the index of cached results."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.candidates import flow_names
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Limit, Output, Quiet, Yes
from headrace.cli.output import Listing, emit_json, emit_list, first, page_size, say
from headrace.cli.prompts import confirm
from headrace.client import get_client
from headrace.v1.cache_pb2 import CacheEntry, CacheFilter

__all__ = ["invalidate", "ls"]

_Keys = Annotated[
    tuple[str, ...], Parameter(name=["--key", "-k"], help="Only this key, as `ls` shows it. Repeatable.")
]
_Tasks = Annotated[tuple[str, ...], Parameter(name="--task", help="Only results of this task. Repeatable.")]
_Flows = Annotated[
    tuple[str, ...],
    Parameter(
        name="--flow", help="Only what runs of this flow have computed. Repeatable.", completer=flow_names
    ),
]
_Tags = Annotated[
    tuple[str, ...],
    Parameter(name=["--tag", "-t"], help="Only of task runs with this tag. Repeat for all of several."),
]


async def ls(
    *,
    key: _Keys = (),
    task: _Tasks = (),
    flow: _Flows = (),
    tag: _Tags = (),
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List the results that later calls may use, by key."""
    listing: Listing[CacheEntry] = Listing(
        headers=("KEY", "TASK", "FLOW", "CREATED", "EXPIRES", "BYTES"),
        row=lambda entry: (
            entry.key,
            entry.task_name,
            entry.flow_name or "-",
            text.local_time(entry.create_time),
            text.local_time(entry.expire_time) if entry.HasField("expire_time") else "-",
            str(entry.result.blob.size_bytes),
        ),
        key=lambda entry: entry.key,
        json=to_json,
        none="No results in the index: it has those of tasks whose cache policy has a cache_scope.",
        shrink=("KEY", "TASK", "FLOW"),
    )
    asked = CacheFilter(keys=key, task_names=task, flow_names=flow, tags=tag)
    async with get_client() as client:
        found = client.iter_cache_entries(asked, page_size=page_size(limit))
        await emit_list(first(limit, found), listing, output, quiet=quiet)


async def invalidate(
    *,
    key: _Keys = (),
    task: _Tasks = (),
    flow: _Flows = (),
    tag: _Tags = (),
    all: Annotated[bool, Parameter(negative=(), help="All of them.")] = False,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Have the next calls compute their results anew.

    What is said must hold all together. The values stay in storage until they are written anew.
    """
    asked = CacheFilter(keys=key, task_names=task, flow_names=flow, tags=tag)
    if all == bool(asked.ByteSize()):
        raise CliError(
            "Say either which results or --all.",
            "`headrace cache ls` takes the same options, and shows what they mean.",
            code=ExitCode.USAGE,
        )
    words = [f"of {name} {', '.join(values)}" for name, values in _said(asked)]
    confirm(f"Invalidate {'every cached result' if all else 'cached results ' + ', '.join(words)}?", yes=yes)
    async with get_client() as client:
        count = await client.invalidate_cache_entries(None if all else asked, all=all)
    if output != "table":
        emit_json({"invalidated_entries": count}, indent=2 if output == "json" else None)
    say(f"Invalidated {count} cached result{'' if count == 1 else 's'}.")


def _said(asked: CacheFilter) -> list[tuple[str, list[str]]]:
    named = (
        ("key", asked.keys),
        ("task", asked.task_names),
        ("flow", asked.flow_names),
        ("tag", asked.tags),
    )
    return [(name, list(values)) for name, values in named if values]
