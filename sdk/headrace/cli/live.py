"""A tree of runs that is drawn again as it changes, on a terminal; lines of what changed, elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli import text
from headrace.cli.trees import WIDE, tree_lines
from headrace.core.clock import SystemClock
from headrace.core.states import StateType

if TYPE_CHECKING:
    from headrace.cli.progress import Node, Progress

__all__ = ["LineView", "TreeView", "View", "open_view"]

FRAMES_PER_SECOND = 8
LOG_LINES = 5
_TOLD_OF_TASKS = frozenset({StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.PAUSED})


class View(Protocol):
    """Shows a `Progress` while the `with` block goes on."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def changed(self, node: Node) -> None:
        """The run has entered another state."""
        ...


def open_view(
    progress: Progress, tops: Callable[[], Sequence[Node]], lock: Any, *, lines: Any = None
) -> View:
    """The tree if stdout and stderr are terminals, else lines.

    Args:
        progress: what to show.
        tops: the runs whose trees are shown.
        lock: held while `progress` is read; who changes it holds it too.
        lines: where lines go; stderr if None.
    """
    if sys.stdout.isatty() and sys.stderr.isatty() and text.colours(sys.stderr):
        return TreeView(progress, tops, lock)
    return LineView(lines or sys.stderr)


class LineView:
    """A line for each change worth telling: every one of flow runs, the bad ones of task runs."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def changed(self, node: Node) -> None:
        if not node.is_flow and node.state_type not in _TOLD_OF_TASKS:
            return
        seconds = node.seconds(SystemClock().now()) if node.is_final else None
        took = f" after {text.elapsed(seconds)}" if seconds is not None else ""
        why = (
            f": {node.message.splitlines()[0]}" if node.message and node.state_type in _TOLD_OF_TASKS else ""
        )
        kind = f"Flow run {node.of} ·" if node.is_flow else "Task run"
        line = text.clean(f"{kind} {node.name or node.id} is {node.state_name}{took}{why}")
        print(line, file=self._stream, flush=True)


class TreeView:
    """The tree, drawn in place by rich; what else is printed meanwhile scrolls by above it."""

    def __init__(self, progress: Progress, tops: Callable[[], Sequence[Node]], lock: Any) -> None:
        from rich.console import Console
        from rich.live import Live

        self._progress = progress
        self._tops = tops
        self._lock = lock
        self._stop = threading.Event()
        self._drawn = -1
        self._live = Live(console=Console(), auto_refresh=False, get_renderable=self._render)
        self._thread = threading.Thread(target=self._keep_drawing, name="headrace-live", daemon=True)

    def __enter__(self) -> TreeView:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._live.refresh()
        self._live.stop()

    def changed(self, node: Node) -> None:
        """Nothing to do: the next frame shows it."""

    def _keep_drawing(self) -> None:
        while not self._stop.wait(1 / FRAMES_PER_SECOND):
            self._live.refresh()

    def _render(self) -> Any:
        from rich.text import Text

        size = shutil.get_terminal_size((100, 30))
        is_last = self._stop.is_set()
        with self._lock:
            lines = self._fitting(size.lines - LOG_LINES - 3, is_last)
            if not is_last:
                lines.extend(self._last_logs(size.columns))
        rendered = Text.from_ansi("\n".join(lines))
        rendered.no_wrap = True
        rendered.overflow = "ellipsis"
        return rendered

    def _fitting(self, room: int, is_last: bool) -> list[str]:
        now = SystemClock().now()
        lines: list[str] = []
        for wide in (WIDE, 1, 0):
            lines = tree_lines(self._progress, self._tops(), now, coloured=True, wide=wide)
            if len(lines) <= room or is_last:
                return lines
        return [*lines[: max(1, room - 1)], f"… and {len(lines) - room + 1} more lines"]

    def _last_logs(self, columns: int) -> list[str]:
        shown: list[str] = []
        for run_id, message in list(self._progress.logs)[-LOG_LINES:]:
            node = self._progress.nodes.get(run_id)
            name = node.name if node else run_id
            first = message.splitlines()[0] if message else ""
            shown.append(f"\x1b[90m  {text.clean(f'{name}: {first}')[: columns - 3]}\x1b[0m")
        return shown
