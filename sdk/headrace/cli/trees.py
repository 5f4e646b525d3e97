"""A tree of runs as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from headrace.cli import text
from headrace.core.states import FINAL, StateType

if TYPE_CHECKING:
    from headrace.cli.progress import Node, Progress

__all__ = ["dot", "edge_lines", "tree_lines"]

WIDE = 5
"""More runs of one task than this below one run are shown as counts."""
_SHOWN_OF_WIDE = 3
_MARKS = {
    None: "·",
    StateType.SCHEDULED: "◷",
    StateType.PENDING: "·",
    StateType.RUNNING: "▶",
    StateType.PAUSED: "‖",
    StateType.CANCELLING: "◼",
    StateType.COMPLETED: "✔",
    StateType.FAILED: "✘",
    StateType.CANCELLED: "◼",
    StateType.CRASHED: "☠",
}
_BAD = frozenset({StateType.FAILED, StateType.CRASHED})


def tree_lines(
    progress: Progress, tops: Sequence[Node], now: int, *, coloured: bool, wide: int | None = WIDE
) -> list[str]:
    """A line for each run below `tops`, each indented below the run that called it.

    Args:
        progress: what is known.
        tops: where to begin.
        now: microseconds, for how long those that go on have run.
        coloured: whether lines may hold ANSI colours.
        wide: above how many runs of one task to show counts instead; None: never.
    """
    lines: list[str] = []
    for top in tops:
        lines.append(_run_line(top, now, coloured))
        lines.extend(_below(progress, top, "", now, coloured, wide))
    return lines


def _below(
    progress: Progress, node: Node, indent: str, now: int, coloured: bool, wide: int | None
) -> Iterator[str]:
    rows = list(_rows(progress, node, now, coloured, wide))
    for index, (child, line) in enumerate(rows):
        last = index == len(rows) - 1
        yield f"{indent}{'└─ ' if last else '├─ '}{line}"
        if child is not None:
            yield from _below(progress, child, indent + ("   " if last else "│  "), now, coloured, wide)


def _rows(
    progress: Progress, node: Node, now: int, coloured: bool, wide: int | None
) -> Iterator[tuple[Node | None, str]]:
    """The runs below `node`, with those of a wide task together where the first of them stands."""
    children = [progress.nodes[i] for i in node.children if i in progress.nodes]
    per_task = Counter(child.of for child in children if not child.is_flow)
    told: set[str] = set()
    for child in children:
        if child.is_flow or wide is None or per_task[child.of] <= wide:
            yield child, _run_line(child, now, coloured)
        elif child.of not in told:
            told.add(child.of)
            same = [c for c in children if c.of == child.of and not c.is_flow]
            yield None, _wide_line(child.of, same, now, coloured)
            for shown in _worth_showing(same):
                yield shown, _run_line(shown, now, coloured)


def _worth_showing(same: Sequence[Node]) -> list[Node]:
    """Of a wide task: what went wrong, and runs with runs of their own."""
    chosen = [n for n in same if n.state_type in _BAD or (n.children and not n.is_final)]
    return chosen[:_SHOWN_OF_WIDE]


def _run_line(node: Node, now: int, coloured: bool) -> str:
    type_word = node.state_type.value if node.state_type else None
    state = text.state_cell(type_word, node.state_name)
    label = text.clean(node.name or node.id)
    if node.is_flow and node.of:
        label = f"{text.clean(node.of)} · {label}"
    seconds = node.seconds(now)
    took = f" {text.elapsed(seconds)}" if seconds is not None else ""
    why = ""
    if node.state_type in _BAD and node.message:
        why = f" - {text.clean(node.message.splitlines()[0])[:100]}"
    mark = _coloured(_MARKS[node.state_type], state.colour, coloured)
    return f"{mark} {label} {_coloured(state, state.colour, coloured)}{took}{why}"


def _wide_line(task: str, same: Sequence[Node], now: int, coloured: bool) -> str:
    by_state = Counter((n.state_type, n.state_name) for n in same)
    order = list(StateType)
    counts: list[str] = []
    for (type, name), count in sorted(
        by_state.items(), key=lambda i: order.index(i[0][0]) if i[0][0] else -1
    ):
        cell = text.state_cell(type.value if type else None, name or "Pending")
        counts.append(_coloured(f"{count} {cell}", cell.colour, coloured))
    begun = [n.started_at for n in same if n.started_at is not None]
    done = all(n.state_type in FINAL for n in same)
    end = max((n.ended_at or now for n in same), default=now) if done else now
    took = f" {text.elapsed((end - min(begun)) / 1e6)}" if begun else ""
    worst = next((t for t in reversed(order) if any(n.state_type is t for n in same)), None)
    if not done:
        worst = StateType.RUNNING if begun else None
    mark_colour = text.state_cell(worst.value if worst else None, "").colour
    mark = _coloured(_MARKS[worst], mark_colour, coloured)
    return f"{mark} {text.clean(task)} x{len(same)}: {', '.join(counts)}{took}"


def _coloured(shown: str, colour: str, coloured: bool) -> str:
    return f"\x1b[{colour}m{shown}\x1b[0m" if coloured and colour else shown


def edge_lines(progress: Progress) -> list[str]:
    """A line for each run whose inputs came from others: `from, from -> run (parameter)`."""
    lines: list[str] = []
    for node in progress.nodes.values():
        by_parameter: dict[str, list[str]] = {}
        for parameter, source in node.inputs:
            known = progress.nodes.get(source)
            by_parameter.setdefault(parameter, []).append(known.name if known else source)
        for parameter, sources in by_parameter.items():
            lines.append(text.clean(f"{', '.join(sources)} -> {node.name} ({parameter})"))
    return lines


def dot(progress: Progress) -> str:
    """The runs and what each waited for, in Graphviz's language."""
    fill = {"COMPLETED": "palegreen", "FAILED": "salmon", "CRASHED": "orangered", "RUNNING": "lightblue"}
    lines = ["digraph runs {", "  rankdir=LR;", "  node [shape=box, style=filled, fillcolor=white];"]
    for node in progress.nodes.values():
        colour = fill.get(node.state_type.value if node.state_type else "", "white")
        shape = ", shape=folder" if node.is_flow else ""
        label = _quoted(node.name + "\n" + node.state_name)
        lines.append(f'  "{node.id}" [label={label}, fillcolor={colour}{shape}];')
    for node in progress.nodes.values():
        if node.parent_id in progress.nodes:
            lines.append(f'  "{node.parent_id}" -> "{node.id}" [style=dotted, arrowhead=none];')
        for parameter, source in node.inputs:
            if source in progress.nodes:
                lines.append(f'  "{source}" -> "{node.id}" [label={_quoted(parameter)}];')
    return "\n".join([*lines, "}"])


def _quoted(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
