"""Runs that are on record already, executed as the attempt that was given to this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import flow, resume_flow_run, runtime, suspend_flow_run, tags, task
from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import new_id
from headrace.exceptions import (
    Abort,
    CodeChanged,
    LostInFlight,
    ParameterBindError,
    Pause,
    SerializationError,
)
from headrace.execution.attempts import run_flow_attempt
from headrace.execution.steps import ServerSteps
from headrace.recorder import get_recorder, process
from headrace.settings import temporary_settings
from headrace.testing import skip_time
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace.v1.run_pb2 import RUN_KIND_FLOW, RUN_KIND_TASK, Run, RunFilter
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import STATE_TYPE_SCHEDULED
from tests.support.kinds import KINDS, of_kind
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened
        process.close_recorders()


def created(client: Any, parameters: dict[str, Any] | None = None, **fields: Any) -> Run:
    """A flow run that nobody executes yet."""
    run = Run(id=new_id(), kind=RUN_KIND_FLOW, name="given-name", flow_name="given", **fields)
    if parameters is not None:
        run.parameters.encoding, run.parameters.inline = "json", json.dumps(parameters).encode()
    asked: Run = client.create_run(CreateRunRequest(run=run)).run
    return asked


def names(client: Any, run: Run) -> list[str]:
    return [state.name for state in client.iter_states(run.id)]


def given(fn: Any) -> Any:
    """The flow of the created runs, with this body."""
    return flow(name="given")(fn)


def same(n: int) -> int:
    return n


@task
def step(x: int) -> int:
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_under_its_id_with_the_parameters_on_record(kind: str, client: Any) -> None:
    def body(n: int, *rest: int, scale: int = 10, **more: int) -> Any:
        assert runtime.flow_run.name == "given-name" and runtime.flow_run.run_count == 1
        return [runtime.flow_run.id, step(n) * scale, rest, more]

    run = created(client, {"n": 2, "rest": [3, 4], "x": 5}, tags=["night"])
    state = run_flow_attempt(given(of_kind(kind, body)), run.id, run.attempt, run.fence)
    assert state.result(_sync=True) == [run.id, 20, (3, 4), {"x": 5}]
    assert names(client, run) == ["Scheduled", "Pending", "Running", "Completed"]
    after = client.get_run(run.id)
    assert (after.attempt, after.fence, after.run_count, after.name) == (1, 1, 1, "given-name")
    (called,) = client.iter_runs(RunFilter(root_run_ids=[run.id], kinds=[RUN_KIND_TASK]))
    assert (called.parent_run_id, list(called.tags)) == (run.id, ["night"])


def test_parameters_that_are_given_replace_those_on_record(client: Any) -> None:
    run = created(client, {"n": 2})
    state = run_flow_attempt(given(same), run.id, 1, 1, {"n": 7})
    assert state.result(_sync=True) == 7


@pytest.mark.parametrize("parameters", [{}, {"n": 1, "unknown": 2}])
def test_parameters_that_do_not_fit_leave_the_run_alone(parameters: dict[str, int], client: Any) -> None:
    run = created(client, parameters)
    with pytest.raises(ParameterBindError):
        run_flow_attempt(given(same), run.id, 1, 1)
    assert names(client, run) == ["Scheduled"]


def test_a_failed_run_is_a_result_and_retries_are_counted_from_this_attempt(client: Any) -> None:
    tries: list[int] = []

    @flow(name="given", retries=1)
    def body() -> None:
        tries.append(runtime.flow_run.run_count)
        raise ValueError("always")

    run = created(client)
    assert run_flow_attempt(body, run.id, 1, 1).is_failed()
    assert tries == [1, 2]
    assert names(client, run) == ["Scheduled", "Pending", "Running", "Retrying", "Failed"]


@pytest.mark.parametrize("attempt, fence", [(1, 2), (2, 7)])
def test_an_attempt_that_does_not_own_the_run_never_enters_the_body(
    attempt: int, fence: int, client: Any
) -> None:
    run = created(client)
    with pytest.raises(Abort, match="is owned by its attempt 1 with fence 1"):
        run_flow_attempt(given(lambda: pytest.fail("entered")), run.id, attempt, fence)
    assert names(client, run) == ["Scheduled"]


def test_a_run_that_has_ended_is_not_run_again(client: Any) -> None:
    run = created(client)
    once = given(lambda: 1)
    assert run_flow_attempt(once, run.id, 1, 1).is_completed()
    with pytest.raises(Abort, match="has ended: it is Completed"):
        run_flow_attempt(once, run.id, 1, 1)


def test_a_run_that_is_scheduled_for_later_is_waited_for(client: Any) -> None:
    run = created(client)
    late = datetime.now(UTC) + timedelta(seconds=1.2)
    later = Run(id=new_id(), kind=RUN_KIND_FLOW, name="later", flow_name="given")
    later.state.id, later.state.type = new_id(), STATE_TYPE_SCHEDULED
    later.state.event_time.GetCurrentTime()
    later.state.scheduled.scheduled_time.FromDatetime(late)
    run = client.create_run(CreateRunRequest(run=later)).run
    state = run_flow_attempt(given(lambda: datetime.now(UTC)), run.id, 1, 1)
    assert state.result(_sync=True) >= late


def test_what_cannot_be_executed(client: Any) -> None:
    with pytest.raises(ObjectNotFound):
        run_flow_attempt(given(lambda: 1), new_id(), 1, 1)
    run = Run(id=new_id(), kind=RUN_KIND_FLOW, name="odd", flow_name="given")
    run.parameters.encoding, run.parameters.inline = "pickle", b"?"
    client.create_run(CreateRunRequest(run=run))
    with pytest.raises(SerializationError, match="recorded as 'pickle'"):
        run_flow_attempt(given(lambda: 1), run.id, 1, 1)
    with tags("lone"):
        step(1)
    assert process.current().flush(10)
    (lone,) = client.iter_runs(RunFilter(tags_all=["lone"]))
    with pytest.raises(ValueError, match="no flow run"):
        run_flow_attempt(given(lambda: 1), lone.id, 1, 1)


def taken_over(client: Any, flow_run_id: str) -> Run:
    run: Run = client.take_over_run(flow_run_id)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_asked_for_when_they_are_wanted(kind: str, client: Any) -> None:
    """What a run of many steps holds of them does not grow with their results."""
    entered: list[int] = []

    @task
    def made(number: int, size: int) -> str:
        entered.append(number)
        return str(number) * size

    def body(is_over: bool) -> list[str]:
        found = [made(number, size) for number in range(5) for size in (1, 5_000, 50_000)]
        if not is_over:
            raise ValueError("stop here")
        return [text[:2] for text in found]

    durable = flow(name="given", durable=True)(of_kind(kind, body))
    run = created(client, {"is_over": False})
    assert run_flow_attempt(durable, run.id, 1, 1).is_failed()
    known = dict(ServerSteps(run.id).load())
    assert len(known) == 15 and all(len(step.state) < 500 for step in known.values())
    assert sum(step.is_elsewhere for step in known.values()) == 10
    run = taken_over(client, run.id)
    state = run_flow_attempt(durable, run.id, run.attempt, run.fence, {"is_over": True})
    expected = [str(n) if size == 1 else 2 * str(n) for n in range(5) for size in (1, 5_000, 50_000)]
    assert state.result(_sync=True) == expected
    assert len(entered) == 15


@pytest.mark.parametrize(
    ("lost_seconds", "tries", "message"),
    [
        (60, 1, "given up after 1 attempt: the next one would begin past the retry deadline of 100 second"),
        (30, 2, "given up after 2 attempts"),
        (101, 0, "was not tried: its retry deadline of 100 second(s) has passed"),
    ],
)
def test_a_later_attempt_has_what_is_left_of_the_deadline(
    lost_seconds: float, tries: int, message: str, client: Any
) -> None:
    tried: list[int] = []

    @flow(name="given", retry_deadline_seconds=100, retry_delay_seconds=40)
    def body(fails: bool) -> None:
        tried.append(1)
        if fails:
            raise ValueError("always")
        raise SystemExit(3)

    run = created(client, {"fails": False})
    with skip_time() as clock:
        with pytest.raises(SystemExit):
            run_flow_attempt(body, run.id, 1, 1)
        assert process.current().flush(10)
        run = taken_over(client, run.id)
        clock.skip(lost_seconds)
        tried.clear()
        state = run_flow_attempt(body, run.id, run.attempt, run.fence, {"fails": True})
    assert (len(tried), state.name) == (tries, "Failed")
    assert message in (state.message or "")


def test_a_suspended_run_comes_back(client: Any) -> None:
    entered: list[str] = []

    @task
    def before() -> str:
        entered.append("before")
        return "b"

    @task
    def after(answer: int) -> int:
        entered.append("after")
        return answer

    @flow(name="given", durable=True)
    def body() -> list[Any]:
        return [before(), after(suspend_flow_run(wait_for_input=int))]

    run = created(client, deployment_id=new_id())
    with pytest.raises(Pause):
        run_flow_attempt(body, run.id, run.attempt, run.fence)
    resume_flow_run(run.id, {"value": 7})
    run = client.get_run(run.id)
    assert run.state.name == "Resuming"
    state = run_flow_attempt(body, run.id, run.attempt, run.fence)
    assert state.result(_sync=True) == ["b", 7]
    assert entered == ["before", "after"]
    assert client.get_run(run.id).run_count == 1
    history = ["Scheduled", "Pending", "Running", "Suspended", "Resuming", "Pending", "Running", "Completed"]
    assert names(client, run) == history


def test_it_knows_its_deployment(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the run was made from it: the deployment has changed meanwhile."""
    answer = client.apply_deployment(Deployment(flow_name="given", name="nightly", version="v1"))
    asked = CreateDeploymentRunRequest(deployment=deployment_key("given/nightly"))
    asked.parameters = json.dumps({"n": 3})
    run = client.create_deployment_run(asked).run
    client.apply_deployment(Deployment(flow_name="given", name="nightly", version="v2"))
    monkeypatch.setenv("HEADRACE__FLOW_RUN_ID", run.id)
    seen: list[Any] = []

    def look() -> None:
        told = runtime.deployment
        seen.append([told.id, told.name, told.version, told.parameters, told.flow_run_id])

    @flow
    def child() -> str:
        look()
        return str(runtime.flow_run.id)

    @task
    def calls() -> str:
        return child()

    def body(n: int) -> str:
        look()
        return calls()

    child_id = run_flow_attempt(given(body), run.id, run.attempt, run.fence).result()
    told = [answer.deployment.id, "nightly", "v1", {"n": 3}]
    assert seen == [[*told, run.id], [*told, child_id]]


