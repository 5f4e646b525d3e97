"""Lists of runs: filters against a plain model, orders, pages, tokens, counts."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headrace.core.errors import FieldsInvalid, ObjectNotFound, PageTokenInvalid
from headrace.core.ids import new_id
from headrace.v1.run_pb2 import Run, RunFilter
from headrace.v1.run_service_pb2 import RunOrder
from headrace_services.storage.database import Database, open_database
from tests.storage.build import (
    SECOND,
    START,
    ManualClock,
    Recording,
    flow_run,
    record,
    run_of,
    state,
    task_run,
)

ENDS = ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED"]


async def _fill(database: Database, clock: ManualClock) -> list[Run]:
    """Runs of many kinds; as they are read one by one."""
    rng = random.Random(3)
    recording = Recording(database)
    await recording.open()
    ids: list[str] = []
    for place in range(60):
        clock.advance(rng.choice([0, 1, 1, 3]))
        tags = sorted(rng.sample(["a", "b", "c", "d%_"], rng.randrange(4)))
        flow = flow_run(rng.choice(["etl", "report", "ETL-2"]), tags=tags)
        flow.name = f"{rng.choice(['Red', 'green', 'blue%'])}-{place}"
        if place % 7 == 0:
            flow.deployment_id, flow.work_pool, flow.work_queue = "dep-1", "pool", f"q{place % 2}"
        runs = [flow]
        for step in range(rng.randrange(3)):
            task = task_run(flow, rng.choice(["load", "save"]), tags=tags[:1])
            task.name = f"{task.task_name}-{place}-{step}"
            runs.append(task)
        for run in runs:
            entries = [run_of(run)]
            if rng.random() < 0.95:
                at = START + rng.randrange(100) * SECOND
                entries += [record(run, state("PENDING", at))]
                if (end := rng.choice(ENDS)) != "PENDING":
                    entries += [record(run, state("RUNNING", at + SECOND))]
                    if end != "RUNNING":
                        name = "Odd" if rng.random() < 0.2 else ""
                        entries += [record(run, state(end, at + rng.randrange(2, 50) * SECOND, name=name))]
            await recording.post(*entries)
            ids.append(run.id)
    return [await database.reader.get_run(id, full=False) for id in ids]


@pytest.fixture
async def filled(database_url: str, clock: ManualClock) -> AsyncIterator[tuple[Database, list[Run]]]:
    """A database full of runs, and those runs."""
    database = await open_database(database_url, clock=clock, read_pool_size=2)
    yield database, await _fill(database, clock)
    await database.close()


def _in(range: Any, run: Run, field: str) -> bool:
    if not run.HasField(field):  # type: ignore[arg-type]  # the stub wants literals
        return False
    at = getattr(run, field).ToMicroseconds()
    lower, upper = getattr(range, "from"), range.until
    return (not range.HasField("from") or at >= lower.ToMicroseconds()) and (
        not range.HasField("until") or at < upper.ToMicroseconds()
    )


def matches(filter: RunFilter, run: Run) -> bool:
    """What the filter's message says, word by word."""
    plain: list[tuple[Any, Any]] = [
        (filter.ids, run.id),
        (filter.kinds, run.kind),
        (filter.state_types, run.state.type),
        (filter.state_names, run.state.name),
        (filter.flow_names, run.flow_name),
        (filter.deployment_ids, run.deployment_id),
        (filter.root_run_ids, run.root_run_id),
        (filter.parent_run_ids, run.parent_run_id),
        (filter.work_pools, run.work_pool),
        (filter.work_queues, run.work_queue),
        (filter.names, run.name),
        (filter.task_names, run.task_name),
    ]
    times = ("start_time", "expected_start_time", "end_time", "create_time")
    return (
        all(not wanted or found in wanted for wanted, found in plain)
        and all(tag in run.tags for tag in filter.tags_all)
        and (not filter.tags_any or any(tag in run.tags for tag in filter.tags_any))
        and filter.name_contains.lower() in run.name.lower()
        and not (filter.top_level_only and run.parent_run_id)
        and run.id.startswith(filter.id_prefix)
        and all(not filter.HasField(t) or _in(getattr(filter, t), run, t) for t in times)
    )


