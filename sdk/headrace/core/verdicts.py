"""The four answers to a proposed state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Abort", "Accept", "Reject", "Verdict", "Wait"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Accept(Generic[S]):
    """The state is written, perhaps renamed: go on."""

    state: S


@dataclass(frozen=True, slots=True)
class Reject(Generic[S]):
    """Another state holds instead: behave as if it had been proposed.

    Attributes:
        state: the state the run is in now.
        reason: why, as a sentence.
    """

    state: S
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is written: propose the same again after `seconds`."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Nothing is written: stop executing the run, and write nothing more."""

    reason: str


Verdict: TypeAlias = Accept[S] | Reject[S] | Wait | Abort
