"""The shape of a family of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.products.product import Databases, Product

__all__ = ["Family", "Values"]

Values = Mapping[str, list[float]]
"""Figure name to one value per repeat, in the figure's unit."""


@dataclass(frozen=True)
class Family:
    """Figures that are measured together."""

    name: str
    """Also the beginning of the names of its figures."""
    measure: Callable[[Product, Databases, int], Values]
    """Product, where empty databases come from and how many repeats, to values."""
    per_database: bool = True
    """Whether it is measured once per kind of database; else once, with SQLite's."""
    own_only: bool = False
    """Whether it is for headrace alone."""
    full_only: bool = False
    """Whether it takes minutes, and so has to be asked for."""
