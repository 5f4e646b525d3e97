"""Sending and receiving while flows run, through a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from headrace import flow, task
from headrace.client import get_client
from headrace.core.errors import ObjectAlreadyExists, ObjectNotFound
from headrace.core.ids import new_id
from headrace.input import (
    RunInput,
    asend_input,
    create_flow_run_input,
    delete_flow_run_input,
    filter_flow_run_input,
    read_flow_run_input,
    receive_input,
    send_input,
)
from headrace.recorder import process
from headrace.runtime import flow_run
from headrace.settings import temporary_settings
from tests.support.postgres import Cluster
from tests.support.servers import ServerProcess

SOON = 20
MOMENT = 0.3
"""How long to wait for what will not come."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"], autouse=True)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    home = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        with ServerProcess(home) as running, temporary_settings({"api_url": running.address}):
            yield running
            process.close_recorders()
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with (
        cluster.database() as url,
        ServerProcess(home, url) as running,
        temporary_settings({"api_url": running.address}),
    ):
        yield running
        process.close_recorders()


class Question(RunInput):
    text: str


class Answer(RunInput):
    text: str
    number: int = 0


class Point(BaseModel):
    x: int


def test_each_input_comes_once_and_the_oldest_first() -> None:
    @flow
    def receives() -> list[int]:
        for number in range(50):
            send_input(number, str(flow_run.id))
        return list(receive_input(int, timeout=MOMENT))

    assert receives() == list(range(50))


def test_a_coroutine_receives_what_comes_while_it_waits() -> None:
    @flow
    async def receives() -> list[int]:
        own_id = str(flow_run.id)

        async def sends() -> None:
            for number in range(3):
                await asend_input(number, own_id)

        sending = asyncio.create_task(sends())
        numbers: list[int] = []
        async for number in receive_input(int, timeout=SOON):
            numbers.append(number)
            if len(numbers) == 3:
                break
        await sending
        return numbers

    assert asyncio.run(receives()) == [0, 1, 2]


def test_inputs_are_pushed() -> None:
    @flow
    async def receives() -> float:
        receiver = receive_input(float, timeout=SOON, poll_interval=SOON)
        waiting = asyncio.create_task(receiver.anext())
        await asyncio.sleep(MOMENT)
        await asend_input(time.monotonic(), str(flow_run.id))
        return time.monotonic() - await waiting

    assert asyncio.run(receives()) < 5


def test_two_receivers_both_get_what_is_sent_to_the_run() -> None:
    @flow
    def receives() -> tuple[list[int], list[int]]:
        first, second = receive_input(int, timeout=MOMENT), receive_input(int, timeout=MOMENT)
        send_input(1, str(flow_run.id))
        got = [first.next()]
        send_input(2, str(flow_run.id))
        return got + list(first), list(second)

    assert receives() == ([1, 2], [1, 2])


def test_what_a_receiver_passes_by() -> None:
    @flow
    def receives() -> list[int]:
        own_id = str(flow_run.id)
        for number in range(3):
            create_flow_run_input(f"numbers-{number}", {"value": number}, own_id)
        create_flow_run_input("numbersofothers-1", {"value": 7}, own_id)
        receiver = receive_input(int, timeout=MOMENT, key_prefix="numbers", exclude_keys={"numbers-1"})
        return list(receiver)

    assert receives() == [0, 2]


def test_each_type_has_its_own_inputs() -> None:
    @flow
    def receives() -> Any:
        own_id = str(flow_run.id)
        send_input(1, own_id)
        send_input("one", own_id)
        send_input([1, 2], own_id)
        send_input(Point(x=3), own_id)
        Answer(text="yes").send_to(own_id)
        return (
            receive_input(int, timeout=SOON).next(),
            receive_input(str, timeout=SOON).next(),
            receive_input(list[int], timeout=SOON).next(),
            receive_input(Point, timeout=SOON).next().x,
            Answer.receive(timeout=SOON).next().text,
        )

    assert receives() == (1, "one", [1, 2], 3, "yes")


