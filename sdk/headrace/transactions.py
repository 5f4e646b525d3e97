"""Transactions: what belongs together is written together, or undone.

    with transaction():
        a()
        b()    # when it fails, the rollback hooks of a() run

A task run has a transaction of its own, a child of the one around it.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from headrace.context import TaskRunContext, current_transaction, entered_transaction
from headrace.engine.drive import run_now
from headrace.engine.transactions import CommitMode, TransactionNode, TransactionState
from headrace.execution.blocking import BLOCKING
from headrace.execution.loop import LOOP
from headrace.locking.protocol import IsolationLevel

if TYPE_CHECKING:
    import logging

    from headrace.results import ResultStore

__all__ = [
    "AsyncTransaction",
    "BaseTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]

BaseTransaction = TransactionNode
"""What both kinds of transactions are."""

T = TypeVar("T", bound=TransactionNode)
_Mode = CommitMode | Literal["LAZY", "EAGER", "OFF"]
_Isolation = IsolationLevel | Literal["READ_COMMITTED", "SERIALIZABLE"]


class Transaction(TransactionNode):
    """A transaction of plain code; made by `transaction`."""

    _token: Token[TransactionNode | None] | None = None

    def __enter__(self) -> Self:
        run_now(self.begin(BLOCKING))
        self._token = entered_transaction.set(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _leave(self._token)
        run_now(self.end(BLOCKING, error))


class AsyncTransaction(TransactionNode):
    """A transaction of a coroutine; made by `atransaction`."""

    _token: Token[TransactionNode | None] | None = None

    def __enter__(self) -> Self:
        raise TypeError(
            "An async transaction is entered with `async with`; plain code takes `transaction()`."
        )

    def __exit__(self, *_: object) -> None:
        """Never called: `__enter__` raises."""

    async def __aenter__(self) -> Self:
        await self.begin(LOOP)
        self._token = entered_transaction.set(self)
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _leave(self._token)
        await self.end(LOOP, error)


def _leave(token: Token[TransactionNode | None] | None) -> None:
    if token is not None:
        entered_transaction.reset(token)


def transaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: _Mode | None = None,
    isolation_level: _Isolation | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> Transaction:
    """A transaction round a `with` block.

    Args:
        key: under which key the staged value is kept. If something lies there already, the transaction is
            committed as it begins; the block runs all the same, and may ask `is_committed()`.
        store: where; default: the store of the current run.
        commit_mode: LAZY: at the end of the outermost transaction; EAGER: at the end of the block; OFF:
            never. Default: as the transaction around it, LAZY at the top.
        isolation_level: SERIALIZABLE: nobody else is in a transaction of the same key.
        overwrite: take what lies under the key for nothing.
        write_on_commit: False: only call hooks.
        logger: told of hooks that fail.

    Raises:
        ValueError: there is no such mode or level.
    """
    return _made(Transaction, key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger)


def atransaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: _Mode | None = None,
    isolation_level: _Isolation | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
) -> AsyncTransaction:
    """A transaction round an `async with` block; see `transaction`."""
    return _made(
        AsyncTransaction, key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger
    )


def _made(
    cls: type[T],
    key: str | None,
    store: ResultStore | None,
    commit_mode: Any,
    isolation_level: Any,
    overwrite: bool,
    write_on_commit: bool,
    logger: Any,
) -> T:
    if key is not None and store is None:
        from headrace.results import get_result_store

        store = get_result_store()
    return cls(
        parent=current_transaction(),
        owner=TaskRunContext.get(),
        key=key,
        store=store,
        commit_mode=None if commit_mode is None else CommitMode(commit_mode),
        isolation_level=IsolationLevel(isolation_level or "READ_COMMITTED"),
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
    )


def get_transaction() -> TransactionNode | None:
    """The innermost transaction: in a task that of its run, unless the body has opened another."""
    return current_transaction()
