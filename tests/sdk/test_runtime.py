"""`headrace.runtime`: what code may know about its run, everywhere it runs, and from the environment."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headrace
from headrace import flow, tags, task
from headrace.context import TagsContext, with_context
from headrace.runtime import deployment, flow_run, task_run
from headrace.settings import temporary_settings
from tests.support.recorders import MemoryRecorder


@pytest.fixture(autouse=True)
def _recorded(recorder: MemoryRecorder) -> None:
    """Every test here records in memory."""


def snapshot(module: Any) -> dict[str, Any]:
    return {name: getattr(module, name) for name in dir(module)}


def test_the_modules_and_what_they_have() -> None:
    assert headrace.runtime.flow_run is flow_run
    assert set(dir(flow_run)) == {
        *("id", "name", "tags", "parameters", "flow_name", "flow_version", "run_count"),
        *("scheduled_start_time", "parent_flow_run_id", "parent_deployment_id", "root_flow_run_id"),
        *("api_url", "ui_url", "job_variables"),
    }
    assert set(dir(task_run)) == {
        *("id", "name", "task_name", "tags", "parameters", "run_count", "api_url", "ui_url")
    }
    assert set(dir(deployment)) == {"id", "name", "version", "flow_run_id", "parameters"}
    for module in (flow_run, task_run, deployment):
        assert set(module.__all__) == set(dir(module))


def test_outside_of_runs_everything_is_empty() -> None:
    before = datetime.now(UTC)
    outside = snapshot(flow_run)
    assert timedelta(0) <= outside.pop("scheduled_start_time") - before < timedelta(seconds=20)
    assert outside.pop("run_count") == 0
    assert (outside.pop("tags"), outside.pop("parameters"), outside.pop("job_variables")) == ([], {}, {})
    assert set(outside.values()) == {None}
    assert snapshot(deployment) == {
        **dict.fromkeys(("id", "name", "version", "flow_run_id")),
        "parameters": {},
    }
    assert task_run.run_count == 0
    assert task_run.id is None


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    for module in (flow_run, task_run, deployment):
        with pytest.raises(AttributeError, match="nonsense"):
            _ = module.nonsense


def test_inside_of_a_flow_and_its_tasks(recorder: MemoryRecorder) -> None:
    seen: dict[str, Any] = {}

    @task(task_run_name="step-{y}")
    def work(y: int) -> None:
        seen["task"] = snapshot(task_run)
        seen["flow in task"] = snapshot(flow_run)

    @flow(name="etl", version="v1", flow_run_name="nightly")
    def run(x: int) -> None:
        seen["flow"] = snapshot(flow_run)
        seen["no task"] = task_run.id
        with tags("deep"):
            work.submit(y=7).result()

    with tags("eu"):
        run("3")  # type: ignore[arg-type]
    of_flow, of_task = recorder.the("etl").run, recorder.the("work").run
    assert seen["flow"] == {
        **seen["flow"],
        "id": of_flow.id,
        "name": "nightly",
        "flow_name": "etl",
        "flow_version": "v1",
        "tags": ["eu"],
        "parameters": {"x": 3},
        "run_count": 1,
        "root_flow_run_id": of_flow.id,
        "parent_flow_run_id": None,
    }
    assert abs(datetime.now(UTC) - seen["flow"]["scheduled_start_time"]) < timedelta(seconds=20)
    assert seen["no task"] is None
    assert seen["flow in task"] == seen["flow"]
    assert seen["task"] == {
        "id": of_task.id,
        "name": "step-7",
        "task_name": "work",
        "tags": ["deep", "eu"],
        "parameters": {"y": 7},
        "run_count": 1,
        "api_url": None,
        "ui_url": None,
    }


def test_in_a_subflow_hooks_and_names(recorder: MemoryRecorder) -> None:
    seen: dict[str, Any] = {}

    @flow(on_completion=[lambda *_: seen.update(hook=flow_run.name)])
    def inner() -> None:
        seen.update(id=flow_run.id, parent=flow_run.parent_flow_run_id, root=flow_run.root_flow_run_id)

    @flow(flow_run_name=lambda: f"{flow_run.flow_name} of {flow_run.parameters['day']}")
    def outer(day: str) -> None:
        seen["outer"] = flow_run.name
        inner()
        seen["back"] = flow_run.flow_name

    outer("monday")
    of_outer, of_inner = recorder.the("outer").run, recorder.the("inner").run
    assert seen == {
        "outer": "outer of monday",
        "id": of_inner.id,
        "parent": of_outer.id,
        "root": of_outer.id,
        "hook": of_inner.name,
        "back": "outer",
    }


def test_the_run_count_grows_with_retries() -> None:
    counts: list[tuple[int, int]] = []

    @task(retries=2)
    def work() -> None:
        counts.append((flow_run.run_count, task_run.run_count))
        if len(counts) < 3:
            raise ValueError

    @flow
    def run() -> None:
        work()

    run()
    assert counts == [(1, 1), (1, 2), (1, 3)]


async def test_gathered_tasks_see_their_own_runs() -> None:
    @task
    async def work(i: int) -> tuple[int, Any]:
        await asyncio.sleep(0)
        return i, task_run.parameters["i"]

    @flow
    async def run() -> Any:
        return {"pairs": await asyncio.gather(*(work(i) for i in range(10)))}

    pairs = (await run())["pairs"]
    assert all(i == seen for i, seen in pairs)


def test_a_foreign_thread_knows_the_run_only_with_the_context() -> None:
    @flow
    def run() -> Any:
        with ThreadPoolExecutor(1) as pool:
            without = pool.submit(lambda: flow_run.id).result()
            within = pool.submit(with_context(lambda: flow_run.id)).result()
        return {"without": without, "is own": within == flow_run.id}

    assert run() == {"without": None, "is own": True}


def test_the_server_gives_runs_an_address() -> None:
    @flow
    def run() -> Any:
        return {"url": flow_run.api_url, "id": flow_run.id}

    with temporary_settings({"api_url": "example.test:4321"}):
        said = run()
    assert said["url"] == f"grpc://example.test:4321/runs/{said['id']}"


@pytest.mark.parametrize(
    ("module", "name", "text", "inside", "value"),
    [
        (flow_run, "name", "mocked", True, "mocked"),
        (flow_run, "id", "1234", False, "1234"),
        (flow_run, "run_count", "7", True, 7),
        (flow_run, "scheduled_start_time", "2026-02-01T10:00", False, datetime(2026, 2, 1, 10, tzinfo=UTC)),
        (
            flow_run,
            "scheduled_start_time",
            "2026-02-01T10:00+02:00",
            True,
            datetime(2026, 2, 1, 8, tzinfo=UTC),
        ),
        (flow_run, "not_ours", "text", True, "text"),
        (task_run, "task_name", "mocked", False, "mocked"),
        (deployment, "name", "nightly", True, "nightly"),
    ],
)
def test_the_environment_gives_attributes_of_the_right_type(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, text: str, inside: bool, value: Any
) -> None:
    kind = module.__name__.rpartition(".")[2].upper()
    monkeypatch.setenv(f"HEADRACE__RUNTIME__{kind}__{name.upper()}", text)
    seen: list[Any] = []

    @flow
    def run() -> None:
        seen.append(getattr(module, name))

    if inside:
        run()
    else:
        seen.append(getattr(module, name))
    assert seen == [value]
    assert type(seen[0]) is type(value)


@pytest.mark.parametrize("name", ["TAGS", "PARAMETERS"])
def test_lists_and_dictionaries_cannot_be_given(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"HEADRACE__RUNTIME__FLOW_RUN__{name}", "x")
    with pytest.raises(ValueError, match="monkeypatch"):
        getattr(flow_run, name.lower())


def test_a_text_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE__RUNTIME__FLOW_RUN__RUN_COUNT", "many")
    with pytest.raises(ValueError, match="HEADRACE__RUNTIME__FLOW_RUN__RUN_COUNT='many'"):
        _ = flow_run.run_count


def test_a_process_that_was_started_for_a_run_knows_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE__FLOW_RUN_ID", "f" * 36)
    assert flow_run.id == "f" * 36
    assert deployment.flow_run_id == "f" * 36


def test_a_flow_that_was_called_has_no_deployment() -> None:
    @flow
    def run(x: int) -> tuple[dict[str, Any], str]:
        return snapshot(deployment), flow_run.id or ""

    found, run_id = run(1)
    assert found == {"id": None, "name": None, "version": None, "flow_run_id": run_id, "parameters": {"x": 1}}


def test_a_function_with_a_context_may_run_in_many_threads_at_once(recorder: MemoryRecorder) -> None:
    @task
    def work(i: int) -> int:
        return i

    def call(i: int) -> tuple[int, set[str]]:
        with tags(f"t{i}"):
            return work(i), set(TagsContext.get().current_tags)

    @flow
    def run() -> Any:
        with tags("around"):
            bound = with_context(call)
        with ThreadPoolExecutor(4) as pool:
            return {"seen": list(pool.map(bound, range(20)))}

    assert run()["seen"] == [(i, {"around", f"t{i}"}) for i in range(20)]
    flow_id = recorder.the("run").run.id
    assert {call.run.parent_run_id for call in recorder.all("work")} == {flow_id}
