"""Assets: what is told when tasks make them, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import recorded
from plain import outcome

from headrace import allow_failure, flow, runtime, task
from headrace.assets import Asset, AssetProperties, add_asset_metadata, materialize
from headrace.cache_policies import INPUTS
from headrace.context import FlowRunContext
from headrace.tasks import MaterializingTask, Task

RAW = Asset(
    key="s3://lake/raw.csv",
    properties=AssetProperties(
        name="raw", url="https://lake.example/raw", description="as it comes", owners=["ada", "bob"]
    ),
)


@materialize(RAW, by="spark", asset_deps=["postgres://shop/orders"], tags=["lake"])
def raw() -> list[int]:
    add_asset_metadata(RAW, {"rows": 2})
    RAW.add_metadata({"columns": ["id"]})
    return [1000, 2000]


@task
def cleaned(rows: list[int]) -> list[int]:
    return [*rows, 3000]


@task(asset_deps=[Asset(key="https://rates.example/eur")])
def rates() -> dict[str, float]:
    return {"eur": 1.5}


@materialize("s3://lake/report.csv", "s3://lake/summary.csv")
def report(rows: list[int], by: dict[str, float]) -> int:
    add_asset_metadata("s3://lake/summary.csv", {"rows": len(rows)})
    return len(rows)


@materialize("s3://lake/broken.csv")
def broken(rows: Any) -> None:
    add_asset_metadata("s3://lake/broken.csv", {"half": True})
    raise ValueError("boom")


def _told(flow_run_id: str) -> list[Any]:
    return recorded.asset_events(flow_run_id)


def program_assets_of_a_flow() -> dict[str, Any]:
    @flow
    def made() -> str:
        report(cleaned(raw()), rates())
        return str(runtime.flow_run.id)

    @flow
    def submitted() -> str:
        report.submit(cleaned.submit(raw.submit()), rates.submit()).result()
        return str(runtime.flow_run.id)

    @flow
    def waiting() -> str:
        report([1], {"eur": 1.0}, wait_for=[raw.submit()])
        return str(runtime.flow_run.id)

    @flow
    def failing() -> str:
        future = broken.submit(raw())
        report.submit([1], allow_failure(future)).wait()
        return str(runtime.flow_run.id)

    return {
        name: _told(made_here())
        for name, made_here in {
            "called": made,
            "submitted": submitted,
            "waited for": waiting,
            "failed": failing,
        }.items()
    }


def program_assets_again() -> dict[str, Any]:
    tries: list[int] = []

    @materialize("s3://lake/late.csv", retries=1)
    def late() -> int:
        tries.append(len(tries))
        add_asset_metadata("s3://lake/late.csv", {f"try {len(tries)}": True})
        if len(tries) == 1:
            raise ValueError("boom")
        return 1

    @materialize("s3://lake/cached.csv", cache_policy=INPUTS)
    def cached(key: str) -> str:
        return key

    @materialize("s3://lake/next.csv")
    def after(value: str) -> str:
        return value

    @flow
    def retried() -> str:
        late()
        return str(runtime.flow_run.id)

    key = str(uuid.uuid4())

    @flow
    def twice() -> str:
        cached(key)
        return str(runtime.flow_run.id)

    @flow
    def after_a_hit() -> str:
        after(cached(key))
        return str(runtime.flow_run.id)

    return {
        "retried": _told(retried()),
        "first": _told(twice()),
        "after a hit": _told(after_a_hit()),
    }


def _refused(call: Callable[[], Any]) -> Any:
    """The built-in classes of what a call raises."""
    return outcome(call)["raised"][1]


def program_assets_in_assets() -> dict[str, Any]:
    @materialize("s3://lake/inner.csv")
    def inner() -> int:
        return 1

    @task
    def plain() -> Any:
        return _refused(lambda: add_asset_metadata("s3://lake/outer.csv", {"a": 1}))

    found: dict[str, Any] = {}

    @materialize("s3://lake/outer.csv")
    def outer() -> int:
        found["of another"] = _refused(lambda: add_asset_metadata("s3://lake/other.csv", {"a": 1}))
        found["in a plain task"] = plain()
        return inner()

    @flow
    def around() -> str:
        assert FlowRunContext.get() is not None
        found["in a flow"] = _refused(lambda: add_asset_metadata(RAW, {"a": 1}))
        outer()
        return str(runtime.flow_run.id)

    found["events"] = _told(around())
    found["outside"] = _refused(lambda: RAW.add_metadata({"a": 1}))
    return found


def _takes(key: str) -> bool:
    try:
        Asset(key=key)
    except ValueError:
        return False
    return True


def program_asset_keys() -> dict[str, Any]:
    keys = ["s3://a/b", "S3://a/b", "a/b", "x1://", "s3://a b", "s3://a?b", "s3://a#b", "s3://a%20b"]
    keys += [f"s3://a{character}" for character in "&\"'<>[]{}|\\^`\n\t"] + ["s3://" + "a" * 507, "s3://é"]
    keys += ["s3://" + "a" * 508]
    return {
        **{repr(key)[:40] + str(len(key)): _takes(key) for key in keys},
        "description": _refused(lambda: AssetProperties(description="x" * 2501)),
        "nothing made": _refused(materialize),
    }


def program_materializing_tasks() -> dict[str, Any]:
    other = raw.with_options(assets=["s3://lake/other.csv"], retries=2)
    named = raw.with_options(name="named")
    plain = cleaned.with_options(asset_deps=["s3://lake/x"])
    return {
        "kinds": [isinstance(one, MaterializingTask) for one in (raw, other, named, plain)],
        "a task": isinstance(raw, Task),
        "assets": [[asset.key for asset in one.assets] for one in (raw, other, named)],
        "by": [one.materialized_by for one in (raw, other, named)],
        "deps": [[asset.key for asset in one.asset_deps] for one in (raw, other, plain, rates, cleaned)],
        "options": [other.retries, named.name, sorted(named.tags)],
        "equal": [Asset(key=RAW.key) == RAW, hash(RAW) == hash(Asset(key=RAW.key)), repr(RAW)],
    }