def _value(run: Run, field: str) -> Any:
    if field == "name":
        return run.name
    return getattr(run, field).ToMicroseconds() if run.HasField(field) else None  # type: ignore[arg-type]


ORDERS: list[tuple[str, str, bool]] = [
    ("RUN_ORDER_UNSPECIFIED", "create_time", True),
    ("RUN_ORDER_CREATE_TIME_DESC", "create_time", True),
    ("RUN_ORDER_CREATE_TIME_ASC", "create_time", False),
    ("RUN_ORDER_START_TIME_DESC", "start_time", True),
    ("RUN_ORDER_EXPECTED_START_ASC", "expected_start_time", False),
    ("RUN_ORDER_NAME_ASC", "name", False),
]


def expected(filter: RunFilter, runs: list[Run], field: str, descending: bool) -> list[str]:
    """Ids in order: those without a value come last."""
    found = [run for run in runs if matches(filter, run)]
    with_value = [run for run in found if _value(run, field) is not None]
    without = [run for run in found if _value(run, field) is None]
    with_value.sort(key=lambda run: (_value(run, field), run.id), reverse=descending)
    without.sort(key=lambda run: run.id, reverse=descending)
    return [run.id for run in with_value + without]


async def all_pages(database: Database, filter: RunFilter, order: Any, page_size: int) -> list[str]:
    """Every page, one after the other."""
    found: list[str] = []
    token = ""
    while True:
        runs, token = await database.reader.list_runs(filter, order, page_size, token)
        assert len(runs) <= page_size
        found.extend(run.id for run in runs)
        if not token:
            return found


FIELDS: dict[str, Callable[[random.Random, list[Run]], Any]] = {
    "ids": lambda rng, runs: [run.id for run in rng.sample(runs, 5)] + [new_id()],
    "kinds": lambda rng, _: rng.sample([1, 2], rng.randrange(1, 3)),
    "state_types": lambda rng, _: rng.sample([2, 3, 6, 7, 9], rng.randrange(1, 4)),
    "state_names": lambda rng, _: rng.sample(["Pending", "Odd", "Completed"], 2),
    "flow_names": lambda rng, _: rng.sample(["etl", "report", "nothing"], rng.randrange(1, 3)),
    "deployment_ids": lambda _, __: ["dep-1"],
    "root_run_ids": lambda rng, runs: [run.root_run_id for run in rng.sample(runs, 4)],
    "parent_run_ids": lambda rng, runs: [run.root_run_id for run in rng.sample(runs, 9)],
    "work_pools": lambda _, __: ["pool"],
    "work_queues": lambda _, __: ["q0"],
    "tags_all": lambda rng, _: rng.sample(["a", "b", "d%_"], rng.randrange(1, 3)),
    "tags_any": lambda rng, _: rng.sample(["a", "c", "d%_", "zz"], rng.randrange(1, 4)),
    "name_contains": lambda rng, _: rng.choice(["red", "%", "-1", "_"]),
    "names": lambda rng, runs: [run.name for run in rng.sample(runs, 5)],
    "task_names": lambda _, __: ["load"],
    "top_level_only": lambda _, __: True,
    "id_prefix": lambda rng, runs: rng.choice(runs).id[: rng.choice([1, 9, 20, 36])],
    "start_time": lambda rng, runs: _some_range(rng, runs, "start_time"),
    "expected_start_time": lambda rng, runs: _some_range(rng, runs, "expected_start_time"),
    "end_time": lambda rng, runs: _some_range(rng, runs, "end_time"),
    "create_time": lambda rng, runs: _some_range(rng, runs, "create_time"),
}


