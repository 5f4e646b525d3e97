"""Commands on the rules of fairness keys.

Each has the pool to itself, and runs that join a line as the first of their key hold on to it: so no key is
ever noted with a weight that was changed meanwhile.
"""

from __future__ import annotations

from typing import Final

from headrace.core.errors import ObjectNotFound
from headrace.v1.work_pool_pb2 import FairnessRule
from headrace_services.domain.fairness import WEIGHT
from headrace_services.storage.command import Command
from headrace_services.storage.declared_rows import WorkPoolRow
from headrace_services.storage.entities import Lock
from headrace_services.storage.fairness_rows import FairnessRuleRow, rule_message, weigh
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work
from headrace_services.storage.work_pool_commands import find_pool

__all__ = ["DeleteFairnessRule", "SetFairnessRule"]

_LEAST: Final = 1


class SetFairnessRule(Command[FairnessRule]):
    """The rule of a key is what is asked, from now on.

    Raises:
        ObjectNotFound: there is no such pool.
    """

    is_solo = True

    def __init__(self, rule: FairnessRule) -> None:
        super().__init__()
        self._rule = rule

    def apply(self, work: Work) -> Steps[FairnessRule]:
        asked = self._rule
        pool = yield from find_pool(work, asked.work_pool, Lock.OWN)
        key = (asked.work_pool, asked.fairness_key)
        yield from work.rows.load(FairnessRuleRow, [key])
        row = work.rows.get(FairnessRuleRow, *key)
        weight = max(_LEAST, round((asked.weight or 1.0) * WEIGHT))
        limit = asked.concurrency_limit if asked.HasField("concurrency_limit") else None
        if row is None:
            row = FairnessRuleRow(*key, weight, limit, work.now, work.now)
        elif (row.weight, row.concurrency_limit) == (weight, limit):
            return rule_message(row)
        row.weight, row.concurrency_limit, row.update_time = weight, limit, work.now
        work.rows.put(row)
        yield from weigh(work, row.work_pool, row.fairness_key, weight)
        yield from _note_limits(work, pool)
        return rule_message(row)


class DeleteFairnessRule(Command[None]):
    """A key has the usual weight and no limit again.

    Raises:
        ObjectNotFound: there is no such pool, or it has no rule for the key.
    """

    is_solo = True

    def __init__(self, work_pool: str, fairness_key: str) -> None:
        super().__init__()
        self._key = (work_pool, fairness_key)

    def apply(self, work: Work) -> Steps[None]:
        pool = yield from find_pool(work, self._key[0], Lock.OWN)
        yield from work.rows.load(FairnessRuleRow, [self._key])
        row = work.rows.get(FairnessRuleRow, *self._key)
        if row is None:
            raise ObjectNotFound.of("fairness rule", "/".join(self._key))
        work.rows.delete(row)
        yield from weigh(work, *self._key, WEIGHT)
        yield from _note_limits(work, pool)


def _note_limits(work: Work, pool: WorkPoolRow) -> Steps[None]:
    """Have claims look for limits of keys in this pool, or no more."""
    where = [("work_pool", "=", pool.name), ("concurrency_limit", "is", True)]
    has_any = bool((yield from work.rows.find(FairnessRuleRow, where, limit=1, lock=Lock.NONE)))
    if pool.has_key_limits != has_any:
        pool.has_key_limits = has_any
        work.rows.put(pool)
