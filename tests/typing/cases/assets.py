"""Tasks that make assets are tasks."""

from typing import reveal_type

from headrace import Task
from headrace.assets import Asset, materialize


@materialize(Asset(key="s3://lake/a"), by="spark", asset_deps=["s3://lake/b"], retries=2)
def export(day: str) -> list[int]:
    return [len(day)]


reveal_type(export("monday"))  # R: list[int]
reveal_type(export.submit("monday").result())  # R: list[int]
reveal_type(export.with_options(assets=["s3://lake/c"], retries=1)("monday"))  # R: list[int]
plain: Task[[str], list[int]] = export

export(1)  # E: the wrong type
materialize("s3://lake/a", retry=2)  # E: no such option
materialize(3)  # E: not an asset
