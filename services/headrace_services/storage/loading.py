"""The one load of a transaction: everything that its commands need, in as few queries as can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace_services.storage.command import Command
from headrace_services.storage.memory import Memory
from headrace_services.storage.ops import Wanted
from headrace_services.storage.rows import flow_id_of, text
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["load"]


def load(work: Work, batch: Sequence[Command[Any]], memory: Memory) -> Steps[None]:
    """Load what the commands want, but for what is remembered."""
    wanted = Wanted.nothing()
    recorders: set[str] = set()
    for command in batch:
        command.wanted(wanted)
        recorders.update(command.recorders())
        if command.needs_lease:
            memory.forget_recorders(command.recorders())
    work.recorders = memory.recorders(recorders)
    # A recorder first: once it is there, whatever it has recorded elsewhere up to then can be seen. The other
    # way round, runs that another replica is about to commit would be taken for missing.
    yield from work.load_recorders(recorders)
    work.expect_new(wanted.fresh)
    yield from work.load_runs(wanted.runs)
    yield from _load_known(work, wanted, memory)
    yield from work.load_keys(wanted.keys)
    runs = work.runs
    yield from work.load_facts(
        [pair for pair in wanted.facts if (run := runs.get(pair[0])) is not None and work.needs_facts(run)]
    )


def _load_known(work: Work, wanted: Wanted, memory: Memory) -> Steps[None]:
    """Which flows there are, and which runs were deleted."""
    # A flow cannot go while a run of it is locked, or confirmed.
    work.known_flows.update(run.flow_id for run in work.runs.values() if run and run.flow_id)
    flow_ids = {flow_id_of(text(name)) for name in wanted.flows} - work.known_flows
    new_roots = {id for id in wanted.roots if work.runs.get(id) is None}
    if work.is_optimistic:
        remembered = memory.flows(flow_ids)
        work.known_flows |= remembered
        flow_ids -= remembered
        work.new_roots |= new_roots
        new_roots.clear()
    yield from work.load_known(flow_ids, new_roots)
