"""`headrace flow-run execute`, and what the run processes of workers do: a run of a deployment, here and now.

The code is fetched and loaded, then the engine takes over.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from google.protobuf.json_format import MessageToJson

from headrace.cli.failures import CliError, ExitCode
from headrace.cli.scripts import ScriptError, load_flow
from headrace.client import get_client
from headrace.core.errors import HeadraceException, ServiceError, StaleAttempt
from headrace.exceptions import Abort, ParameterBindError, Pause, SerializationError, TerminationSignal
from headrace.logging.handlers import MARKED_LINES, mark_lines, show_lines_on
from headrace.v1.run_pb2 import Run
from headrace.v1.run_service_pb2 import UpdateRunRequest

if TYPE_CHECKING:
    from headrace.engine.flows import FlowCall
    from headrace.flows import Flow

__all__ = [
    "CODE_VARIABLES",
    "COMMIT_LABEL",
    "FlowRunNotStarted",
    "PreparedCode",
    "execute",
    "execute_flow_run",
    "load_code",
    "prepare_code",
]

CODE_VARIABLES: Final = {
    "entrypoint": "HEADRACE__ENTRYPOINT",
    "path": "HEADRACE__CODE_PATH",
    "pull_steps": "HEADRACE__PULL_STEPS",
}
"""Where the code of a run is, as whoever starts its process says."""
COMMIT_LABEL: Final = "git.commit"
"""Label of a run: the commit its pull steps have fetched."""
_RUN_ID: Final = ("HEADRACE__FLOW_RUN_ID", "PREFECT__FLOW_RUN_ID")
_CONSOLE: Final = "HEADRACE__CONSOLE"


class FlowRunNotStarted(HeadraceException):
    """The flow of a run was never entered; the message says why.

    Attributes:
        detail: more of it, such as the user's own traceback.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def execute(
    flow_run: Annotated[
        str, Parameter(name="FLOW_RUN", help="Id of the run; else HEADRACE__FLOW_RUN_ID says it.")
    ] = "",
    /,
    *,
    entrypoint: Annotated[
        str,
        Parameter(help="path/file.py:flow or package.module:flow; else the run's deployment says it."),
    ] = "",
) -> int:
    """Execute a flow run that the server has on record, in this process.

    This is what workers start for a run. The exit code is 0 when the run has completed, or is not this
    process's affair any more; else 1.

    On SIGTERM it is as HEADRACE_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR says: the run has crashed, goes on in
    another attempt (exit code 0), or is left to whatever has started this process (143).
    """
    run_id = flow_run or next((os.environ[name] for name in _RUN_ID if os.environ.get(name)), "")
    if not run_id:
        raise CliError("No flow run is named.", f"Give its id, or set {_RUN_ID[0]}.", code=ExitCode.USAGE)
    console = os.environ.pop(_CONSOLE, "")
    if console == MARKED_LINES:
        mark_lines()
    elif console.isdecimal():
        show_lines_on(int(console))
    code = {name: os.environ.get(variable, "") for name, variable in CODE_VARIABLES.items()}
    attempt, fence = os.environ.get("HEADRACE__ATTEMPT", ""), os.environ.get("HEADRACE__FENCE", "")
    if not (attempt.isdecimal() and fence.isdecimal()):
        run = asyncio.run(_recorded(run_id))
        attempt, fence = str(run.attempt), str(run.fence)
    if entrypoint:
        code = {"entrypoint": entrypoint}
    elif not code["entrypoint"]:
        code = asyncio.run(_declared_code(run_id))
    try:
        return execute_flow_run(run_id, int(attempt), int(fence), code)
    except FlowRunNotStarted as error:
        raise CliError(str(error), detail=error.detail) from error


async def _recorded(run_id: str) -> Run:
    async with get_client() as client:
        return await client.get_run(run_id)


async def _declared_code(run_id: str) -> dict[str, str]:
    """Where the code of a run is, as its deployment says; empty if it has none."""
    async with get_client() as client:
        run = await client.get_run(run_id)
        if not run.deployment_id:
            return {}
        deployment = await client.get_deployment(run.deployment_id)
    steps = [json.loads(MessageToJson(step)) for step in deployment.pull_steps.steps]
    pull_steps = json.dumps(steps) if steps else ""
    return {"entrypoint": deployment.entrypoint, "path": deployment.path, "pull_steps": pull_steps}


