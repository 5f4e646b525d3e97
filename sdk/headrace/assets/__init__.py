"""Assets: what tasks make outside of the program, and from what.

    from headrace.assets import Asset, add_asset_metadata, materialize

    orders = Asset(key="s3://lake/orders.parquet")

    @materialize(orders, asset_deps=["postgres://shop/orders"])
    def export_orders() -> int:
        rows = ...
        add_asset_metadata(orders, {"rows": rows})

Each time such a task ends, an event says that the asset was made, or was not, and what it was made from.
"""

from __future__ import annotations

from headrace.assets.materializing import MaterializingTask, materialize
from headrace.assets.schemas import Asset, AssetProperties, add_asset_metadata, assets_of

__all__ = [
    "Asset",
    "AssetProperties",
    "MaterializingTask",
    "add_asset_metadata",
    "assets_of",
    "materialize",
]
