"""What the `delete` commands share: ask once for all, then delete one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace.cli.options import Format
from headrace.cli.output import emit_json, say
from headrace.cli.prompts import confirm

__all__ = ["Doomed", "delete_each"]


@dataclass(frozen=True, slots=True)
class Doomed:
    """One thing to delete.

    Attributes:
        id: of it.
        name: as people know it.
    """

    id: str
    name: str


async def delete_each(
    things: Sequence[Doomed],
    word: str,
    delete: Callable[[Doomed], Awaitable[int | None]],
    *,
    along: str = "",
    yes: bool,
    output: Format,
) -> None:
    """Ask, then delete; what was deleted before an error is reported before it.

    Args:
        things: at least one.
        word: what one of them is called.
        delete: deletes one and returns how many runs went with it; None: runs never do.
        along: what goes with each, after "with"; empty: nothing does.
        yes: do not ask.
        output: how to report.
    """
    named = ", ".join(one.id if one.name == one.id else f"{one.name} ({one.id})" for one in things)
    many = f"{len(things)} {word}{'s' if len(things) > 1 else ''}"
    confirm(f"Delete {many}{f' with {along}' if along else ''}: {named}?", yes=yes)
    done: list[dict[str, object]] = []
    try:
        for thing in things:
            runs = await delete(thing)
            done.append({"id": thing.id, "name": thing.name, "deleted_runs": runs or 0})
            if output == "jsonl":
                emit_json(done[-1], indent=None)
            counted = "" if runs is None else f": {runs} run{'s' if runs != 1 else ''}"
            say(f"Deleted {word} {thing.name}{counted}.")
    finally:
        if output == "json":
            emit_json(done)
