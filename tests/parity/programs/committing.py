"""Transactions: what is committed, what is undone, in which order."""

from __future__ import annotations

from typing import Any

from plain import outcome

from headrace import flow, task
from headrace.transactions import transaction

seen: list[str] = []


@task
def step(name: str) -> str:
    seen.append(f"ran {name}")
    return name


@step.on_commit
def _committed(txn: Any) -> None:
    seen.append("committed")


@step.on_rollback
def _undone(txn: Any) -> None:
    seen.append("undone")


@task
def broken() -> None:
    seen.append("ran broken")
    raise ValueError("boom")


def _story(body: Any) -> list[Any]:
    """What happened in a flow run with that body, and how it ended."""
    seen.clear()

    @flow
    def around() -> Any:
        return body()

    state = around(return_state=True)
    return [list(seen), state.type.value, state.name]


def program_transactions() -> dict[str, Any]:
    def two_steps() -> None:
        with transaction():
            step("a")
            step("b")
            seen.append("end of block")

    def second_fails() -> None:
        with transaction():
            step("a")
            broken()

    def body_fails() -> None:
        with transaction():
            step("a")
            raise ValueError("boom")

    def caught_around() -> str:
        try:
            second_fails()
        except ValueError:
            seen.append("caught")
        return "on"

    def nested() -> None:
        with transaction():
            step("outer")
            with transaction():
                step("inner")
            seen.append("after the inner block")

    def inner_fails() -> None:
        with transaction():
            step("outer")
            try:
                with transaction():
                    step("inner")
                    raise ValueError("boom")
            except ValueError:
                seen.append("caught")

    def values() -> None:
        with transaction() as txn:
            txn.set("a", 1)
            seen.append(str(txn.get("a")))
            seen.append(str(txn.get("b", "nothing")))
            seen.append(str(outcome(lambda: txn.get("b"))))
            with transaction() as inner:
                seen.append(str(inner.get("a")))
                inner.set("a", 2)
            seen.append(str(txn.get("a")))

    def states() -> None:
        with transaction() as txn:
            seen.append(str([txn.is_active(), txn.is_committed(), txn.is_rolled_back(), txn.is_staged()]))
        seen.append(str([txn.is_active(), txn.is_committed(), txn.is_rolled_back(), txn.is_staged()]))

    def alone() -> None:
        step("alone")

    def submitted() -> None:
        with transaction():
            step.submit("a").result()

    return {
        "two steps": _story(two_steps),
        "the second fails": _story(second_fails),
        "the body fails": _story(body_fails),
        "caught around": _story(caught_around),
        "nested": _story(nested),
        "the inner one fails": _story(inner_fails),
        "values": _story(values),
        "states": _story(states),
        "a task alone": _story(alone),
        "submitted": _story(submitted),
    }
