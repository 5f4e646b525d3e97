"""What a flow's deployment says, before a server hears of it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace import flow, get_client
from headrace.runner import ConcurrencyLimitConfig, Runner, RunnerDeployment, serve
from headrace.schedules import Cron
from headrace.testing import headrace_test_harness
from headrace.v1.deployment_pb2 import COLLISION_STRATEGY_CANCEL_NEW


@flow(description="Says hello.", version="7")
def greet(name: str = "you", when: timedelta = timedelta(hours=1)) -> None:
    pass


def test_what_is_said_of_the_flow_is_taken_over() -> None:
    message = greet.to_deployment("mine", parameters={"when": timedelta(seconds=90)}).to_message()
    assert (message.flow_name, message.name, message.version) == ("greet", "mine", "7")
    assert message.description == "Says hello."
    assert message.entrypoint == "tests/sdk/test_to_deployment.py:greet" or message.entrypoint.endswith(
        "/test_to_deployment.py:greet"
    )
    assert set(json.loads(message.parameter_schema)["properties"]) == {"name", "when"}
    assert json.loads(message.parameters) == {"when": "PT1M30S"}
    assert message.work_pool == ""


def test_options_reach_the_deployment() -> None:
    limit = ConcurrencyLimitConfig(3, "CANCEL_NEW", 60)
    message = greet.to_deployment(
        "mine",
        cron=["0 9 * * *", "0 17 * * *"],
        paused=True,
        concurrency_limit=limit,
        tags=["a", "b"],
        fairness_key="{{ parameters.name }}",
        enforce_parameter_schema=False,
        work_pool_name="p",
        work_queue_name="q",
        job_variables={"env": {"A": "1"}},
        entrypoint_type="module",
    ).to_message()
    assert [schedule.cron.cron for schedule in message.schedules] == ["0 9 * * *", "0 17 * * *"]
    assert message.paused
    assert message.concurrency.limit == 3
    assert message.concurrency.collision_strategy == COLLISION_STRATEGY_CANCEL_NEW
    assert message.concurrency.grace.seconds == 60
    assert list(message.tags) == ["a", "b"]
    assert message.fairness_key == "{{ parameters.name }}"
    assert message.skip_parameter_check
    assert (message.work_pool, message.work_queue) == ("p", "q")
    assert message.job_variables["env"]["A"] == "1"
    assert message.entrypoint == f"{__name__}:greet"


def test_a_fairness_key_that_is_not_said_stays() -> None:
    assert "fairness_key" not in greet.to_deployment("mine").paths
    assert "fairness_key" in greet.to_deployment("mine", fairness_key="").paths


def test_schedules_of_every_kind() -> None:
    assert [s.interval for s in greet.to_deployment("a", interval=60).schedules] == [timedelta(minutes=1)]
    assert [s.rrule for s in greet.to_deployment("a", rrule="FREQ=DAILY").schedules] == ["FREQ=DAILY"]
    one = Cron("0 9 * * *", timezone="Europe/Oslo")
    assert greet.to_deployment("a", schedule=one).schedules == (one,)
    assert greet.to_deployment("a", schedules=[one, one]).schedules == (one, one)


def test_only_one_kind_of_schedule_can_be_given() -> None:
    with pytest.raises(ValueError, match="not interval and cron"):
        greet.to_deployment("a", interval=60, cron="0 9 * * *")


def test_a_flow_that_other_processes_cannot_find_is_refused() -> None:
    @flow
    def inner() -> None:
        pass

    with pytest.raises(ValueError, match="not a function at the top of a module"):
        inner.to_deployment("a")


def test_a_flow_of_a_file_that_is_not_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etl.py").write_text("from headrace import flow\n\n@flow\ndef etl(day: str): ...\n")
    made = RunnerDeployment.from_storage(tmp_path, "etl.py:etl", "stored", tags=["a"], work_pool_name="p")
    assert (made.flow_name, made.entrypoint, made.tags) == ("etl", "etl.py:etl", ("a",))
    message = made.to_message()
    [step] = message.pull_steps.steps
    assert dict(step["headrace.deployments.steps.set_working_directory"]) == {"directory": str(tmp_path)}
    monkeypatch.chdir(tmp_path)
    here = RunnerDeployment.from_entrypoint("etl.py:etl", "here", paused=True)
    assert (here.entrypoint, here.path, here.to_message().paused) == ("etl.py:etl", str(tmp_path), True)


def test_deployments_are_declared_by_plain_code_and_by_coroutines() -> None:
    with headrace_test_harness(), get_client(sync_client=True) as client:
        runner = Runner()
        ids = [greet.to_deployment("a").apply(), runner.add_flow(greet, "b")]
        ids.append(runner.add_deployment(greet.to_deployment("c")))

        async def awaited() -> list[str]:
            made = greet.to_deployment("d")
            by_either_name: Any = made.apply()
            return [await made.aapply(), await by_either_name, await runner.aadd_flow(greet, "e")]

        ids += asyncio.run(awaited())
        assert [client.get_deployment(id).name for id in ids] == ["a", "b", "c", "d", "d", "e"]
        assert runner.deployment_ids == [ids[1], ids[2], ids[5]]


async def test_serving_blocks_so_it_is_refused_on_an_event_loop() -> None:
    deployment = RunnerDeployment(name="a", flow_name="f", entrypoint="x.py:f")
    with pytest.raises(RuntimeError, match="aserve"):
        serve(deployment)


async def test_a_runner_refuses_what_it_cannot_run() -> None:
    with pytest.raises(ValueError, match="for workers of pool p"):
        await Runner().aadd_deployment(RunnerDeployment("a", "f", "x.py:f", work_pool_name="p"))
    with pytest.raises(ValueError, match="'limit' must be at least 1"):
        Runner(limit=0)
