"""What commands show that change things: those as they are now, where JSON is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from headrace.cli.as_json import to_json
from headrace.cli.options import Format
from headrace.cli.output import emit_json

__all__ = ["changed", "show_changed"]


@contextlib.contextmanager
def changed(output: Format) -> Generator[list[Any]]:
    """Takes the messages of what was changed, as it is now, and prints them at the end, or before an error.

    Args:
        output: `table` prints nothing: the words are enough.
    """
    done: list[Any] = []
    try:
        yield done
    finally:
        documents = [to_json(one) for one in done]
        if output == "json":
            emit_json(documents)
        elif output == "jsonl":
            for document in documents:
                emit_json(document, indent=None)


def show_changed(message: Any, output: Format) -> None:
    """Print what one thing is now, if JSON is asked for."""
    if output != "table":
        emit_json(to_json(message), indent=2 if output == "json" else None)
