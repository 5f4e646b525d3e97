"""Pausing and resuming flow runs through a real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from headrace import flow, pause_flow_run, resume_flow_run, suspend_flow_run, task
from headrace.client import get_client
from headrace.context import FlowRunContext
from headrace.core.errors import ObjectNotFound
from headrace.core.ids import new_id
from headrace.exceptions import CancelledRun, FlowPauseTimeout, NotPausedError, Pause, RunInputInvalid
from headrace.execution import api, calls, pausing
from headrace.flow_runs import apause_flow_run, aresume_flow_run
from headrace.input import RunInput
from headrace.recorder import process
from headrace.runtime import flow_run
from headrace.settings import get_current_settings, temporary_settings
from headrace.v1.run_pb2 import RUN_KIND_FLOW, Run, RunFilter
from headrace.v1.run_service_pb2 import ProposeStateRequest
from headrace.v1.state_pb2 import (
    STATE_TYPE_CANCELLING,
    STATE_TYPE_PAUSED,
    STATE_TYPE_PENDING,
    State,
)
from tests.support.kinds import KINDS, call, of_kind
from tests.support.postgres import Cluster
from tests.support.servers import ServerProcess

any_flow: Any = flow
SOON = 20
"""Seconds that no pause of these tests lasts unless something is broken."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("server")
    fast = {"HEADRACE_SERVER_RECORDER_RENEW_SECONDS": "1", "HEADRACE_SERVER_RECORDER_LEASE_SECONDS": "30"}
    if request.param == "sqlite":
        with ServerProcess(home, settings=fast) as running:
            yield running
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with cluster.database() as url, ServerProcess(home, url, settings=fast) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened
        process.close_recorders()


class Pauses:
    """What other people do with the paused runs of one flow.

    Attributes:
        name: a name for the flow of this test alone.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def each(self, *actions: Callable[[str], object]) -> None:
        """At each pause of the flow, one action after the other, called with the run's id."""
        thread = threading.Thread(target=copy_context().run, args=(self._act, actions))
        thread.start()
        self._threads.append(thread)

    def _act(self, actions: tuple[Callable[[str], object], ...]) -> None:
        left, seen = list(actions), set[str]()
        try:
            for event in self._client.watch_runs(RunFilter(flow_names=[self.name], kinds=[RUN_KIND_FLOW])):
                state = event.upsert.state
                if state.type == STATE_TYPE_PAUSED and state.id not in seen:
                    seen.add(state.id)
                    left.pop(0)(event.upsert.id)
                if not left:
                    return
        except BaseException as error:
            self.failures.append(error)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SOON)
            assert not thread.is_alive(), "the flow did not pause as often as expected"
        assert self.failures == []

    @property
    def run(self) -> Run:
        (run,) = self._client.iter_runs(RunFilter(flow_names=[self.name], kinds=[RUN_KIND_FLOW]))
        return self._client.get_run(run.id)

    def states(self) -> list[str]:
        return [state.name for state in self._client.iter_states(self.run.id)]

    def cancel(self, run_id: str) -> None:
        state = State(id=new_id(), type=STATE_TYPE_CANCELLING, message="enough")
        state.event_time.GetCurrentTime()
        verdict = self._client.propose_state(ProposeStateRequest(run_id=run_id, state=state))
        assert verdict.HasField("accepted")


@pytest.fixture
def pauses(client: Any, request: pytest.FixtureRequest) -> Iterator[Pauses]:
    people = Pauses(client, f"{request.node.originalname}-{new_id()[-12:]}")
    yield people
    people.join()


class Approval(RunInput):
    amount: float = Field(ge=0)
    approved: bool = False


class Address(BaseModel):
    street: str


@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_run_goes_on_when_it_is_resumed(kind: str, pauses: Pauses) -> None:
    def body() -> Any:
        return pause_flow_run(timeout=SOON)

    pauses.each(resume_flow_run)
    assert call(any_flow(of_kind(kind, body), name=pauses.name)) is None
    assert pauses.states() == ["Pending", "Running", "Paused", "Running", "Completed"]
    assert pauses.run.run_count == 1


