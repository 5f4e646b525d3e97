"""`python -m headrace_workers.process.hooks RUN_ID ATTEMPT`: the hooks of a killed process.

It waits until the server has the run's end, loads the code as the run's own process did, and calls the hooks
`on_crashed` or `on_cancellation`. When the process has told of its end itself, it has called them, too.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from headrace.cli.executing import CODE_VARIABLES, FlowRunNotStarted, load_code
from headrace.client import get_client
from headrace.core.errors import ServiceError
from headrace.execution.after_crashes import call_ending_hooks, is_end_of_a_lost_process
from headrace.recorder import get_recorder
from headrace.v1.run_pb2 import Run
from headrace.v1.state_pb2 import STATE_TYPE_CANCELLING, STATE_TYPE_PENDING, STATE_TYPE_RUNNING

__all__ = ["main"]

_UNDECIDED: Final = (STATE_TYPE_PENDING, STATE_TYPE_RUNNING, STATE_TYPE_CANCELLING)
_WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_FLUSH_SECONDS: Final = 10.0


async def _decided(run_id: str, attempt: int) -> Run | None:
    """The run, once it is known what becomes of it; None: that takes too long, or another attempt has it."""
    async with get_client() as client, asyncio.timeout(_WAIT_SECONDS):
        while True:
            run = await client.get_run(run_id)
            if run.attempt != attempt:
                return None
            if run.state.type not in _UNDECIDED:
                return run
            await asyncio.sleep(_POLL_SECONDS)


def main(run_id: str, attempt: int) -> int:
    """Call the hooks, if the run is CRASHED or CANCELLED and nobody has.

    Returns:
        The exit code: 1 when that could not be found out, or the flow not be loaded.
    """
    try:
        run = asyncio.run(_decided(run_id, attempt))
        if run is None or not is_end_of_a_lost_process(run):
            return 0
        flow, _ = load_code({name: os.environ.get(variable, "") for name, variable in CODE_VARIABLES.items()})
    except (FlowRunNotStarted, ServiceError, TimeoutError) as error:
        print(f"The hooks of run {run_id}, were not called: {error}", file=sys.stderr)
        return 1
    call_ending_hooks(flow, run)
    get_recorder().flush(_FLUSH_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