# Runs that are taken up again.


def taken_up(client: Any, made: Any, run: Run) -> Any:
    """The state in which another attempt of the run ends."""
    assert get_recorder().flush(60)
    again = client.take_over_run(run.id)
    return run_flow_attempt(made, run.id, again.attempt, again.fence)


@pytest.mark.parametrize(
    ("choice", "entered", "end"),
    [
        ("resume", ["one", "two"], "Completed"),
        ("restart", ["one", "one", "two"], "Completed"),
        ("fail", ["one"], "Failed"),
    ],
)
def test_with_other_code(
    choice: Any, entered: list[str], end: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    one = task(lambda: ran.append("one"), name="one")
    two = task(lambda: ran.append("two"), name="two")

    def first() -> None:
        one()
        raise ValueError("boom")

    def second() -> None:
        one()
        two()

    def version(name: str, body: Any) -> Any:
        return flow(name="given", durable=True, version=name, on_code_change=choice)(body)

    run = created(client, {}, flow_version="of the deployment")
    assert run_flow_attempt(version("v1", first), run.id, 1, 1).is_failed()
    assert client.get_run(run.id).flow_version == "v1"
    state = taken_up(client, version("v2", second), run)
    assert (ran, state.name) == (entered, end)
    if choice == "fail":
        assert isinstance(state.data, CodeChanged)
        assert "from v1 to v2" in state.message
        assert client.get_run(run.id).flow_version == "v1", "the next attempt is asked again"
    else:
        assert "The code has changed since the run was executed last: from v1 to v2" in caplog.text
        assert client.get_run(run.id).flow_version == "v2"


def test_with_the_same_code_nothing_is_said(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    @flow(name="given", durable=True, on_code_change="fail")
    def made() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("boom")
        return step(3)

    run = created(client, {})
    assert run_flow_attempt(made, run.id, 1, 1).is_failed()
    assert taken_up(client, made, run).result() == 3
    assert "The code has changed" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_not_idempotent_is_not_run_again(kind: str, client: Any) -> None:
    """Its process was lost while it ran. What failed by itself runs again."""
    ran: list[str] = []

    def pay() -> None:
        ran.append("pay")
        raise SystemExit(1)

    def note() -> int:
        ran.append("note")
        return runtime.flow_run.run_count

    pays = task(idempotent=False, retries=3)(of_kind(kind, pay))
    notes = task(idempotent=False)(of_kind(kind, note))

    @task(idempotent=False)
    def fails() -> None:
        ran.append("fails")
        if runtime.flow_run.run_count == 1:
            raise ValueError("boom")

    def body() -> Any:
        fails(return_state=True)
        try:
            return pays.submit().result()
        except LostInFlight as error:
            return [str(error), notes.submit().result()]

    made = flow(name="given", durable=True)(body)
    run = created(client, {})
    with pytest.raises(SystemExit):
        run_flow_attempt(made, run.id, 1, 1)
    text, count = taken_up(client, made, run).result()
    assert ran == ["fails", "pay", "fails", "note"]
    assert ("body of task 'pay' was running" in text, count) == (True, 2)
    [lost] = client.iter_runs(RunFilter(root_run_ids=[run.id], task_names=["pay"]))
    assert (lost.state.name, names(client, lost)[-1]) == ("LostInFlight", "LostInFlight")


def test_it_stays_lost(client: Any) -> None:
    ran: list[int] = []

    @task(idempotent=False)
    def pay() -> None:
        ran.append(1)
        raise SystemExit(1)

    made = flow(name="given", durable=True, retries=1)(lambda: pay())
    run = created(client, {})
    with pytest.raises(SystemExit):
        run_flow_attempt(made, run.id, 1, 1)
    for _ in range(2):
        assert isinstance(taken_up(client, made, run).data, LostInFlight)
    assert ran == [1]
