"""What a run process does: it is told what to run, becomes that process, runs it and ends.

The worker tells it over its control socket. `job` comes once; `cancel` any number of times. It answers
`loaded` when the flow is about to run, and `failed` with a sentence when it never came to that. When the
worker goes away, the socket ends, and with it this process and everything it has started.
"""

from __future__ import annotations

import atexit
import base64
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Final

from headrace_workers.process.limits import Limits
from headrace_workers.process.messages import HEAD_BYTES, decode_head, encode

__all__ = ["run_child"]

FAILED_TO_START: Final = 70
"""Exit code of a process whose flow was never entered."""


def run_child(control: int, console: int) -> int:
    """Be a run process.

    Args:
        control: descriptor of the socket to the worker.
        console: descriptor of where its log lines go.

    Returns:
        The exit code; it has ended before that, as a rule, without the interpreter's own tidying up.
    """
    worker = socket.socket(fileno=control)
    job = _receive(worker)
    if job is None:
        os._exit(0)
    code = FAILED_TO_START
    try:
        _become(job, console)
        threading.Thread(target=_listen, args=(worker, job), name="headrace-worker", daemon=True).start()
        code = _run(worker, job)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except KeyboardInterrupt:
        code = 130
    _leave(code)
    return code


def _receive(worker: socket.socket) -> dict[str, Any] | None:
    """The next message; None: the worker is gone."""
    head = _exactly(worker, HEAD_BYTES)
    body = _exactly(worker, decode_head(head)) if head is not None else None
    if body is None:
        return None
    message: dict[str, Any] = json.loads(body)
    return message


def _exactly(worker: socket.socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        try:
            part = worker.recv(size - len(found))
        except OSError:
            return None
        if not part:
            return None
        found += part
    return bytes(found)


def _send(worker: socket.socket, **message: Any) -> None:
    try:
        worker.sendall(encode(message))
    except OSError:
        pass  # the worker is gone, and this process with it


def _become(job: dict[str, Any], console: int) -> None:
    """Environment, folder and streams, as if this process had been started for the job."""
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    os.chdir(job["working_dir"])
    sys.argv = ["headrace flow-run execute", job["run_id"]]
    # As in a new interpreter: what PYTHONPATH names, and nothing of the worker's own folder.
    search = [path for path in job["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*search, *(path for path in sys.path if path and path not in search)]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # they are text files
    Limits.of(job["limits"]).apply()
    faulthandler.enable()
    from headrace.logging.handlers import show_lines_on
    from headrace.recorder.process import begin_connected

    show_lines_on(console)
    begin_connected()


def _listen(worker: socket.socket, job: dict[str, Any]) -> None:
    """Do what the worker says while the flow runs; on a thread that never runs code of the user."""
    while (message := _receive(worker)) is not None:
        if message["kind"] == "cancel":
            _cancel(job["run_id"], message["reason"], message["grace_seconds"])
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _cancel(run_id: str, reason: str, grace_seconds: float) -> None:
    """What the server says on the record stream, for a process whose stream is broken."""
    from headrace.recorder import get_recorder
    from headrace.v1.record_service_pb2 import RunDirective
    from headrace.v1.state_pb2 import STATE_TYPE_CANCELLING

    directive = RunDirective(run_id=run_id)
    directive.state.type = STATE_TYPE_CANCELLING
    directive.state.name = "Cancelling"
    directive.state.message = reason
    directive.cancel.deadline.FromMicroseconds(int((time.time() + grace_seconds) * 1e6))
    owners = getattr(get_recorder(), "owners", None)
    if owners is not None:
        owners.directed([directive])


def _run(worker: socket.socket, job: dict[str, Any]) -> int:
    from headrace.cli.executing import FlowRunNotStarted, execute_flow_run
    from headrace.v1.run_pb2 import Run

    try:
        return execute_flow_run(
            job["run_id"],
            job["attempt"],
            job["fence"],
            job["code"],
            recorded=Run.FromString(base64.b64decode(job["run"])),
            loaded=lambda: _send(worker, kind="loaded"),
        )
    except FlowRunNotStarted as error:
        print(error.detail or error, file=sys.stderr)
        _send(worker, kind="failed", message=str(error))
        return FAILED_TO_START


def _leave(code: int) -> None:
    """End as an interpreter does, but without taking everything apart that was loaded."""
    try:
        # Threads of the user that are not daemons are waited for.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