def execute_flow_run(
    run_id: str,
    attempt: int,
    fence: int,
    code: Mapping[str, str],
    *,
    recorded: Run | None = None,
    loaded: Callable[[], None] = lambda: None,
) -> int:
    """Execute one attempt of a flow run in this process.

    Args:
        run_id: the run.
        attempt: which ownership of it, from 1.
        fence: what guards that.
        code: where the flow is: `entrypoint`, `path` and `pull_steps`, as an assignment has them.
        recorded: the run as it was handed out; None: the server is asked for it.
        loaded: called when the flow is there and about to run.

    Returns:
        The exit code: 0 when the run has completed, or is not this process's affair any more; 1 when it ended
        in another way, which is on record.

    Raises:
        FlowRunNotStarted: the flow could not be loaded, or not be called.
        SystemExit, KeyboardInterrupt: execution was ended from outside; that is on record, or left to others.
    """
    from headrace.execution.attempts import run_attempt_call
    from headrace.execution.leaving import leave_alone, leave_unstarted, termination_behavior
    from headrace.execution.ownership import taking_termination

    with taking_termination():
        behavior = termination_behavior(recorded)
        try:
            call = _called(run_id, attempt, fence, code, recorded, loaded)
        except TerminationSignal:
            if leave_unstarted(run_id, attempt, fence, behavior):
                return 0
            raise
        call.context.on_termination = behavior
        try:
            with _explaining():
                state = run_attempt_call(call)
        except (Abort, Pause, StaleAttempt) as leaving:
            print(f"Nothing is left to do here: {leaving}", file=sys.stderr)
            return 0
        except (HeadraceException, SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            traceback.print_exc()
            return 1
        leave_alone()
    return 0 if state.is_completed() else 1


def _called(
    run_id: str,
    attempt: int,
    fence: int,
    code: Mapping[str, str],
    recorded: Run | None,
    loaded: Callable[[], None],
) -> FlowCall:
    """The call of the flow, which is loaded; arguments and errors are those of `execute_flow_run`."""
    from headrace.execution.attempts import attempt_call

    flow, commit = load_code(code)
    if commit:
        asyncio.run(_record_commit(run_id, commit))
        if recorded is not None:
            recorded.labels[COMMIT_LABEL] = commit
    loaded()
    with _explaining():
        return attempt_call(flow, run_id, attempt, fence, recorded=recorded)


@contextmanager
def _explaining() -> Generator[None]:
    """While inside, what keeps the flow from being called is `FlowRunNotStarted`."""
    try:
        yield
    except (ParameterBindError, SerializationError, ServiceError) as error:
        raise FlowRunNotStarted(f"The flow cannot be called: {error}") from error


async def _record_commit(run_id: str, commit: str) -> None:
    """Have the run say which commit it runs; when the server is away, the run matters more."""
    try:
        async with get_client() as client:
            labels = {**(await client.get_run(run_id)).labels, COMMIT_LABEL: commit}
            request = UpdateRunRequest(run=Run(id=run_id, labels=labels))
            request.update_mask.paths.append("labels")
            await client.update_run(request)
    except ServiceError as error:
        print(f"Commit {commit} could not be recorded: {error.message}", file=sys.stderr)


@dataclass(frozen=True)
class PreparedCode:
    """The code of a deployment on this machine.

    Attributes:
        folder: what the entrypoint is relative to.
        entrypoint: where the flow is.
        commit: that a pull step says it has fetched; empty: none does.
    """

    folder: Path
    entrypoint: str
    commit: str = ""


def prepare_code(code: Mapping[str, str]) -> PreparedCode:
    """Have the code of a deployment on this machine.

    Args:
        code: `entrypoint`, `path` and `pull_steps`, as an assignment has them.

    Raises:
        HeadraceException, OSError: a step failed, or the folder is not there.
    """
    folder, commit = Path.cwd(), ""
    steps = json.loads(code.get("pull_steps") or "[]")
    if steps:
        from headrace.deployments.steps.run import run_steps

        outputs: dict[str, Any] = asyncio.run(run_steps(steps, report=lambda name: print(f"Step {name}")))
        folder = folder / str(outputs.get("directory", "."))
        commit = str(outputs.get("commit_sha") or "")
    path = code.get("path") or ""
    if path:
        folder = folder / Path(path).expanduser()
    return PreparedCode(folder, code.get("entrypoint") or "", commit)


def load_code(code: Mapping[str, str]) -> tuple[Flow[..., Any], str]:
    """Fetch the code of a run and load its flow; the working folder is where that stands, afterwards.

    Args:
        code: `entrypoint`, `path` and `pull_steps`, as an assignment has them.

    Returns:
        The flow, and the commit that it is of, empty where that is not known.

    Raises:
        FlowRunNotStarted: that cannot be done.
    """
    try:
        prepared = prepare_code(code)
        if not prepared.entrypoint:
            raise FlowRunNotStarted("The deployment of the run has no entrypoint: there is nothing to run.")
        os.chdir(prepared.folder)
        return load_flow(prepared.entrypoint), prepared.commit
    except ScriptError as error:
        raise FlowRunNotStarted(str(error), error.detail) from error
    except (HeadraceException, OSError) as error:
        if isinstance(error, FlowRunNotStarted):
            raise
        raise FlowRunNotStarted(f"The code cannot be fetched: {error}") from error
