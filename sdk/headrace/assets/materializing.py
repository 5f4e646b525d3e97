"""Tasks that make assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast

from headrace.assets.schemas import Asset, assets_of
from headrace.tasks import Task, TaskOptions
from headrace.utilities.typevars import TypeVar as DefaultTypeVar

__all__ = ["MaterializingTask", "materialize"]

P = ParamSpec("P")
R = DefaultTypeVar("R", default=Any, covariant=True)
T = TypeVar("T")


class MaterializingTask(Task[P, R]):
    """A task that makes assets. Made by `materialize`, whose arguments are described there.

    Attributes:
        assets: what it makes.
        materialized_by: the tool that does the work, or None.
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        assets: Iterable[str | Asset],
        materialized_by: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        super().__init__(fn, **options)
        self.assets = assets_of(assets)
        self.materialized_by = materialized_by

    def with_options(  # type: ignore[override]
        self, *, assets: Iterable[str | Asset] | None = None, **options: Unpack[TaskOptions]
    ) -> MaterializingTask[P, R]:
        """A new task of the same function, with other options or assets; those not given stay as they are."""
        other = cast("MaterializingTask[P, R]", super().with_options(**options))
        if assets is not None:
            other.assets = assets_of(assets)
        return other

    def again(self, fn: Any, options: Mapping[str, Any]) -> Self:
        return type(self)(fn, assets=self.assets, materialized_by=self.materialized_by, **options)


def materialize(
    *assets: str | Asset, by: str | None = None, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, T]], MaterializingTask[P, T]]:
    """Make a task of a function that makes assets.

    When a run of it ends, an event `headrace.asset.materialization.succeeded` or `….failed` tells of each
    asset, related to the assets that it was made from: those of `asset_deps`, and those of the tasks whose
    results it was given, directly or through other tasks. One `headrace.asset.referenced` tells of each of
    these. Nothing is told of a run whose result was there already.

    Args:
        *assets: what it makes; strings are keys of assets, e.g. `s3://bucket/orders.parquet`.
        by: the tool that does the work, e.g. "dbt".
        **options: those of `task`.

    Raises:
        TypeError: there is no asset, or one that is none.
        ValueError: a key is not one.
    """
    if not assets:
        raise TypeError("materialize() takes the assets that the task makes: @materialize('s3://bucket/key')")
    made = assets_of(assets)

    def decorate(fn: Callable[P, T]) -> MaterializingTask[P, T]:
        return MaterializingTask(fn, assets=made, materialized_by=by, **options)

    return decorate
