"""Assets as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from headrace.context import TaskRunContext
from headrace.exceptions import MissingContextError

__all__ = ["Asset", "AssetProperties", "add_asset_metadata", "assets_of"]

_DESCRIPTION_MAX: Final = 2500
_KEY_MAX: Final = 512
_SCHEME: Final = re.compile(r"[a-z0-9]+://")
_NOT_IN_KEYS: Final = "\n\r\t\0 #?&%\"'<>[]{}|\\^`"


def _checked_key(key: str) -> str:
    for character in key:
        if character in _NOT_IN_KEYS:
            raise ValueError(f"the key of an asset cannot contain {character!r}")
    if not _SCHEME.match(key):
        raise ValueError(
            "the key of an asset is a URI whose scheme is in lower case, such as s3://bucket/orders.parquet"
        )
    return key


class AssetProperties(BaseModel):
    """What people want to know about an asset.

    Attributes:
        name: what they call it.
        url: where they can look at it.
        description: at most 2500 characters.
        owners: who answers for it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    url: str | None = None
    description: str | None = Field(default=None, max_length=_DESCRIPTION_MAX)
    owners: list[str] | None = None


class Asset(BaseModel):
    """A thing outside of the program that tasks make: a table, a file, a model.

    Attributes:
        key: a URI, e.g. `s3://bucket/orders.parquet`: what the asset is known by everywhere; at most 512
            characters, without spaces, quotes, brackets and `# ? & % | \\ ^`.
        properties: told with every event about the asset; those that are not set stay as they are known.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    key: Annotated[str, Field(max_length=_KEY_MAX), AfterValidator(_checked_key)]
    properties: AssetProperties | None = None

    def __repr__(self) -> str:
        return f"Asset(key={self.key!r})"

    def __hash__(self) -> int:
        return hash(self.key)

    def add_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Tell more about what the task that runs here makes of the asset; see `add_asset_metadata`."""
        add_asset_metadata(self, metadata)


def add_asset_metadata(asset: str | Asset, metadata: Mapping[str, Any]) -> None:
    """Tell more about what the task that runs here makes of an asset: it is in the event of the attempt.

    Args:
        asset: one of those that the task was given by `@materialize`.
        metadata: anything that JSON can say; added to what was told in the same attempt before.

    Raises:
        MissingContextError: no task runs here; it is a RuntimeError.
        ValueError: the task does not make that asset.
    """
    context = TaskRunContext.get()
    if context is None:
        raise MissingContextError("Metadata of assets are added in the body of a task: none runs here.")
    key = asset if isinstance(asset, str) else asset.key
    if context.assets is None or not context.assets.add_metadata(key, metadata):
        raise ValueError(
            f"Task '{context.task.name}' does not make the asset '{key}': metadata can only be added to the"
            " assets that are arguments of its @materialize."
        )


def assets_of(given: Iterable[str | Asset]) -> list[Asset]:
    """Assets, some of which are given by their keys.

    Raises:
        TypeError: one is neither a key nor an asset.
        ValueError: a key is not one (a `pydantic.ValidationError`).
    """
    return [_asset_of(one) for one in given]


def _asset_of(given: Any) -> Asset:
    if isinstance(given, Asset):
        return given
    if isinstance(given, str):
        return Asset(key=given)
    raise TypeError(f"an asset is an Asset or its key, a string, not {given!r}")
