"""A flow run in this process, shown while it goes on."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.cli import text
from headrace.cli.as_json import to_json
from headrace.cli.failures import ExitCode
from headrace.cli.live import LineView, TreeView, View, can_draw
from headrace.cli.options import Format
from headrace.cli.output import emit_json, say
from headrace.cli.progress import Progress
from headrace.client import get_client
from headrace.client.discovery import ensure_server
from headrace.core.clock import SystemClock
from headrace.core.errors import ServerUnavailable
from headrace.logging.configuration import ensure_configured
from headrace.recorder.observers import observe
from headrace.settings import get_current_settings
from headrace.v1.run_pb2 import Run

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from headrace.cli.progress import Node
    from headrace.flows import Flow
    from headrace.states import State
    from headrace.v1.record_service_pb2 import RecordEntry

__all__ = ["execute"]


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
    watched = _Watched()
    try:
        with watched.shown():
            final = _call(flow, parameters, name, tags)
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
