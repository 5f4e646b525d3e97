"""Recording: the process's recorder, its spool and its stream to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import headrace.client as _client  # before gRPC: it sets the environment that gRPC reads

if TYPE_CHECKING:
    from headrace.recorder.api import Recorder

__all__ = ["get_recorder"]

del _client


def get_recorder() -> Recorder:
    """The recorder of this process, started by the first call.

    It lives until the interpreter exits, when it is flushed for a bounded time and sealed. A forked child
    gets one of its own.

    Raises:
        ConfigurationError: a setting that says where to record is not valid.
    """
    from headrace.recorder.process import current

    return current()
