"""The run that the process was started for, where no context tells.

A child process knows it as `HEADRACE__FLOW_RUN_ID`, before its flow has begun; the rest is asked of the
server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from headrace.settings import get_current_settings

if TYPE_CHECKING:
    from headrace.v1.run_pb2 import Run

__all__ = ["api_url_of", "assigned_run", "assigned_run_id"]


def assigned_run_id() -> str | None:
    """The flow run that this process was started for."""
    return os.environ.get("HEADRACE__FLOW_RUN_ID") or None


def assigned_run() -> Run | None:
    """That flow run as the server knows it.

    Raises:
        ServiceError: there is no such run, or no server.
    """
    run_id = assigned_run_id()
    if run_id is None:
        return None
    from headrace.client import get_client

    with get_client(sync_client=True) as client:
        return client.get_run(run_id)


def api_url_of(run_id: str | None) -> str | None:
    """Where the run is found, as `grpc://address/runs/id`; None when the settings name no server."""
    address = get_current_settings().api_url
    return None if run_id is None or address in {"auto", "off"} else f"grpc://{address}/runs/{run_id}"
