"""Rules of fairness keys as rows, and what waits for the limit of one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.v1.work_pool_pb2 import FairnessRule
from headrace_services.domain.claims import RouteKind
from headrace_services.domain.fairness import WEIGHT
from headrace_services.storage.dispatch_rows import PassRow
from headrace_services.storage.entities import Entity, column
from headrace_services.storage.instants import set_micros
from headrace_services.storage.steps import Steps

if TYPE_CHECKING:
    from headrace_services.storage.work import Work

__all__ = ["FairnessRuleRow", "blocker_of", "pair_of", "rule_message", "weigh"]


@dataclass(slots=True)
class FairnessRuleRow(Entity):
    """What the runs of one key have of a work pool. Whoever changes it has locked the pool."""

    TABLE = "fairness_rules"
    KEY = ("work_pool", "fairness_key")

    work_pool: str = column("text")
    fairness_key: str = column("text")
    weight: int = column("int")
    """Thousandths."""
    concurrency_limit: int | None = column("int")
    create_time: int = column("bigint")
    update_time: int = column("bigint")
    version: int = column("bigint", default=1)


def rule_message(row: FairnessRuleRow) -> FairnessRule:
    """The rule as it is shown, without what its runs hold."""
    shown = FairnessRule(
        work_pool=row.work_pool,
        fairness_key=row.fairness_key,
        weight=row.weight / WEIGHT,
        concurrency_limit=row.concurrency_limit,
    )
    set_micros(shown.create_time, row.create_time)
    set_micros(shown.update_time, row.update_time)
    return shown


def weigh(work: Work, work_pool: str, fairness_key: str | None, weight: int) -> Steps[None]:
    """Note the weight where turns are given: with the key, in every line of the pool that has seen it.

    Args:
        work: the rows at hand.
        work_pool: name of the pool.
        fairness_key: None: all keys of the pool.
        weight: thousandths.
    """
    lines = json.dumps([int(RouteKind.WORK_POOL), work_pool])[:-1] + ", "
    where: list[tuple[str, str, Any]] = [("scope", "begins", lines)]
    if fairness_key is not None:
        where.append(("name", "holds", f"\t{fairness_key}"))
    else:
        where.append(("weight", "<>", weight))
    for row in (yield from work.rows.find(PassRow, where)):
        is_meant = fairness_key is None or row.name == f"{row.scope}\t{fairness_key}"
        if is_meant and row.weight != weight:
            row.weight = weight
            work.rows.put(row)


def blocker_of(work_pool: str, fairness_key: str) -> str:
    """What blocks runs that wait for a slot of their key; no id of a deployment looks like this."""
    return json.dumps([work_pool, fairness_key])


def pair_of(blocker: str) -> tuple[str, str] | None:
    """The pool and the key that block; None: it is a deployment."""
    if not blocker.startswith("["):
        return None
    work_pool, fairness_key = json.loads(blocker)
    return work_pool, fairness_key