def _some_range(rng: random.Random, runs: list[Run], field: str) -> Any:
    instants = [getattr(run, field) for run in runs if run.HasField(field)]  # type: ignore[arg-type]
    low, high = sorted(rng.sample(instants, 2), key=lambda instant: instant.ToMicroseconds())
    return rng.choice([{"from": low}, {"until": high}, {"from": low, "until": high}])


async def test_every_filter_means_what_it_says(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    for name, make in FIELDS.items():
        for seed in range(4):
            filter = RunFilter(**{name: make(random.Random(seed), runs)})
            found, _ = await database.reader.list_runs(filter, page_size=1000)
            assert [run.id for run in found] == expected(filter, runs, "create_time", True), filter


async def test_filters_together_orders_and_pages(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    rng = random.Random(11)
    for _ in range(120):
        names = rng.sample(sorted(FIELDS), rng.randrange(0, 4))
        filter = RunFilter(**{name: FIELDS[name](rng, runs) for name in names})
        order, field, descending = rng.choice(ORDERS)
        size = rng.choice([1, 7, 50, 1000])
        ids = await all_pages(database, filter, RunOrder.Value(order), size)
        assert ids == expected(filter, runs, field, descending), (filter, order, size)


async def test_a_filter_of_hundreds_of_values(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    many = [f"nothing-{place}" for place in range(195)]
    filter = RunFilter(
        flow_names=["etl", *many],
        names=[*many, *(run.name for run in runs)],
        state_names=[*many[:45], "Completed", "Failed", "Running", "Crashed", "Pending"],
        tags_any=["a", *many[:40]],
    )
    for field in (filter.work_pools, filter.work_queues, filter.deployment_ids, filter.task_names):
        field.extend([*many, "pool", "q0", "dep-1"])
    assert await database.reader.list_runs(filter, page_size=1000) == ([], "")
    for name in ("work_pools", "work_queues", "deployment_ids", "task_names"):
        filter.ClearField(name)  # type: ignore[arg-type]  # the stub wants literals
    found, _ = await database.reader.list_runs(filter, page_size=1000)
    assert [run.id for run in found] == expected(filter, runs, "create_time", True)
    assert found


async def test_counts_agree_with_lists(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    rng = random.Random(5)
    for _ in range(30):
        names = rng.sample(sorted(FIELDS), rng.randrange(0, 3))
        filter = RunFilter(**{name: FIELDS[name](rng, runs) for name in names})
        counted = {c.state_type: c.count for c in await database.reader.count_runs(filter)}
        wanted: dict[int, int] = {}
        for run in runs:
            if matches(filter, run):
                wanted[run.state.type] = wanted.get(run.state.type, 0) + 1
        assert counted == wanted


async def test_buckets_of_time(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    first = min(run.create_time.ToMicroseconds() for run in runs)
    until = first + 25 * SECOND
    buckets = await database.reader.aggregate_runs(RunFilter(kinds=[1]), first, until, 10 * SECOND)
    starts = [getattr(bucket, "from").ToMicroseconds() for bucket in buckets]
    assert starts == [first, first + 10 * SECOND, first + 20 * SECOND]
    for bucket, start in zip(buckets, starts, strict=True):
        end = min(start + 10 * SECOND, until)
        inside = [run for run in runs if run.kind == 1 and start <= run.create_time.ToMicroseconds() < end]
        assert sum(count.count for count in bucket.counts) == len(inside)
    for bad in ((5, 5, 1), (0, 10, 0), (0, 2000, 1)):
        with pytest.raises(FieldsInvalid):
            await database.reader.aggregate_runs(RunFilter(), *bad)


async def test_runs_by_id_under_a_filter(filled: tuple[Database, list[Run]]) -> None:
    database, runs = filled
    some = runs[:20]
    filter = RunFilter(tags_any=["a", "b"], state_types=[6, 7])
    found = await database.reader.get_runs([run.id for run in some], filter)
    assert sorted(run.id for run in found) == sorted(run.id for run in some if matches(filter, run))
    assert len(await database.reader.get_runs([run.id for run in some])) == 20
    assert await database.reader.get_runs([]) == []
    other = RunFilter(ids=[runs[30].id])
    assert await database.reader.get_runs([runs[0].id], other) == []


async def test_pages_hold_while_runs_are_added(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    before = [flow_run() for _ in range(5)]
    for run in before:
        clock.advance(1)
        await recording.post(run_of(run))
    page, token = await database.reader.list_runs(RunFilter(), page_size=2)
    clock.advance(1)
    await recording.post(run_of(flow_run()))
    rest, _ = await database.reader.list_runs(RunFilter(), page_size=10, page_token=token)
    assert [run.id for run in page + rest] == [run.id for run in reversed(before)]


async def test_tokens_belong_to_their_list(database: Database, recording: Recording) -> None:
    await recording.post(*(run_of(flow_run()) for _ in range(3)))
    reader = database.reader
    _, token = await reader.list_runs(RunFilter(kinds=[1]), page_size=1)
    for filter, order in ((RunFilter(), 0), (RunFilter(kinds=[1]), 4)):
        with pytest.raises(PageTokenInvalid):
            await reader.list_runs(filter, order, 1, token)  # type: ignore[arg-type]
    with pytest.raises(PageTokenInvalid):
        await reader.list_flows(page_token=token)
    digest = json.loads(base64.urlsafe_b64decode(token + "=="))[0]
    bodies: list[Any] = [[], {}, 7, [digest], [digest, "x", "y"], [digest, 1, 2], [digest, 1, "no id"]]
    for body in [*bodies, [digest, True, new_id()], [digest, 2**64, new_id()]]:
        made = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")
        with pytest.raises(PageTokenInvalid):
            await reader.list_runs(RunFilter(kinds=[1]), page_size=1, page_token=made)
    for garbage in ("x", "!!!", "é", token[:-4], token + "A" * 8, "W10"):
        with pytest.raises(PageTokenInvalid):
            await reader.list_runs(RunFilter(kinds=[1]), page_size=1, page_token=garbage)


async def test_page_sizes(database: Database, recording: Recording) -> None:
    await recording.post(*(run_of(flow_run()) for _ in range(120)))
    runs, token = await database.reader.list_runs(RunFilter())
    assert (len(runs), bool(token)) == (100, True)
    runs, token = await database.reader.list_runs(RunFilter(), page_size=5000)
    assert (len(runs), token) == (120, "")


async def test_views(database: Database, recording: Recording) -> None:
    flow = flow_run()
    flow.parameters.encoding, flow.parameters.inline = "json", b"[1]"
    flow.job_variables.update({"cpu": 2})
    done = state("COMPLETED", START + SECOND)
    done.data.encoding, done.data.inline = "json", b"2"
    await recording.post(run_of(flow), record(flow, state("RUNNING")), record(flow, done))
    (basic,), _ = await database.reader.list_runs(RunFilter())
    assert not basic.HasField("parameters")
    assert not basic.HasField("job_variables")
    assert not basic.state.HasField("data")
    (full,), _ = await database.reader.list_runs(RunFilter(), full=True)
    assert (full.parameters.inline, full.state.data.inline) == (b"[1]", b"2")
    assert full.job_variables["cpu"] == 2
    assert full == await database.reader.get_run(flow.id)


async def test_what_grows_is_measured_to_now(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    flow = flow_run()
    await recording.post(
        run_of(flow), record(flow, state("PENDING")), record(flow, state("RUNNING", START + SECOND))
    )
    clock.advance(10)
    run = await database.reader.get_run(flow.id)
    assert run.total_run_time.ToMicroseconds() == 0
    assert run.estimated_run_time.ToMicroseconds() == 9 * SECOND
    assert run.lateness.ToMicroseconds() == SECOND


async def test_a_history_in_pages(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.run_through(flow, ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "RUNNING", "COMPLETED"])
    names: list[str] = []
    token = ""
    while True:
        states, token = await database.reader.list_states(flow.id, 4, token)
        names.extend(s.name for s in states)
        if not token:
            break
    assert names == ["Scheduled", "Pending", "Running", "Paused", "Running", "Completed"]
    with pytest.raises(ObjectNotFound):
        await database.reader.list_states(new_id())
    with pytest.raises(ObjectNotFound):
        await database.reader.list_attempts(new_id())
    with pytest.raises(ObjectNotFound):
        await database.reader.get_run(new_id())


async def test_a_run_without_a_state_has_no_history(database: Database, recording: Recording) -> None:
    flow = flow_run()
    await recording.post(run_of(flow))
    assert await database.reader.list_states(flow.id) == ([], "")
    assert await database.reader.list_attempts(flow.id) == []
    assert not (await database.reader.get_run(flow.id)).HasField("state")


async def test_the_graph_of_a_run(database: Database, recording: Recording, clock: ManualClock) -> None:
    flow = flow_run()
    sub = flow_run("sub", root_run_id=flow.id, parent_run_id=flow.id)
    below = task_run(sub)
    first, second = task_run(flow, "first"), task_run(flow, "second")
    second.inputs.add(parameter="data", run_ids=[first.id])
    for run in (flow, first, second, sub, below):
        clock.advance(1)
        await recording.run_through(run, ["RUNNING", "COMPLETED"])
    nodes, is_cut = await database.reader.run_graph(flow.id)
    assert ([node.run_id for node in nodes], is_cut) == (
        [flow.id, first.id, second.id, sub.id, below.id],
        False,
    )
    assert list(nodes[2].inputs[0].run_ids) == [first.id]
    assert (nodes[1].task_name, nodes[1].state_name, nodes[1].flow_name) == ("first", "Completed", "etl")
    assert nodes[1].total_run_time.ToMicroseconds() == SECOND
    part, _ = await database.reader.run_graph(sub.id)
    assert [node.run_id for node in part] == [sub.id, below.id]
    cut, is_cut = await database.reader.run_graph(flow.id, 3)
    assert (len(cut), is_cut) == (3, True)
    with pytest.raises(ObjectNotFound):
        await database.reader.run_graph(new_id())


async def test_flows_and_their_last_runs(
    database: Database, recording: Recording, clock: ManualClock
) -> None:
    newest: dict[str, str] = {}
    for name, end in (
        ("b", "FAILED"),
        ("a", "COMPLETED"),
        ("b", "COMPLETED"),
        ("a", "FAILED"),
        ("A_b", "CRASHED"),
    ):
        clock.advance(1)
        run = flow_run(name)
        task = task_run(run)
        await recording.run_through(run, ["RUNNING", end])
        await recording.run_through(task, ["RUNNING", "COMPLETED"])
        newest[name] = run.id
    flows, token = await database.reader.list_flows()
    assert ([f.name for f in flows], token) == (["A_b", "a", "b"], "")
    assert {f.name: f.last_run.id for f in flows} == newest
    page, token = await database.reader.list_flows(page_size=2)
    rest, _ = await database.reader.list_flows(page_size=2, page_token=token)
    assert [f.name for f in page + rest] == ["A_b", "a", "b"]
    found, _ = await database.reader.list_flows("_B")
    assert [f.name for f in found] == ["A_b"]
    flow, counts = await database.reader.get_flow(name="b")
    assert {c.state_type: c.count for c in counts} == {6: 1, 7: 1}
    assert await database.reader.get_flow(id=flow.id) == (flow, counts)
    with pytest.raises(ObjectNotFound):
        await database.reader.get_flow(name="c")
