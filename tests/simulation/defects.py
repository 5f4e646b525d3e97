"""Defects to plant: what the protocol would be without one of its rules.

Each takes one thing away, in the server's own code, for the length of a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from headrace.v1.state_pb2 import STATE_TYPE_COMPLETED
from headrace_services.domain.attempt_rules import HeldSet
from headrace_services.domain.facts import Context
from headrace_services.domain.flow_rules import MINIMAL_FLOW_RULES
from headrace_services.domain.pipeline import Decision, Policy, decide
from headrace_services.loops.amnesty import Amnesty
from headrace_services.rpc import worker_stream
from headrace_services.storage import claiming, proposals
from headrace_services.storage.blobs import blob
from headrace_services.storage.dispatch_facts import DispatchFacts
from headrace_services.storage.dispatch_stores import SqliteDispatch, Waiting
from headrace_services.storage.run_commands import ProposeState
from tests.simulation.world import World

__all__ = ["DEFECTS"]

Plant = Callable[[pytest.MonkeyPatch], None]


def _no_fence_check(patch: pytest.MonkeyPatch) -> None:
    """Whoever writes is believed to own the run."""
    patch.setattr(ProposeState, "_check_fence", lambda *_: None)


def _no_amnesty(patch: pytest.MonkeyPatch) -> None:
    """A server that could hear nobody takes their silence for death."""
    patch.setattr(Amnesty, "is_over", lambda _: True)


def _no_reconciliation(patch: pytest.MonkeyPatch) -> None:
    """What a worker says that it holds is not compared with what the server believes."""
    patch.setattr(worker_stream, "reconcile", lambda *_: HeldSet([], [], [], []))


def _slots_as_a_counter(patch: pytest.MonkeyPatch) -> None:
    """Slots are counted up by a claim and down by an end, instead of being rows."""
    taken = 0
    hand_out, propose = claiming._hand_out, World.propose  # pyright: ignore[reportPrivateUsage]

    def count_up(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        return hand_out(*arguments)

    async def count_down(*arguments: Any) -> Any:
        nonlocal taken
        verdict = await propose(*arguments)
        taken -= verdict.accepted.state.type == STATE_TYPE_COMPLETED
        return verdict

    def count_lines(facts: DispatchFacts) -> Any:
        for line in facts.facts.pools.values():
            line.limit.held = taken
        return
        yield

    patch.setattr(claiming, "_hand_out", count_up)
    patch.setattr(World, "propose", count_down)
    patch.setattr(DispatchFacts, "_count_lines", count_lines)


def _terminal_overwrite(patch: pytest.MonkeyPatch) -> None:
    """The rules that keep a run ended are left out."""

    def careless(policy: Policy, context: Context) -> Decision:
        has_ended = context.current is not None and context.current.is_final
        return decide(MINIMAL_FLOW_RULES if has_ended else policy, context)

    patch.setattr(proposals, "decide", careless)


def _read_then_write_claim(patch: pytest.MonkeyPatch) -> None:
    """What waits is read first and written later, without a look at what others did meanwhile."""
    load = SqliteDispatch.load_candidates
    read: dict[str, Waiting] = {}

    def from_memory(store: Any, routes: Sequence[int], most: int, lock: bool) -> list[Waiting]:
        fresh = load(store, routes, most, lock)
        now = {row.queued.run_id: row for row in fresh}
        stale = [row for id, row in read.items() if id not in now][:most]
        read.clear()
        read.update(now)
        connection = store._connected()
        rows: list[Waiting] = []
        for row in stale:
            found = connection.execute(
                "SELECT version FROM runs WHERE id = ?", (blob(row.queued.run_id),)
            ).fetchone()
            connection.execute("DELETE FROM attempt_holders WHERE run_id = ?", (blob(row.queued.run_id),))
            rows.append(row._replace(run=(*row.run[:-2], found[0], row.run[-1])))
        return [*fresh, *rows][:most]

    patch.setattr(SqliteDispatch, "load_candidates", from_memory)


DEFECTS: Final[dict[str, Plant]] = {
    "no fence check": _no_fence_check,
    "no amnesty": _no_amnesty,
    "no reconciliation": _no_reconciliation,
    "slots as a counter": _slots_as_a_counter,
    "terminal overwrite": _terminal_overwrite,
    "read-then-write claim": _read_then_write_claim,
}
