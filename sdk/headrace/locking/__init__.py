"""Locks of cache keys and transactions: one computes, the others wait.

from headrace.locking.memory import MemoryLockManager
from headrace.locking.filesystem import FileSystemLockManager
"""

from headrace.locking.protocol import IsolationLevel, LockManager

__all__ = ["IsolationLevel", "LockManager"]
