"""The whole table of legal transitions of flow runs, every verdict written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_services.domain.states import StateValue
from tests.unit.domain.cases import NOW, SECOND, ask, outcome, value

TYPES = [
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "PAUSED",
    "CANCELLING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "CRASHED",
]

# What a run may be in: a name for the row, the state, and the facts that make it that row.
IN: dict[str, tuple[StateValue | None, dict[str, Any]]] = {
    "none": (None, {}),
    "scheduled, held": (value("SCHEDULED"), {}),
    "scheduled, held by nobody": (value("SCHEDULED"), {"is_held": False}),
    "scheduled for later": (value("SCHEDULED", scheduled_time=NOW + 9 * SECOND), {}),
    "resuming": (value("SCHEDULED", is_resumption=True), {}),
    "pending": (value("PENDING", scheduled_time=NOW - SECOND), {}),
    "pending for later": (value("PENDING", scheduled_time=NOW + 9 * SECOND), {}),
    "running": (value("RUNNING"), {}),
    "running, deployed": (value("RUNNING"), {"has_deployment": True}),
    "running, retries left": (value("RUNNING"), {"max_retries": 1}),
    "paused": (value("PAUSED", pause_timeout=NOW + SECOND), {}),
    "paused too long": (value("PAUSED", pause_timeout=NOW - SECOND), {}),
    "suspended": (value("PAUSED", pause_reschedule=True), {"has_deployment": True}),
    "suspended, deployment gone": (value("PAUSED", pause_reschedule=True), {}),
    "suspended too long": (
        value("PAUSED", pause_reschedule=True, pause_timeout=NOW - SECOND),
        {"has_deployment": True},
    ),
    "pending, held by nobody": (value("PENDING"), {"is_held": False}),
    "running, held by nobody": (value("RUNNING"), {"is_held": False}),
    "paused, held by nobody": (value("PAUSED", pause_timeout=NOW + SECOND), {"is_held": False}),
    "cancelling": (value("CANCELLING"), {}),
    "completed, result kept": (value("COMPLETED", data=b"1"), {"has_deployment": True}),
    "completed": (value("COMPLETED"), {}),
    "completed, deployed": (value("COMPLETED"), {"has_deployment": True}),
    "failed": (value("FAILED"), {}),
    "failed, deployed": (value("FAILED"), {"has_deployment": True}),
    "cancelled": (value("CANCELLED"), {}),
    "cancelled, deployed": (value("CANCELLED"), {"has_deployment": True}),
    "crashed": (value("CRASHED"), {}),
    "crashed, deployed": (value("CRASHED"), {"has_deployment": True}),
}

RETRY = "R>AwaitingRetry"
OVER = "R>Failed"
DONE = "R>Cancelled"

# One column per proposed type, in the order of TYPES.
VERDICTS = {
    "none": ["A", "A", "A", "X", "A", "A", "A", "A", "A"],
    "scheduled, held": ["A", "A", "A", "R", "A", "A", "A", "A", "A"],
    "scheduled, held by nobody": ["A", "A", "A", "R", DONE, "A", "A", "A", "A"],
    "scheduled for later": ["A", "A", "W", "R", "A", "A", "A", "A", "A"],
    "resuming": ["A", "A", "A", "R", DONE, "A", "A", "A", "A"],
    "pending": ["A", "X", "A", "R", "A", "A", "A", "A", "A"],
    "pending for later": ["A", "X", "W", "R", "A", "A", "A", "A", "A"],
    "running": ["A", "X", "A", "A", "A", "A", "A", "A", "A"],
    "running, deployed": ["A", "X", "A", "A", "A", "A", "A", "A", "A"],
    "running, retries left": ["A", "X", "A", "A", "A", "A", RETRY, "A", "A"],
    "paused": ["A", "R", "A", "R", "A", "A", "A", "A", "A"],
    "paused too long": [OVER, "R", OVER, "R", "A", OVER, OVER, OVER, "A"],
    "suspended": ["A", "R", "A", "R", DONE, "A", "A", "A", "A"],
    "suspended, deployment gone": ["R", "R", "R", "R", DONE, "A", "A", "A", "A"],
    "suspended too long": [OVER, "R", OVER, "R", DONE, OVER, OVER, OVER, "A"],
    "pending, held by nobody": ["A", "X", "A", "R", DONE, "A", "A", "A", "A"],
    "running, held by nobody": ["A", "X", "A", "A", DONE, "A", "A", "A", "A"],
    "paused, held by nobody": ["A", "R", "A", "R", DONE, "A", "A", "A", "A"],
    "cancelling": ["R", "R", "R", "R", "R", "R", "R", "A", "R"],
    "completed, result kept": ["R", "R", "R", "X", "X", "R", "A", "A", "X"],
    "completed": ["X", "A", "A", "X", "X", "A", "A", "A", "X"],
    "completed, deployed": ["A", "A", "A", "X", "X", "A", "A", "A", "X"],
    "failed": ["X", "A", "A", "X", "X", "A", "A", "A", "X"],
    "failed, deployed": ["A", "A", "A", "X", "X", "A", "A", "A", "X"],
    "cancelled": ["X", "X", "A", "X", "X", "A", "A", "A", "X"],
    "cancelled, deployed": ["A", "X", "A", "X", "X", "A", "A", "A", "X"],
    "crashed": ["X", "A", "A", "X", "X", "A", "A", "A", "X"],
    "crashed, deployed": ["A", "A", "A", "X", "X", "A", "A", "A", "X"],
}


def cells() -> list[Any]:
    """Every cell of the table."""
    return [
        pytest.param(row, type, verdict, id=f"{row} -> {type}")
        for row, verdicts in VERDICTS.items()
        for type, verdict in zip(TYPES, verdicts, strict=True)
    ]


@pytest.mark.parametrize(("row", "proposed", "expected"), cells())
def test_every_pair_has_its_verdict(row: str, proposed: str, expected: str) -> None:
    current, given = IN[row]
    decision = ask(current, value(proposed), **given)
    assert decision.error is None
    assert outcome(decision) == expected
    if decision.state is None:
        assert decision.effects == ()
        assert decision.run.books.run_count == (0 if current is None else ask_count(row))


def ask_count(row: str) -> int:
    """Entries into RUNNING before the proposal."""
    return 0 if row.startswith(("scheduled", "resuming", "pending")) else 1


def test_every_row_is_asked_for_every_type() -> None:
    assert set(IN) == set(VERDICTS)
    assert all(len(verdicts) == len(TYPES) for verdicts in VERDICTS.values())


SUSPEND = value("PAUSED", pause_reschedule=True)
LATE = value("SCHEDULED", name="Late")


@pytest.mark.parametrize(
    ("current", "proposed", "given", "expected"),
    [
        pytest.param(value("RUNNING"), SUSPEND, {"has_deployment": True}, "A", id="suspend"),
        pytest.param(value("RUNNING"), SUSPEND, {}, "X", id="suspend without a deployment"),
        pytest.param(
            *(value("RUNNING"), SUSPEND, {"has_deployment": True, "has_parent": True}, "X"),
            id="suspend a subflow run",
        ),
        pytest.param(
            *(value("RUNNING"), value("PAUSED", pause_key="a"), {"pause_keys": frozenset("a")}, "R"),
            id="a pause key that has fired",
        ),
        pytest.param(value("SCHEDULED"), LATE, {}, "A", id="late"),
        pytest.param(LATE, value("SCHEDULED", name="Late"), {}, "R", id="late again"),
        pytest.param(value("PENDING"), LATE, {}, "R", id="late, but pending"),
        pytest.param(
            value("SCHEDULED", name="AwaitingRetry", is_retry=True), LATE, {}, "R", id="late, but retrying"
        ),
        pytest.param(
            value("SCHEDULED", name="AwaitingConcurrencySlot"), LATE, {}, "R", id="late, but for a slot"
        ),
        pytest.param(value("SCHEDULED", is_resumption=True), LATE, {}, "R", id="late, but resuming"),
        pytest.param(None, LATE, {}, "X", id="late, but new"),
        pytest.param(
            value("PENDING"), value("PENDING", name="InfrastructurePending"), {}, "A", id="pending renamed"
        ),
        pytest.param(
            *(value("PENDING", name="Submitting"), value("PENDING", name="Submitting"), {}, "X"),
            id="pending under the same name",
        ),
        pytest.param(
            value("PENDING", name="Submitting"), value("PENDING"), {}, "X", id="back to plain pending"
        ),
        pytest.param(
            *(value("COMPLETED", data=b"1"), value("COMPLETED", data=b"2"), {}, "A"),
            id="a result replaced by a result",
        ),
        pytest.param(
            value("RUNNING"),
            value("FAILED"),
            {"max_retries": 3, "by_executor": True},
            "A",
            id="an executor applies the retry rule itself",
        ),
        pytest.param(
            value("RUNNING"),
            value("FAILED"),
            {"max_retries": 3, "retry_delay": 2 * SECOND, "retry_deadline": NOW + SECOND},
            "A",
            id="no retry past the deadline",
        ),
        pytest.param(
            value("RUNNING"),
            value("FAILED"),
            {"max_retries": 3, "retry_delay": SECOND, "retry_deadline": NOW + SECOND},
            "A",
            id="no retry at the deadline",
        ),
        pytest.param(
            value("RUNNING"),
            value("FAILED"),
            {"max_retries": 3, "retry_delay": SECOND, "retry_deadline": NOW + SECOND + 1},
            "R>AwaitingRetry",
            id="a retry before the deadline",
        ),
    ],
)
def test_cells_that_depend_on_more(
    current: StateValue | None, proposed: StateValue, given: dict[str, Any], expected: str
) -> None:
    assert outcome(ask(current, proposed, **given)) == expected
