"""Types for the annotations of flows and blocks."""

from __future__ import annotations

from typing import Any

import pydantic

__all__ = ["SecretDict"]


class SecretDict(pydantic.Secret[dict[str, Any]]):
    """A dictionary whose values are not shown: `get_secret_value()` gives it.

    As the annotation of a parameter it takes a plain dictionary; what is recorded of it is masked.
    """