def test_the_async_twins(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    async def asks() -> int:
        return await apause_flow_run(wait_for_input=int, timeout=SOON)

    pauses.each(lambda run_id: asyncio.run(aresume_flow_run(run_id, 7)))
    assert asyncio.run(asks()) == 7


def test_a_plain_flow_called_by_a_coroutine_pauses_plainly(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    def asks() -> int:
        return pause_flow_run(wait_for_input=int, timeout=SOON)

    async def main() -> int:
        return asks()

    pauses.each(lambda run_id: resume_flow_run(run_id, {"value": 7}))
    assert asyncio.run(main()) == 7


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (Approval, {"amount": 3}, Approval(amount=3)),
        (Approval, Approval(amount=3, approved=True), Approval(amount=3, approved=True)),
        (Address, {"street": "Elm"}, Address(street="Elm")),
        (int, 5, 5),
        (str, "text", "text"),
        (list[int], [1, 2], [1, 2]),
        (int | None, None, None),
        (Literal["yes", "no"], "no", "no"),
    ],
    ids=["RunInput", "an instance", "model", "int", "str", "list", "optional", "literal"],
)
def test_what_can_be_asked_for(pauses: Pauses, asked: Any, answer: Any, expected: Any) -> None:
    @flow(name=pauses.name)
    def asks() -> Any:
        return pause_flow_run(wait_for_input=asked, timeout=SOON)

    pauses.each(lambda run_id: resume_flow_run(run_id, {"value": None} if answer is None else answer))
    given = asks()
    if isinstance(expected, BaseModel):
        assert isinstance(given, asked)
        assert given.model_dump() == expected.model_dump()
    else:
        assert given == expected


def test_no_answer_is_an_answer_where_everything_has_a_default(pauses: Pauses, client: Any) -> None:
    @flow(name=pauses.name)
    def asks() -> Any:
        form = Approval.with_initial_data(description="**How much?**", amount=12.5)
        return pause_flow_run(wait_for_input=form, timeout=SOON)

    shown: dict[str, Any] = {}

    def answer(run_id: str) -> None:
        from headrace.v1.run_service_pb2 import ListRunInputsRequest

        found = client.list_run_inputs(ListRunInputsRequest(run_id=run_id)).inputs
        shown.update({said.key: json.loads(said.value) for said in found})
        resume_flow_run(run_id)

    pauses.each(answer)
    assert asks().model_dump() == {"amount": 12.5, "approved": False}
    assert shown["paused-1-description"] == "**How much?**"
    amount = shown["paused-1-schema"]["properties"]["amount"]
    assert (amount["default"], amount["minimum"]) == (12.5, 0)


