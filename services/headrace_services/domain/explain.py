"""Why a run does not run, in words. The cause itself is found by the rules that hand runs out."""

from __future__ import annotations

from typing import NamedTuple

from headrace_services.domain.claims import Candidate, Facts, Obstacle, RouteKind

__all__ = ["Words", "words_of"]


class Words(NamedTuple):
    """What is said of an obstacle.

    Attributes:
        subject: what it is about.
        message: what is the matter.
        remedy: what would help.
    """

    subject: str
    message: str
    remedy: str


def words_of(obstacle: Obstacle, candidate: Candidate, facts: Facts) -> Words:
    """What to tell somebody who asks why the candidate waits."""
    what = _what(candidate)
    pool, queue = facts.pools.get(candidate.subject), facts.queue(candidate)
    line = f"{candidate.subject}/{candidate.queue}"
    match obstacle:
        case Obstacle.NOT_DUE:
            return Words("", "It is scheduled for later.", "Give it another time with `flow-run reschedule`.")
        case Obstacle.NO_WORK_POOL:
            return Words(candidate.subject, f"There is no {what}.", "Make the work pool.")
        case Obstacle.WORK_POOL_PAUSED:
            return Words(candidate.subject, f"The {what} is paused.", "Resume the work pool.")
        case Obstacle.WORK_QUEUE_PAUSED:
            return Words(line, f"The work queue '{line}' is paused.", "Resume the work queue.")
        case Obstacle.NO_WORKER:
            return Words(candidate.subject, f"No worker is online for the {what}.", _start(candidate))
        case Obstacle.NO_MATCHING_WORKER:
            return _no_match(candidate, what, facts)
        case Obstacle.NO_CREDIT:
            message = f"Every worker that could take it from the {what} has all its hands full."
            return Words(candidate.subject, message, "Wait, start another worker, or raise the limit of one.")
        case Obstacle.WORK_QUEUE_LIMIT:
            limit = None if queue is None else queue.limit
            return Words(line, f"The work queue '{line}' is at its limit of {limit and limit.slots}.", _RAISE)
        case Obstacle.WORK_POOL_LIMIT:
            slots = None if pool is None else pool.limit.slots
            return Words(candidate.subject, f"The {what} is at its limit of {slots}.", _RAISE)
        case Obstacle.DEPLOYMENT_LIMIT:
            slots = facts.deployments[candidate.deployment_id].slots
            return Words(candidate.deployment_id, f"Its deployment is at its limit of {slots}.", _RAISE)
        case Obstacle.FAIRNESS_KEY_LIMIT:
            key, limit = candidate.fairness_key, facts.key(candidate)
            message = f"Its fairness key '{key}' is at its limit of {limit and limit.slots} in the {what}."
            return Words(key, message, _RAISE)


_RAISE = "Wait until one of the runs that hold a slot ends, or raise the limit."


def _what(candidate: Candidate) -> str:
    kinds = {
        RouteKind.WORK_POOL: "work pool",
        RouteKind.DEPLOYMENT: "deployment",
        RouteKind.TASK: "task",
    }
    return f"{kinds[candidate.kind]} '{candidate.subject}'"


def _start(candidate: Candidate) -> str:
    if candidate.kind is RouteKind.WORK_POOL:
        return f"headrace worker start --pool {candidate.subject}"
    return "Start the process that serves it."


def _no_match(candidate: Candidate, what: str, facts: Facts) -> Words:
    message = f"No worker of the {what} takes it"
    if candidate.labels:
        labels = ", ".join(f"{name}={value}" for name, value in sorted(candidate.labels.items()))
        message += f": it needs the labels {labels}"
    if candidate.queue:
        message += f"; it waits in the queue '{candidate.queue}'"
    count = len(facts.offers)
    remedy = f"Of {count} online none fits: start one with these labels and this queue."
    return Words(candidate.subject, f"{message}.", remedy)
