"""A tree of runs that is drawn again as it changes, on a terminal; lines of what changed, elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli import text
from headrace.cli.trees import WIDE, tree_lines
from headrace.core.clock import SystemClock, from_micros
from headrace.core.states import StateType

if TYPE_CHECKING:
    from headrace.cli.progress import Node, Progress

__all__ = ["LineView", "TreeView", "View", "can_draw"]

FRAMES_PER_SECOND = 8
_BAD = frozenset({StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.PAUSED})


class View(Protocol):
    """Shows a `Progress` while the `with` block goes on."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def changed(self, node: Node) -> None:
        """The run has entered another state."""
        ...


def can_draw() -> bool:
    """Whether a tree can be drawn in place: stdout and stderr are a terminal that has colours."""
    return sys.stdout.isatty() and sys.stderr.isatty() and text.colours()


class LineView:
    """A line for each change worth telling, in the form of log lines.

    Told are flow runs, and how task runs ended; of a task with many runs, ever fewer.

    Args:
        stream: where lines go.
        beside_logs: the engine's own log lines are shown as well, and tell of flow runs and of what failed.
    """

    def __init__(self, stream: Any, *, beside_logs: bool = False) -> None:
        self._stream = stream
        self._beside_logs = beside_logs
        self._completed: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def changed(self, node: Node) -> None:
        line = self._line(node)
        if line:
            moment = from_micros(SystemClock().now()).astimezone()
            head = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} | STATE   | "
            # Not by print: called in a run with `log_prints`, that would be recorded as its log.
            self._stream.write(f"{head}{text.clean(line)}\n")
            self._stream.flush()

    def _line(self, node: Node) -> str:
        is_bad = node.state_type in _BAD
        if node.state_type is StateType.PENDING or (self._beside_logs and (node.is_flow or is_bad)):
            return ""
        if not node.is_flow and not is_bad:
            return self._completion(node) if node.state_type is StateType.COMPLETED else ""
        why = f": {node.message.splitlines()[0]}" if node.message and is_bad else ""
        return f"{_named(node)} - {node.state_name}{_took(node)}{why}"

    def _completion(self, node: Node) -> str:
        self._completed[node.parent_id, node.of] += 1
        count = self._completed[node.parent_id, node.of]
        if count <= WIDE:
            return f"{_named(node)} - {node.state_name}{_took(node)}"
        # 10, 20, ... 90, 100, 200, ... 900, 1000, ...
        step = max(10, 10 ** (len(str(count)) - 1))
        return f"Task {node.of!r} - {count} runs completed" if count % step == 0 else ""


def _named(node: Node) -> str:
    return f"{'Flow' if node.is_flow else 'Task'} run {node.name or node.id!r}"


def _took(node: Node) -> str:
    seconds = node.seconds(SystemClock().now()) if node.is_final else None
    return f" after {text.elapsed(seconds)}" if seconds is not None else ""


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
            lines = self._fitting(size.lines - 2, is_last)
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
