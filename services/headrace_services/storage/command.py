"""What can be asked of the writer: a command says what to load, then changes the rows at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from headrace.core.errors import InternalError, ServiceError
from headrace_services.storage.ops import Wanted
from headrace_services.storage.steps import Steps
from headrace_services.storage.work import Work

__all__ = ["Command", "Nothing"]

T = TypeVar("T")


class Command(Generic[T]):
    """One request to the writer.

    Attributes:
        future: resolved when the command is durable, or has failed.
        on_done: called right then; the callbacks of the future come a turn of the event loop later.
        weight: how much of a batch it fills; a record counts its entries.
    """

    weight = 1
    is_solo = False
    """Needs a transaction of its own."""
    is_optimistic = False
    """Goes by what was read without locks, and by what is remembered: the write confirms it."""
    needs_lease = False
    """Decides on a recorder's lease, which others renew: it must be loaded."""
    needs_lease_clock = False
    """Asks what time it is by the clock of leases."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.on_done: Callable[[], None] | None = None
        self._answer: T | None = None
        self._error: BaseException | None = None

    def wanted(self, wanted: Wanted) -> None:
        """Add what must be loaded to `wanted`."""

    def recorders(self) -> Sequence[str]:
        """The recorders that must be loaded."""
        return ()

    def apply(self, work: Work) -> Steps[T]:
        """Change the rows at hand. A `ServiceError` is raised before anything is changed."""
        raise NotImplementedError

    def run(self, work: Work) -> Steps[None]:
        """Apply, and keep the answer until the transaction is committed."""
        self._answer = self._error = None
        try:
            self._answer = yield from self.apply(work)
        except ServiceError as error:
            self._error = error

    def finish(self) -> None:
        """Give the answer: the transaction is committed."""
        if self.future.done():
            return  # whoever asked has gone
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._answer)  # type: ignore[arg-type]  # apply has set it
        self.done()

    def fail(self, error: BaseException) -> None:
        """Nothing of the command was written."""
        if not self.future.done():
            self.future.set_exception(error)
            self.done()

    def done(self) -> None:
        """The future has just been resolved."""
        if self.on_done is not None:
            self.on_done()

    def parts(self) -> list[Command[Any]]:
        """The command in smaller pieces, to find the one that breaks; empty when there are none."""
        return []

    def join(self, parts: Sequence[Command[Any]]) -> None:
        """Take the answer from the pieces, which are committed."""
        raise NotImplementedError

    def poisoned(self, error: InternalError) -> Command[Any] | None:
        """What to commit in place of a command that breaks by itself; None: nothing."""
        return None


class Nothing(Command[None]):
    """Changes nothing, when its turn comes."""

    def apply(self, work: Work) -> Steps[None]:
        yield from ()
