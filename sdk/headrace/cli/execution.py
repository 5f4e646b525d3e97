"""A flow run in this process, shown while it goes on."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.live import LineView, TreeView, View, can_draw
from headrace.cli.options import Format
from headrace.cli.output import emit_json, say
from headrace.cli.parameters import check_parameters
from headrace.cli.progress import Progress
from headrace.cli.selecting import find_run
from headrace.client import get_client
from headrace.client.discovery import ensure_server
from headrace.core.clock import SystemClock
from headrace.core.errors import RunActive, ServerUnavailable, TransitionNotAllowed
from headrace.execution.attempts import recorded_parameters_of, run_flow_attempt
from headrace.logging.configuration import ensure_configured
from headrace.recorder.observers import observe
from headrace.settings import get_current_settings
from headrace.v1.run_pb2 import Run, RunKind

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from headrace.cli.progress import Node
    from headrace.flows import Flow
    from headrace.states import State
    from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["execute", "execute_again"]


def execute(
    flow: Flow[..., Any], parameters: dict[str, Any], *, name: str | None, tags: Sequence[str], output: Format
) -> int:
    """Run `flow` to its end and show how it goes.

    Returns:
        The exit code: by the final state.

    Raises:
        KeyboardInterrupt: the run was interrupted; it is recorded as Crashed, and said so.
    """
    if get_current_settings().api_url == "auto":
        ensure_server(get_current_settings())
    return _shown(_Watched(), lambda: _call(flow, parameters, name, tags), output)


def execute_again(
    flow: Flow[..., Any], text: str, parameters: dict[str, Any], *, force: bool, output: Format
) -> int:
    """Take a flow run up again, run it to its end and show how it goes.

    Args:
        flow: its flow.
        text: which run is meant.
        parameters: in place of those on record.
        force: also from a process that may be executing it.
        output: how the run is shown afterwards.

    Returns:
        The exit code: by the final state.

    Raises:
        CliError: there is no such run, it cannot be taken up, or it is one of another flow.
        KeyboardInterrupt: the run was interrupted; it is recorded as Crashed, and said so.
    """
    run = asyncio.run(_taken_over(flow, text, parameters, force))
    watched = _Watched()
    watched.knows(run)
    given = {**recorded_parameters_of(run), **parameters}
    return _shown(watched, lambda: run_flow_attempt(flow, run.id, run.attempt, run.fence, given), output)


async def _taken_over(flow: Flow[..., Any], text: str, parameters: dict[str, Any], force: bool) -> Run:
    """The run, which is this process's from now on."""
    async with get_client() as client:
        run = await find_run(client, text, RunKind.RUN_KIND_FLOW)
        if run.flow_name != flow.name:
            raise CliError(
                f"Flow run {run.name} is one of the flow '{run.flow_name}', not of '{flow.name}'.",
                code=ExitCode.USAGE,
            )
        check_parameters(flow, {**recorded_parameters_of(run), **parameters})
        try:
            return await client.take_over_run(run.id, force=force)
        except RunActive as error:
            raise CliError(
                f"Flow run {run.name} is {run.state.name}: {error.message}", "Give --force to do so."
            ) from None
        except TransitionNotAllowed as error:
            raise CliError(f"Flow run {run.name} cannot be taken up again. {error.message}") from None


def _shown(watched: _Watched, run: Callable[[], State[Any]], output: Format) -> int:
    """Run, show how it goes and how it ended; the exit code."""
    try:
        with watched.shown():
            final = run()
    finally:
        watched.say_end()
    if output != "table":
        emit_json(to_json(_final_run(watched)), indent=2 if output == "json" else None)
    return ExitCode.OK if final.is_completed() else ExitCode.FAILED


def _call(
    flow: Flow[..., Any], parameters: dict[str, Any], name: str | None, labels: Sequence[str]
) -> State[Any]:
    from headrace import tags

    if name is not None:
        # As a function, so that braces in it are not taken for a template.
        flow = flow.with_options(flow_run_name=lambda: name)
    with tags(*labels):
        outcome: Any = flow(**parameters, return_state=True)
        return asyncio.run(_finish(outcome)) if inspect.isawaitable(outcome) else outcome


async def _finish(outcome: Any) -> Any:
    return await outcome


class _Watched:
    """What the process's recorder is told, as a `Progress`."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.run = Run()
        """The flow run as it was recorded, without what only a server knows."""
        self._lock = threading.Lock()
        self._view: View
        if can_draw():
            self._view = TreeView(self.progress, self._tops, self._lock)
        else:
            ensure_configured()
            is_logged = logging.getLogger("headrace.flow_runs").isEnabledFor(logging.INFO)
            self._view = LineView(sys.stderr, beside_logs=is_logged)

    @property
    def top(self) -> Node | None:
        """The flow run, once it has begun."""
        return self.progress.nodes.get(self.run.id)

    def knows(self, run: Run) -> None:
        """The flow run is on record already."""
        self.run.CopyFrom(run)
        with self._lock:
            self.progress.take_run(run)

    def _tops(self) -> list[Node]:
        return [self.top] if self.top is not None else []

    @contextmanager
    def shown(self) -> Generator[None]:
        """Show what is recorded during the `with` block."""
        stop = observe(self._take)
        try:
            with self._view:
                yield
        finally:
            stop()

    def _take(self, entries: Sequence[RecordEntry]) -> None:
        for entry in entries:
            with self._lock:
                changed = self.progress.take_entry(entry)
                self._keep(entry)
            if changed is not None:
                self._view.changed(changed)

    def _keep(self, entry: RecordEntry) -> None:
        kind = entry.WhichOneof("kind")
        if kind == "run" and entry.run.id == (self.run.id or entry.run.id):
            _update(self.run, entry.run)
        elif kind == "state" and entry.state.attempt.run_id == self.run.id:
            self.run.state.CopyFrom(entry.state.state)

    def say_end(self) -> None:
        """How the run has ended, and where to look further."""
        top = self.top
        if top is None:
            return
        seconds = top.seconds(SystemClock().now())
        took = f" after {text.elapsed(seconds)}" if seconds is not None else ""
        say(f"Flow run {text.clean(top.name)} ({top.id}) is {top.state_name}{took}.")
        if get_current_settings().api_url != "off":
            say(f"  headrace flow-run inspect {top.id}")
            say(f"  headrace flow-run logs {top.id}")
            say(f"  headrace flow-run graph {top.id}")


def _update(known: Message, news: Message) -> None:
    """What a later entry sets replaces what was known, lists too."""
    for field, _ in news.ListFields():
        known.ClearField(field.name)
    known.MergeFrom(news)


def _final_run(watched: _Watched) -> Run:
    """The run as the server has it; as it was recorded, where no server answers."""
    if get_current_settings().api_url == "off":
        return watched.run
    try:
        return asyncio.run(_get_run(watched.run.id))
    except ServerUnavailable:
        return watched.run


async def _get_run(run_id: str) -> Run:
    async with get_client() as client:
        return await client.get_run(run_id)
