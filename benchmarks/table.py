"""The report, as a table for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.figures import FIGURES, Figure, Summary, ratio

__all__ = ["Results", "as_json", "as_table", "verdict"]

Results = Mapping[tuple[str, str], Mapping[str, Summary]]
"""(product, database) to figure name to what was measured."""

_DATABASES = ("sqlite", "postgresql")
_TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def verdict(figure: Figure, summaries: Sequence[Summary]) -> str:
    """Whether the medians on all databases reach the gate: `pass`, `FAIL`, or nothing when not judged."""
    judged = [figure.passes(summary.median) for summary in summaries]
    if not judged or None in judged:
        return ""
    return "pass" if all(judged) else "FAIL"


def as_table(results: Results, own: str, peer: str | None) -> str:
    """Columns: what, own figures per database with their spread, gate, goal, verdict, the peer's, ratio."""
    columns = [(own, each) for each in _DATABASES if (own, each) in results]
    peers = [(peer, each) for each in _DATABASES if peer is not None and (peer, each) in results]
    head = ["", "unit", *(f"{name} {_TITLES[kind]}" for name, kind in columns), "gate", "goal", ""]
    head += [f"{name} {_TITLES[kind]}" for name, kind in peers]
    head += [f"better, {_TITLES[kind]}" for _, kind in peers]
    rows = [_row(figure, results, columns, peers) for figure in FIGURES if _measured(figure, results)]
    return _align([head, *rows])


def as_json(results: Results, facts: Mapping[str, str], own: str) -> str:
    """Everything, machine facts included."""
    figures = [
        {
            "name": figure.name,
            "unit": figure.unit,
            "product": product,
            "database": kind,
            "gate": figure.gate if product == own else None,
            "goal": figure.goal if product == own else None,
            "verdict": verdict(figure, [found[figure.name]]) if product == own else "",
            "median": found[figure.name].median,
            "least": found[figure.name].least,
            "most": found[figure.name].most,
            "repeats": found[figure.name].repeats,
        }
        for figure in FIGURES
        for (product, kind), found in results.items()
        if figure.name in found
    ]
    return json.dumps({"machine": dict(facts), "figures": figures}, indent=2)


def _measured(figure: Figure, results: Results) -> bool:
    return any(figure.name in found for found in results.values())


def _row(
    figure: Figure,
    results: Results,
    columns: Sequence[tuple[str, str]],
    peers: Sequence[tuple[str, str]],
) -> list[str]:
    own = [results[column].get(figure.name) for column in columns]
    others = [results[column].get(figure.name) for column in peers]
    row = [figure.title, figure.unit, *(_with_spread(each) for each in own)]
    row += [_limit(figure, figure.gate), _limit(figure, figure.goal)]
    row.append(verdict(figure, [each for each in own if each is not None]))
    row += [_with_spread(each) for each in others]
    ours = dict(zip((kind for _, kind in columns), own, strict=True))
    row += [_ratio(figure, ours.get(kind), other) for (_, kind), other in zip(peers, others, strict=True)]
    return row


def _ratio(figure: Figure, own: Summary | None, other: Summary | None) -> str:
    if own is None or other is None or figure.unit == "modules":
        return ""
    return f"{ratio(figure, own.median, other.median):.3g} x"


def _limit(figure: Figure, limit: float | None) -> str:
    if limit is None:
        return ""
    return f"{'>=' if figure.higher_is_better else '<='} {_number(limit)}"


def _with_spread(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.repeats == 1:
        return _number(summary.median)
    return f"{_number(summary.median)} ({_number(summary.least)}..{_number(summary.most)})"


def _number(value: float) -> str:
    """Three significant digits are more than these figures are worth."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()
