"""The tree of transactions: when what is staged is written, and in which order it is undone."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from headrace.core.ids import new_id
from headrace.decorated import UNSET, callable_name
from headrace.locking.protocol import IsolationLevel

if TYPE_CHECKING:
    from headrace.context import TaskRunContext
    from headrace.engine.api import Ops
    from headrace.results import ResultRecord, ResultStore

__all__ = ["CommitMode", "Hook", "TransactionNode", "TransactionState"]

Hook = Callable[[Any], Any]
"""Called with the transaction; plain or async."""

_log = logging.getLogger("headrace.transactions")


class TransactionState(str, Enum):
    """How far a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class CommitMode(str, Enum):
    """When a transaction commits."""

    LAZY = "LAZY"
    """With the outermost one, at its end."""
    EAGER = "EAGER"
    """At its own end."""
    OFF = "OFF"
    """Never: the outermost one rolls back at its end."""


_OPEN: Final = (TransactionState.PENDING, TransactionState.ACTIVE, TransactionState.STAGED)


class TransactionNode:
    """One transaction in the tree of those around it and in it.

    Attributes:
        key: under which key its value is kept; None: it is not, or nobody will look for it.
        store: where; None: nowhere.
        commit_mode: when it commits.
        isolation_level: what others with the same key may do meanwhile.
        overwrite: whether what lies under the key counts as nothing.
        write_on_commit: whether the value is written at all.
        parent: the transaction around it.
        children: those that have ended in it, in this order.
        state: how far it is.
        owner: the task run in whose body it was opened.
        logger: told of hooks that fail.
        holder: by which name it locks its key.
    """

    def __init__(
        self,
        *,
        parent: TransactionNode | None = None,
        owner: TaskRunContext | None = None,
        key: str | None = None,
        store: ResultStore | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel = IsolationLevel.READ_COMMITTED,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: Any = None,
    ) -> None:
        self.key = key
        self.store = store
        inherited = CommitMode.LAZY if parent is None else parent.commit_mode
        self.commit_mode: CommitMode = inherited if commit_mode is None else commit_mode
        self.isolation_level = isolation_level
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.parent = parent
        self.children: list[TransactionNode] = []
        self.state = TransactionState.PENDING
        self.owner = owner
        self.logger = logger or _log
        self._on_rolled_back: Callable[[], None] | None = None
        self._on_committed: Callable[[], None] | None = None
        # Those that wait for the same commit share their locks: waiting for each other, they would for ever.
        is_own = parent is None or self.commit_mode is CommitMode.EAGER
        self.holder: str = new_id() if is_own or parent is None else parent.holder
        self._staged: Any = UNSET
        self._write: Callable[[], Any] | None = None
        self._found: ResultRecord[Any] | None = None
        self._on_commit: list[Hook] = []
        self._on_rollback: list[Hook] = []
        self._values: dict[str, Any] = {}
        self._holds_lock = False
        self._is_undone = False
        self._lock = threading.RLock()

    # What authors ask for.

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it runs."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Whether it waits for the commit."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether it has committed; so it has when the key's value was there before it began."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it has been undone."""
        return self.state is TransactionState.ROLLED_BACK

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Iterable[Hook] | None = None,
        on_commit_hooks: Iterable[Hook] | None = None,
    ) -> None:
        """Say what is written under the key at the commit, and what is called then or at a rollback.

        Args:
            value: anything that can be serialised.
            on_rollback_hooks: called with the transaction when it is undone, the last one first.
            on_commit_hooks: called with the transaction before the value is written.
        """
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            return
        self._staged = value
        self._on_rollback += on_rollback_hooks or ()
        self._on_commit += on_commit_hooks or ()
        self.state = TransactionState.STAGED

    def read(self) -> ResultRecord[Any] | None:
        """What lies under the key; None: nothing."""
        if self._found is None and self.store is not None and self.key is not None:
            self._found = self.store.find(self.key)
        return self._found

    def set(self, name: str, value: Any) -> None:
        """Keep a value for hooks and for the transactions in this one."""
        self._values[name] = value

    def get(self, name: str, default: Any = UNSET) -> Any:
        """A copy of a value that this transaction, or the nearest around it, keeps.

        Raises:
            ValueError: there is none, and no default.
        """
        node: TransactionNode | None = self
        while node is not None:
            if name in node._values:
                return copy.deepcopy(node._values[name])
            node = node.parent
        if default is UNSET:
            raise ValueError(f"Could not retrieve value for unknown key: {name}")
        return default

    # What runs it.

    async def begin(self, ops: Ops) -> None:
        """Lock the key if that is asked for, and see what lies under it.

        Raises:
            ConfigurationError: SERIALIZABLE is asked for, and nothing locks keys.
        """
        self.state = TransactionState.ACTIVE
        store, key = self.store, self.key
        if store is None or key is None:
            return
        if self.isolation_level is IsolationLevel.SERIALIZABLE:
            await ops.lock(store, key, self.holder)
            self._holds_lock = True
        try:
            if not self.overwrite:
                self._found = await ops.offload(store.find, key)
        except BaseException:
            self.release()
            raise
        if self._found is not None:
            self.state = TransactionState.COMMITTED
            self.release()

    def prepare_write(self, write: Callable[[], Any]) -> None:
        """Have `write` called at the commit, in place of writing the staged value."""
        self._write = write

    def call_when_rolled_back(self, note: Callable[[], None]) -> None:
        """Have `note` called when this has been undone; at once if it has."""
        with self._lock:
            if not self._is_undone:
                self._on_rolled_back = note
                return
        note()

    def call_when_committed(self, note: Callable[[], None]) -> None:
        """Have `note` called when this, which waits for a commit, has been committed."""
        self._on_committed = note

    async def end(self, ops: Ops, error: BaseException | None) -> None:
        """End it: commit, wait for the outermost to do so, or roll back; afterwards nothing is locked."""
        if error is not None:
            await self.rollback(ops)
            return
        if self.state not in _OPEN:
            self.release()
            return
        if self.commit_mode is CommitMode.EAGER:
            await self.commit(ops)
        elif self.parent is not None and self.parent.adopt(self):
            self.state = TransactionState.STAGED
        elif self.commit_mode is CommitMode.OFF or self._is_orphan():
            await self.rollback(ops)
        else:
            await self.commit(ops)

    def _is_orphan(self) -> bool:
        """Whether the transaction around it was undone before this one ended."""
        return self.parent is not None and self.parent.is_rolled_back()

    def adopt(self, child: TransactionNode) -> bool:
        """Take a child that waits for the commit; False when this one has ended already."""
        with self._lock:
            if self.state not in _OPEN:
                return False
            self.children.append(child)
            return True

    def _enter(self, state: TransactionState) -> bool:
        """Enter an end; False when another has been entered."""
        with self._lock:
            if self.state not in _OPEN:
                return False
            self.state = state
            return True

    async def commit(self, ops: Ops) -> bool:
        """Commit the children, call the commit hooks, write the value; if one of these fails, roll back.

        Returns:
            Whether it is committed.
        """
        if self.state not in _OPEN:
            return self.is_committed()
        try:
            for child in self.children:
                await child.commit(ops)
            for hook in self._on_commit:
                await self._call(ops, "commit", hook)
            if self.state in _OPEN and self.write_on_commit:
                await self._write_staged(ops)
        except Exception:
            self.logger.error("The transaction could not be committed: it is rolled back.", exc_info=True)
            await self.rollback(ops)
            return False
        if self._enter(TransactionState.COMMITTED) and self._on_committed is not None:
            self._on_committed()
        self.release()
        return self.is_committed()

    async def _write_staged(self, ops: Ops) -> None:
        if self._write is not None:
            await ops.offload(self._write)
        elif self.store is not None and self.key is not None and self._staged is not UNSET:
            record = self.store.create_result_record(self._staged, self.key)
            await ops.offload(self.store.persist_result_record, record, self.holder)

    async def rollback(self, ops: Ops, with_parent: bool = True) -> bool:
        """Call the rollback hooks, the last one first, then those of the children, then roll back the parent.

        Args:
            ops: calls hooks.
            with_parent: False: only what is in this one is undone.

        Returns:
            Whether it has been rolled back by this call.
        """
        if not self._enter(TransactionState.ROLLED_BACK):
            self.release()
            return False
        try:
            for hook in reversed(self._on_rollback):
                await self._call(ops, "rollback", hook)
        except Exception:
            self.logger.error("A rollback hook failed: those before it are not called.", exc_info=True)
        for child in reversed(self.children):
            await child.rollback(ops, with_parent=False)
        self.release()
        with self._lock:
            note, self._on_rolled_back = self._on_rolled_back, None
            self._is_undone = True
        if note is not None:
            note()
        if with_parent and self.parent is not None:
            await self.parent.rollback(ops)
        return True

    async def _call(self, ops: Ops, what: str, hook: Hook) -> None:
        self.logger.debug("Running %s hook %r", what, callable_name(hook))
        await ops.call(hook, self)

    def release(self) -> None:
        """Give the lock of the key back."""
        if self._holds_lock and self.store is not None and self.key is not None:
            self._holds_lock = False
            try:
                self.store.release_lock(self.key, self.holder)
            except ValueError:
                # One that shares it was first, or it was held too long.
                self.logger.debug("The lock of the key %r is not held any more.", self.key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r} {self.state.value}>"