def test_the_end_of_waiting() -> None:
    @flow
    def quiet() -> list[int]:
        return list(receive_input(int, timeout=0.05))

    @flow
    def loud() -> None:
        list(receive_input(int, timeout=0.05, raise_timeout_error=True))

    @flow
    async def aloud() -> None:
        async for _ in receive_input(int, timeout=0.05, raise_timeout_error=True):
            pass

    assert quiet() == []
    with pytest.raises(TimeoutError):
        loud()
    with pytest.raises(TimeoutError):
        asyncio.run(aloud())


def test_two_flow_runs_talk() -> None:
    ids: asyncio.Queue[str]

    @flow
    async def asks() -> str:
        await Question(text="how many?").asend_to(await ids.get())
        answer = await Answer.receive(timeout=SOON).anext()
        assert answer.metadata.receiver == str(flow_run.id)
        return f"{answer.text} {answer.number}"

    @flow
    async def answers() -> str:
        await ids.put(str(flow_run.id))
        question = await Question.receive(timeout=SOON).anext()
        await question.arespond(Answer(text=question.text, number=42))
        return question.metadata.sender or ""

    async def main() -> list[str]:
        nonlocal ids
        ids = asyncio.Queue()
        return list(await asyncio.gather(asks(), answers()))

    answer, sender = asyncio.run(main())
    assert answer == "how many? 42"
    assert sender.startswith("headrace.flow-run.")


def test_who_cannot_be_answered() -> None:
    @flow
    def receives() -> None:
        own_id = str(flow_run.id)
        send_input(1, own_id, sender="a person")
        received = receive_input(int, timeout=SOON, with_metadata=True).next()
        assert (received.value, received.metadata.sender) == (1, "a person")
        with pytest.raises(RuntimeError, match="not sent by a flow run"):
            received.respond(2)
        with pytest.raises(RuntimeError, match="Only an input that was received"):
            Answer(text="x").respond(2)

    receives()


def test_a_task_and_a_program_outside_send_to_a_flow_run() -> None:
    @task
    def sends(to: str) -> None:
        send_input("from a task", to)

    @flow
    def receives() -> list[str]:
        sends(str(flow_run.id))
        return [receive_input(str, timeout=SOON).next()]

    assert receives() == ["from a task"]

    @flow
    def ends() -> str:
        return str(flow_run.id)

    run_id = ends()
    send_input("from outside", run_id)
    assert receive_input(str, timeout=SOON, flow_run_id=run_id).next() == "from outside"
    with pytest.raises(RuntimeError, match="be within a flow run"):
        receive_input(str)
    with pytest.raises(ObjectNotFound):
        send_input(1, new_id())
    with pytest.raises(ObjectNotFound):
        receive_input(int, timeout=SOON, flow_run_id=new_id()).next()
    with pytest.raises(ValueError, match="negative"):
        receive_input(int, timeout=-1, flow_run_id=run_id)


def test_inputs_as_the_server_keeps_them() -> None:
    @flow
    def own() -> None:
        create_flow_run_input("a-1", {"x": [1]})
        create_flow_run_input("a-1", {"x": [1]})
        with pytest.raises(ObjectAlreadyExists):
            create_flow_run_input("a-1", 2)
        create_flow_run_input("a-2", None)
        assert read_flow_run_input("a-1") == {"x": [1]}
        assert [said.key for said in filter_flow_run_input("a-", limit=5)] == ["a-1", "a-2"]
        assert [said.key for said in filter_flow_run_input("a-", exclude_keys={"a-1"})] == ["a-2"]
        delete_flow_run_input("a-1")
        assert read_flow_run_input("a-1") is None

    own()


def test_a_flood_is_received_in_order_and_in_pieces() -> None:
    @flow
    def receives() -> int:
        own_id = str(flow_run.id)
        create_flow_run_input("warm-up", 0)
        with get_client(sync_client=True) as client:
            from headrace.v1.run_service_pb2 import RunInput as Message

            for number in range(300):
                said = Message(run_id=own_id, key=f"flood-{number:04}", value=f'{{"value": {number}}}')
                client.send_run_input(said)
        receiver = receive_input(int, timeout=MOMENT, key_prefix="flood")
        most = 0
        for place, number in enumerate(receiver):
            assert number == place
            most = max(most, len(receiver._arrived))  # pyright: ignore[reportPrivateUsage]
        assert len(receiver.exclude_keys) == 300
        return most

    assert receives() <= 40
