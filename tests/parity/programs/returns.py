"""What a flow or a task returns, the final state, and what the caller gets."""

from __future__ import annotations

from typing import Any

from plain import ended, outcome

from headrace import allow_failure, flow, task
from headrace.states import Cancelled, Completed, Crashed, Failed, Paused
from headrace.utilities.annotations import quote


@task
def ok() -> int:
    return 1


@task
def bad() -> int:
    raise ValueError("boom")


@task
def given(value: Any) -> Any:
    return value


CASES: dict[str, Any] = {
    "data": lambda: 5,
    "none": lambda: None,
    "empty list": list,
    "an exception object": lambda: ValueError("kept"),
    "a future": ok.submit,
    "a failed future": bad.submit,
    "a state of a run": lambda: ok(return_state=True),
    "a failed state of a run": lambda: bad(return_state=True),
    "list of a failed future": lambda: [bad.submit()],
    "list of both": lambda: [bad.submit(), ok.submit()],
    "list of completed": lambda: [ok.submit(), ok.submit()],
    "tuple of futures": lambda: (ok.submit(), ok.submit()),
    "tuple of a future and data": lambda: (bad.submit(), 5),
    "dict of a failed future": lambda: {"a": bad.submit()},
    "nested list of a failed future": lambda: [[bad.submit()]],
    "futures in quote": lambda: [quote(5)],
    "mapped": lambda: given.map([1, 2]),
    "mapped results": lambda: given.map([1, 2]).result(),
    "completed by hand": lambda: Completed(),
    "completed by hand with data": lambda: Completed(data=3),
    "completed by hand, renamed": lambda: Completed(name="Skipped", message="nothing to do"),
    "failed by hand": lambda: Failed(message="not good"),
    "failed by hand with an exception": lambda: Failed(data=ValueError("held")),
    "failed by hand with text": lambda: Failed(data="told"),
    "cancelled by hand": lambda: Cancelled(message="stopped"),
    "crashed by hand": lambda: Crashed(message="broken"),
    "list by hand, cancelled": lambda: [Completed(), Cancelled()],
    "list by hand, paused": lambda: [Completed(), Paused()],
    "list by hand, failed and cancelled": lambda: [Failed(), Cancelled()],
    "an ignored failure": lambda: (bad(return_state=True), 7)[1],
}


def program_flow_returns() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, body in CASES.items():

        @flow(name=f"returns {name}", persist_result=False)
        def returning(body: Any = body) -> Any:
            return body()

        returning.should_validate_parameters = False
        state = returning(return_state=True)
        facts[f"{name}: state"] = ended(state)
        facts[f"{name}: result"] = outcome(lambda state=state: state.result())
        facts[f"{name}: result without raising"] = outcome(
            lambda state=state: state.result(raise_on_failure=False)
        )
        facts[f"{name}: call"] = outcome(returning)
    return facts


TASK_CASES = {
    name: CASES[name]
    for name in (
        "data",
        "none",
        "an exception object",
        "completed by hand with data",
        "completed by hand, renamed",
        "failed by hand",
        "failed by hand with an exception",
        "cancelled by hand",
        "list by hand, cancelled",
    )
}


def program_task_returns() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, body in TASK_CASES.items():
        facts |= {f"{name}: {key}": fact for key, fact in _task_return(name, body).items()}
    return facts


def _task_return(name: str, body: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @task(name=f"returns {name}")
    def returning() -> Any:
        return body()

    @flow(name=f"around {name}")
    def around() -> None:
        facts["state"] = ended(returning(return_state=True))
        facts["call"] = outcome(returning)
        future = returning.submit()
        future.wait()
        facts["future"] = ended(future.state)
        facts["future's result"] = outcome(future.result)

    around()
    return facts


def program_upstreams() -> dict[str, Any]:
    facts: dict[str, Any] = {}

    @flow
    def around() -> None:
        failed, fine = bad.submit(), ok.submit()
        failed.wait()
        facts["future as argument"] = outcome(lambda: given(fine))
        facts["futures in a list"] = outcome(lambda: given([fine, {"a": fine}]))
        facts["state as argument"] = outcome(lambda: given(fine.state))
        facts["failed future, direct call"] = outcome(lambda: given(failed))
        facts["failed future, state"] = ended(given(failed, return_state=True), message=False)
        submitted = given.submit(failed)
        submitted.wait()
        facts["failed future, submitted"] = ended(submitted.state, message=False)
        facts["failed future, submitted, is final"] = submitted.state.is_final()
        facts["failed future, submitted, result"] = outcome(submitted.result)
        allowed = given.submit(allow_failure(failed))
        facts["allowed failure"] = outcome(allowed.result)
        facts["allowed success"] = outcome(lambda: given(allow_failure(fine)))
        waited = ok.submit(wait_for=[failed])
        waited.wait()
        facts["wait for a failure"] = ended(waited.state, message=False)
        facts["wait for an allowed failure"] = outcome(ok.submit(wait_for=[allow_failure(failed)]).result)
        facts["wait for success"] = outcome(ok.submit(wait_for=[fine]).result)
        facts["quoted"] = outcome(lambda: hasattr(given(quote(fine)), "task_run_id"))
        facts["wait, direct call"] = outcome(lambda: ok(wait_for=[failed]))

    around()
    return facts
