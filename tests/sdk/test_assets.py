"""Assets: what is told about them when tasks make them, wherever these run.

That the events are the same as Prefect's is in `tests/parity/programs/materializing.py`.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from pydantic import ValidationError

from headrace import flow, runtime, task
from headrace.assets import Asset, AssetProperties, add_asset_metadata, assets_of, materialize
from headrace.exceptions import MissingContextError
from headrace.settings import temporary_settings
from headrace.task_runners import ProcessPoolTaskRunner
from headrace.tasks import MaterializingTask
from tests.support.kinds import KINDS, call, of_kind
from tests.support.recorders import MemoryRecorder

SOURCE = "postgres://shop/orders"
MADE = "s3://lake/orders.parquet"
REPORT = "s3://lake/report.csv"


@pytest.fixture(autouse=True)
def _recorded(recorder: MemoryRecorder) -> None:
    """Every test here records in memory."""


def told(recorder: MemoryRecorder) -> list[tuple[str, str, list[str], dict[str, Any]]]:
    """Of each event its last word, the asset, those that it was made from, and the metadata."""
    return [
        (
            event.event.rpartition(".")[2],
            event.resource.labels["headrace.resource.id"],
            [
                one.labels["headrace.resource.id"]
                for one in event.related
                if one.labels["headrace.resource.role"].startswith("asset")
            ],
            json.loads(event.payload),
        )
        for event in (entry.event for entry in recorder.entries if entry.HasField("event"))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_from_what(kind: str, recorder: MemoryRecorder) -> None:
    def export() -> list[int]:
        add_asset_metadata(MADE, {"rows": 1})
        return [1000]

    exported = materialize(MADE, by="spark", asset_deps=[SOURCE])(of_kind(kind, export))
    passed_on = task(of_kind(kind, lambda rows: [*rows, 2000]))
    reported = materialize(REPORT)(of_kind(kind, lambda rows: len(rows)))

    def body() -> Any:
        return reported.submit(passed_on.submit(exported.submit())).result()

    assert call(flow(of_kind(kind, body))) == 2
    assert told(recorder) == [
        ("referenced", SOURCE, [], {}),
        ("succeeded", MADE, [SOURCE, "spark"], {"rows": 1}),
        ("referenced", MADE, [], {}),
        ("succeeded", REPORT, [MADE], {}),
    ]


def test_a_task_on_its_own(recorder: MemoryRecorder) -> None:
    @materialize(MADE, asset_deps=[SOURCE])
    def export() -> int:
        return 1

    assert export() == 1
    assert told(recorder) == [("referenced", SOURCE, [], {}), ("succeeded", MADE, [SOURCE], {})]


def test_dependencies_alone_tell_nothing(recorder: MemoryRecorder) -> None:
    @task(asset_deps=[SOURCE])
    def read() -> int:
        return 1

    flow(lambda: read())()
    assert told(recorder) == []


def test_in_other_processes(recorder: MemoryRecorder) -> None:
    @materialize(MADE)
    def export() -> list[int]:
        add_asset_metadata(MADE, {"rows": 1})
        return [1000]

    @materialize(REPORT)
    def report(rows: list[int]) -> int:
        return len(rows)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def across() -> int:
        return report.submit(export.submit()).result()

    assert across() == 1
    assert told(recorder) == [
        ("succeeded", MADE, [], {"rows": 1}),
        ("referenced", MADE, [], {}),
        ("succeeded", REPORT, [MADE], {}),
    ]


def test_steps_that_are_not_run_again(recorder: MemoryRecorder, tmp_path: pathlib.Path) -> None:
    """They tell nothing again, and what is made from them is told all the same."""

    @materialize(MADE)
    def export() -> list[int]:
        return [1000]

    @materialize(REPORT)
    def report(rows: list[int]) -> int:
        if runtime.flow_run.run_count == 1:
            raise ValueError("boom")
        return len(rows)

    @flow(durable=True, retries=1)
    def twice() -> int:
        return report(export())

    with temporary_settings({"results_local_storage_path": str(tmp_path)}):
        assert twice() == 1
    reports = [("referenced", MADE, [], {}), ("failed", REPORT, [MADE], {})]
    assert told(recorder) == [
        ("succeeded", MADE, [], {}),
        *reports,
        reports[0],
        ("succeeded", REPORT, [MADE], {}),
    ]


def test_how_runs_end(recorder: MemoryRecorder) -> None:
    @materialize(MADE, timeout_seconds=0.05)
    def slow() -> None:
        while True:
            pass

    @materialize(REPORT)
    def leaves() -> None:
        raise SystemExit(3)

    assert slow(return_state=True).name == "TimedOut"
    with pytest.raises(SystemExit):
        leaves()
    assert told(recorder) == [("failed", MADE, [], {})]


def test_of_two_with_one_key_the_one_that_says_more_counts(recorder: MemoryRecorder) -> None:
    named = Asset(key=SOURCE, properties=AssetProperties(name="orders", owners=[]))

    @task(asset_deps=[SOURCE])
    def one() -> list[int]:
        return [1000]

    @materialize(MADE, asset_deps=[named])
    def export(rows: list[int]) -> None: ...

    @flow
    def made() -> None:
        export(one())

    made()
    assert [entry[:2] for entry in told(recorder)] == [("referenced", SOURCE), ("succeeded", MADE)]
    labels = next(entry.event.resource.labels for entry in recorder.entries if entry.HasField("event"))
    assert labels["headrace.resource.name"] == "orders"
    assert labels["headrace.asset.owners"] == "[]"


def test_more_sources_than_an_event_can_name(
    recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [f"s3://lake/part/{number}" for number in range(100)]

    @materialize(MADE, asset_deps=parts)
    def joined() -> None: ...

    joined()
    *references, made = told(recorder)
    assert [entry[1] for entry in references] == parts
    assert made[2] == parts[:80]
    assert "names 80 of the 100 assets" in caplog.text


def test_what_cannot_be_told_does_not_end_the_run(
    recorder: MemoryRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    @materialize(MADE)
    def export() -> int:
        add_asset_metadata(MADE, {"text": "x" * 1_000_001})
        return 1

    assert export() == 1
    assert told(recorder) == []
    assert "Not everything could be told" in caplog.text


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="takes the assets"):
        materialize()
    with pytest.raises(TypeError, match="an asset is"):
        materialize(lambda: 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'asset_deps' must be a collection"):
        task(lambda: 1, asset_deps=SOURCE)  # type: ignore[call-overload]
    with pytest.raises(ValidationError, match="scheme is in lower case"):
        materialize("orders")
    with pytest.raises(ValidationError, match="cannot contain ' '"):
        task(asset_deps=["s3://a b"])(lambda: 1)
    with pytest.raises(ValidationError, match="colour"):
        AssetProperties(colour="red")  # type: ignore[call-arg]
    with pytest.raises(MissingContextError, match="in the body of a task"):
        add_asset_metadata(MADE, {})

    @materialize(MADE)
    def export() -> None:
        with pytest.raises(ValueError, match=f"'export' does not make the asset '{REPORT}'"):
            add_asset_metadata(REPORT, {})

    export()


def test_the_options_of_the_copies() -> None:
    exported = materialize(MADE, by="spark", asset_deps=[SOURCE], retries=2)(lambda: 1)
    other = exported.with_options(name="other")
    assert isinstance(other, MaterializingTask)
    assert (other.assets, other.materialized_by, other.retries) == (assets_of([MADE]), "spark", 2)
    assert other.asset_deps == assets_of([SOURCE])
    assert exported.with_options(assets=[REPORT]).assets == assets_of([REPORT])
    assert exported.with_options(asset_deps=[]).asset_deps == ()

    class Lake:
        @materialize(MADE)
        def export(self) -> str:
            return type(self).__name__

    bound: Any = Lake().export
    assert isinstance(bound, MaterializingTask)
    assert bound() == "Lake"
