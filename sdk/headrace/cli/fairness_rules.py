"""`headrace fairness-rule`: what the runs of a fairness key have of a work pool."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.candidates import work_pool_names
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Limit, Output, Quiet
from headrace.cli.output import Listing, emit_json, emit_list, first, page_size, say
from headrace.cli.work_pools import get_pool
from headrace.client import get_client
from headrace.core.errors import ObjectNotFound
from headrace.v1.work_pool_pb2 import FairnessRule

__all__ = ["ls", "set", "unset"]

_Key = Annotated[
    str,
    Parameter(name="KEY", help="The fairness key as runs have it: what their deployment's template came to."),
]
_Pool = Annotated[str, Parameter(name=["--pool", "-p"], help="The work pool.", completer=work_pool_names)]


async def ls(
    *,
    pool: Annotated[
        str,
        Parameter(name=["--pool", "-p"], help="Only rules of this work pool.", completer=work_pool_names),
    ] = "",
    limit: Limit = 50,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """List the rules of fairness keys, by work pool and key."""
    listing: Listing[FairnessRule] = Listing(
        headers=("POOL", "KEY", "WEIGHT", "LIMIT", "QUEUED", "RUNNING"),
        row=lambda rule: (
            rule.work_pool,
            text.clean(rule.fairness_key),
            f"{rule.weight:g}",
            _limit(rule),
            str(rule.queued_runs),
            str(rule.held_runs),
        ),
        key=lambda rule: rule.fairness_key,
        json=to_json,
        none="No rules: keys take turns with equal weights. See `headrace fairness-rule set --help`.",
        shrink=("POOL", "KEY"),
    )
    async with get_client() as client:
        if pool:
            await get_pool(client, pool)
        found = client.iter_fairness_rules(pool, page_size=page_size(limit))
        await emit_list(first(limit, found), listing, output, quiet=quiet)


async def set(
    key: _Key,
    /,
    *,
    pool: _Pool,
    weight: Annotated[
        float,
        Parameter(
            validator=Number(gte=0.01, lte=100),
            help="How many turns the key gets for each one of a key of weight 1, from 0.01 to 100.",
        ),
    ] = 1.0,
    limit: Annotated[
        int | None,
        Parameter(
            name=["--limit", "-l"],
            validator=Number(gte=0),
            help="How many of its runs may run at once in the pool. Without it: any number.",
        ),
    ] = None,
    output: Output = "table",
) -> None:
    """Give a fairness key a weight and a limit in a work pool.

    What is not given is as without a rule: weight 1, no limit. The limit holds at once; runs that wait
    already keep their turn, and the weight counts for those that come after.
    """
    asked = FairnessRule(work_pool=pool, fairness_key=key, weight=weight, concurrency_limit=limit)
    async with get_client() as client:
        await get_pool(client, pool)
        made = await client.set_fairness_rule(asked)
    if output != "table":
        emit_json(to_json(made), indent=2 if output == "json" else None)
    shown, most = text.clean(key), "no limit" if limit is None else f"a limit of {limit}"
    say(f"Key '{shown}' has weight {made.weight:g} and {most} in work pool '{pool}'.")


async def unset(key: _Key, /, *, pool: _Pool) -> None:
    """Give a fairness key weight 1 and no limit again."""
    async with get_client() as client:
        await get_pool(client, pool)
        try:
            await client.delete_fairness_rule(pool, key)
        except ObjectNotFound:
            known = [rule.fairness_key async for rule in first(1000, client.iter_fairness_rules(pool))]
            hint = nearest(key, known) or "See `headrace fairness-rule ls`."
            raise CliError(
                f"Work pool '{pool}' has no rule for key '{key}'.", hint, code=ExitCode.NOT_FOUND
            ) from None
    say(f"Key '{text.clean(key)}' has weight 1 and no limit in work pool '{pool}'.")


def _limit(rule: FairnessRule) -> str:
    return str(rule.concurrency_limit) if rule.HasField("concurrency_limit") else "-"