def test_two_pauses_in_a_loop_never_cross(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    def asks() -> list[int]:
        return [pause_flow_run(wait_for_input=int, timeout=SOON) for _ in range(3)]

    pauses.each(*(partial(resume_flow_run, run_input=number) for number in (10, 20, 30)))
    assert asks() == [10, 20, 30]
    assert pauses.states().count("Paused") == 3


def test_a_wrong_answer_is_refused_and_the_run_stays_paused(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    def asks() -> Any:
        return pause_flow_run(wait_for_input=Approval, timeout=SOON)

    def answer(run_id: str) -> None:
        with pytest.raises(RunInputInvalid, match=r"input\.amount: must be at least 0") as refused:
            resume_flow_run(run_id, {"amount": -1, "colour": "red"})
        assert sorted(refused.value.violations) == ["input.amount", "input.colour"]
        with pytest.raises(RunInputInvalid, match=r"input\.amount: is required"):
            resume_flow_run(run_id)
        resume_flow_run(run_id, {"amount": 1})

    pauses.each(answer)
    assert asks().amount == 1
    assert pauses.states() == ["Pending", "Running", "Paused", "Running", "Completed"]


def test_a_resumption_before_the_wait_began_counts(pauses: Pauses, monkeypatch: pytest.MonkeyPatch) -> None:
    enter: Any = pausing.PauseRequest._enter  # pyright: ignore[reportPrivateUsage]

    async def resumed_at_once(self: Any) -> Any:
        state = await enter(self)
        await aresume_flow_run(self.context.flow_run.id, 3)
        return state

    monkeypatch.setattr(pausing.PauseRequest, "_enter", resumed_at_once)

    @flow(name=pauses.name)
    def asks() -> int:
        return pause_flow_run(wait_for_input=int, timeout=SOON)

    assert asks() == 3


@pytest.mark.parametrize("timeout", [0, 0.3])
def test_nobody_resumes_in_time(pauses: Pauses, timeout: float) -> None:
    @flow(name=pauses.name)
    def asks() -> None:
        pause_flow_run(timeout=timeout)

    with pytest.raises(FlowPauseTimeout, match="paused and never resumed"):
        asks()
    assert pauses.states()[:4] == ["Pending", "Running", "Paused", "Failed"]
    assert pauses.run.state.name == "Failed"
    with pytest.raises(NotPausedError, match="it is Failed"):
        resume_flow_run(pauses.run.id)


def test_a_key_fires_once_in_an_attempt_and_again_in_the_next(pauses: Pauses) -> None:
    tries: list[list[int]] = []

    @flow(name=pauses.name, retries=1)
    def asks() -> list[int]:
        answers = [pause_flow_run(wait_for_input=int, timeout=SOON, key="how-many") for _ in range(2)]
        tries.append(answers)
        if len(tries) == 1:
            raise ValueError("once more")
        return answers

    pauses.each(lambda run_id: resume_flow_run(run_id, 1), lambda run_id: resume_flow_run(run_id, 2))
    assert asks() == [2, 2]
    assert tries == [[1, 1], [2, 2]]
    assert pauses.run.run_count == 2


def test_pauses_of_two_branches_come_one_after_the_other(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    async def asks() -> list[int]:
        return list(
            await asyncio.gather(
                apause_flow_run(wait_for_input=int, timeout=SOON, key="a"),
                apause_flow_run(wait_for_input=int, timeout=SOON, key="b"),
            )
        )

    pauses.each(lambda run_id: resume_flow_run(run_id, 1), lambda run_id: resume_flow_run(run_id, 2))
    assert sorted(asyncio.run(asks())) == [1, 2]


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


@task
def step() -> str:
    return "done"


def test_tasks_that_run_go_on_and_new_ones_wait(pauses: Pauses, client: Any) -> None:
    may_end, may_resume = threading.Event(), threading.Event()

    @task
    def running() -> str:
        assert may_end.wait(SOON)
        return "went on"

    @flow(name=pauses.name)
    async def works() -> tuple[str, str, list[str]]:
        before = running.submit()
        pause = asyncio.create_task(apause_flow_run(timeout=SOON))
        context = FlowRunContext.get()
        assert context is not None
        await until(lambda: context.gate is not None)
        may_end.set()
        first = await asyncio.to_thread(before.result)
        held = step.submit()
        await until(lambda: held.state.name == "NotReady")
        assert held.state.is_paused()
        may_resume.set()
        await pause
        second = await asyncio.to_thread(held.result)
        return first, second, [held.task_run_id]

    def resume(run_id: str) -> None:
        assert may_resume.wait(SOON)
        resume_flow_run(run_id)

    pauses.each(resume)
    first, second, (held,) = asyncio.run(works())
    assert (first, second) == ("went on", "done")
    names = [state.name for state in client.iter_states(held)]
    assert names == ["Pending", "NotReady", "Running", "Completed"]


def test_tasks_held_back_by_a_pause_that_nobody_ends_are_cancelled(pauses: Pauses) -> None:
    states: list[str] = []

    @flow(name=pauses.name)
    async def works() -> None:
        pause = asyncio.create_task(apause_flow_run(timeout=0.5))
        context = FlowRunContext.get()
        assert context is not None
        await until(lambda: context.gate is not None)
        held = step.submit()
        try:
            await pause
        finally:
            await asyncio.to_thread(held.join)
            states.append(held.state.name)

    with pytest.raises(FlowPauseTimeout):
        asyncio.run(works())
    assert states == ["Cancelled"]


@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_reaches_a_paused_run(kind: str, pauses: Pauses) -> None:
    seen: list[str] = []

    def body() -> None:
        try:
            pause_flow_run(timeout=SOON)
            seen.append("went on")
        except Exception:
            seen.append("not for except Exception")
        finally:
            seen.append("finally")

    async def abody() -> None:
        try:
            await apause_flow_run(timeout=SOON)
            seen.append("went on")
        finally:
            seen.append("finally")

    def hook(_flow: Any, _run: Any, state: Any) -> None:
        seen.append(state.name)

    cancelled = any_flow(body if kind == "def" else abody, name=pauses.name, on_cancellation=[hook])
    pauses.each(pauses.cancel)
    with pytest.raises(CancelledRun, match="enough"):
        call(cancelled)
    assert seen == ["finally", "Cancelling"]
    assert pauses.states() == ["Pending", "Running", "Paused", "Cancelling", "Cancelled"]


def test_a_pause_inside_a_subflow(pauses: Pauses) -> None:
    @flow(name=pauses.name)
    def inner() -> int:
        return pause_flow_run(wait_for_input=int, timeout=SOON)

    @flow
    def outer() -> tuple[int, str]:
        value = inner()
        return value, str(flow_run.id)

    pauses.each(lambda run_id: resume_flow_run(run_id, 3))
    assert outer()[0] == 3
    assert pauses.states() == ["Pending", "Running", "Paused", "Running", "Completed"]


def test_cancelling_the_run_around_it_reaches_a_paused_subflow(pauses: Pauses, client: Any) -> None:
    around: list[str] = []

    @flow(name=pauses.name)
    def inner() -> None:
        pause_flow_run(timeout=SOON)

    @flow
    def outer() -> None:
        around.append(str(flow_run.id))
        inner()

    pauses.each(lambda _: pauses.cancel(around[0]))
    with pytest.raises(CancelledRun):
        outer()
    assert pauses.states() == ["Pending", "Running", "Paused", "Cancelled"]
    assert client.get_run(around[0]).state.name == "Cancelled"


def test_deleting_a_paused_run_ends_its_execution(pauses: Pauses, client: Any) -> None:
    @flow(name=pauses.name)
    def asks() -> None:
        pause_flow_run(timeout=SOON)

    from headrace.exceptions import Abort

    pauses.each(lambda run_id: client.delete_run(run_id, force=True))
    with pytest.raises(Abort):
        asks()


def test_where_nobody_can_pause(client: Any) -> None:
    @task
    def pauses_in_a_task() -> None:
        pause_flow_run()

    @flow
    def calls_it() -> None:
        pauses_in_a_task()

    @flow
    def never() -> None:
        pause_flow_run(timeout=-1)

    with pytest.raises(RuntimeError, match="only be paused from within a flow run"):
        pause_flow_run()
    with pytest.raises(RuntimeError, match="Cannot pause task runs"):
        calls_it()
    with pytest.raises(ValueError, match="negative"):
        never()
    with pytest.raises(ObjectNotFound):
        resume_flow_run(new_id())


# Suspending


def outside(action: Callable[[], object]) -> None:
    """Do it in a thread that is in no flow run."""
    settings = get_current_settings()

    def act() -> None:
        with temporary_settings({"api_url": settings.api_url}):
            action()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(Context().run, act).result()


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Makes the next flow runs ones of a deployment; with an id, that run once more."""
    new_flow_call: Any = calls.new_flow_call
    deployment_id = new_id()

    def install(run_id: str | None = None) -> None:
        def made(*args: Any) -> Any:
            made_call = new_flow_call(*args)
            run = made_call.context.flow_run
            if made_call.context.parent is None:
                run.deployment_id = deployment_id
                if run_id is not None:
                    run.id = run.root_run_id = run.root_flow_run_id = run_id
                    run.owner = type(run.owner)(run_id)
                    made_call.context.run_ids = (run_id,)
            return made_call

        monkeypatch.setattr(api, "new_flow_call", made)

    install()
    return install


def scheduled_again(client: Any, run_id: str) -> None:
    """What a worker does to a run before it starts the process."""
    state = State(id=new_id(), type=STATE_TYPE_PENDING)
    state.event_time.GetCurrentTime()
    assert client.propose_state(ProposeStateRequest(run_id=run_id, state=state)).HasField("accepted")


@pytest.mark.parametrize("kind", KINDS)
def test_a_suspended_run_leaves_and_comes_back_with_the_answer(
    kind: str, pauses: Pauses, client: Any, deployed: Any
) -> None:
    def body() -> Any:
        return suspend_flow_run(wait_for_input=int)

    asks = any_flow(of_kind(kind, body), name=pauses.name)
    with pytest.raises(Pause):
        call(asks)
    run = pauses.run
    assert (run.state.name, run.state.paused.reschedule, run.recorder_id) == ("Suspended", True, "")
    resume_flow_run(run.id, 7)
    assert client.get_run(run.id).state.name == "Resuming"
    scheduled_again(client, run.id)
    deployed(run.id)
    assert call(asks) == 7
    assert pauses.states() == [
        *("Pending", "Running", "Suspended", "Resuming", "Pending", "Pending", "Running", "Completed")
    ]


def test_a_suspended_run_waits_for_the_tasks_that_run(pauses: Pauses, client: Any, deployed: Any) -> None:
    started = threading.Event()
    futures: list[Any] = []

    @task
    def running() -> str:
        started.set()
        return "done"

    @flow(name=pauses.name)
    def leaves() -> None:
        futures.append(running.submit())
        assert started.wait(SOON)
        suspend_flow_run()

    with pytest.raises(Pause):
        leaves()
    assert futures[0].result(timeout=0) == "done"


def test_a_run_suspended_from_outside_leaves_at_its_next_task(
    pauses: Pauses, client: Any, deployed: Any
) -> None:
    counted: list[int] = []

    @task
    def count() -> None:
        counted.append(1)

    @flow(name=pauses.name)
    def works() -> None:
        count()
        suspend_flow_run_of_another_process()
        context = FlowRunContext.get()
        assert context is not None
        deadline = threading.Event()
        while context.suspended is None:  # told with the next renewal of the lease
            deadline.wait(0.02)
        count()

    def suspend_flow_run_of_another_process() -> None:
        run_id = str(flow_run.id)
        outside(lambda: suspend_flow_run(flow_run_id=run_id))

    with pytest.raises(Pause, match="Suspended"):
        works()
    assert len(counted) == 1
    assert pauses.run.state.name == "Suspended"


def test_who_cannot_be_suspended(pauses: Pauses, client: Any) -> None:
    @flow(name=pauses.name)
    def plain() -> None:
        suspend_flow_run()

    @flow
    def waits() -> None:
        run_id = str(flow_run.id)
        with pytest.raises(RuntimeError, match="Only a run of a deployment"):
            outside(lambda: suspend_flow_run(flow_run_id=run_id))

    with pytest.raises(RuntimeError, match="without a deployment"):
        plain()
    waits()
    with pytest.raises(RuntimeError, match="only be suspended from within"):
        suspend_flow_run()


def test_a_subflow_cannot_be_suspended(deployed: Any, client: Any) -> None:
    @flow
    def inner() -> None:
        suspend_flow_run()

    @flow
    def outer() -> None:
        inner()

    with pytest.raises(RuntimeError, match="Cannot suspend subflows"):
        outer()
