"""What people type for a run, a state or an instant, made into what the server takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.output import first
from headrace.cli.times import span_seconds
from headrace.core.ids import is_id
from headrace.core.states import NAMES, StateType
from headrace.v1.run_pb2 import RunFilter, RunKind
from headrace.v1.state_pb2 import StateType as WireStateType

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from headrace.client.api import HeadraceClient
    from headrace.v1.run_pb2 import Run

__all__ = ["KIND_WORDS", "doubtful_states", "find_run", "parse_since", "state_names", "state_types"]

KIND_WORDS = {RunKind.RUN_KIND_FLOW: "flow run", RunKind.RUN_KIND_TASK: "task run"}
_PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
_KNOWN_STATES = {name.casefold(): name for names in NAMES.values() for name in names}
_SHOWN_CANDIDATES = 5
_NAMES_COMPARED = 200


async def find_run(client: HeadraceClient, text: str, kind: RunKind.ValueType) -> Run:
    """The run that `text` means: an id, the beginning of one that no other run has, or a run's name.

    Returns:
        The whole run, view FULL.

    Raises:
        CliError: there is none, or more than one.
    """
    word = KIND_WORDS[kind]
    folded = text.strip().lower()
    if is_id(folded):
        run = await client.get_run(folded)
        if run.kind != kind:
            other = KIND_WORDS[run.kind]
            raise CliError(
                f"{folded} is a {other}, not a {word}.",
                f"See `headrace {other.replace(' ', '-')} inspect {folded}`.",
                code=ExitCode.NOT_FOUND,
            )
        return run
    found = await _candidates(client, RunFilter(kinds=[kind], names=[text]))
    if not found and _PREFIX.fullmatch(folded):
        found = await _candidates(client, RunFilter(kinds=[kind], id_prefix=folded))
    if not found:
        raise await _no_run(client, text, kind)
    if len(found) > 1:
        raise _ambiguous(text, word, found)
    return await client.get_run(found[0].id)


async def _candidates(client: HeadraceClient, filter: RunFilter) -> list[Run]:
    most = _SHOWN_CANDIDATES + 1
    return [run async for run in first(most, client.iter_runs(filter, page_size=most))]


async def _no_run(client: HeadraceClient, text: str, kind: RunKind.ValueType) -> CliError:
    word = KIND_WORDS[kind]
    recent = client.iter_runs(RunFilter(kinds=[kind]), page_size=_NAMES_COMPARED)
    names = [run.name async for run in first(_NAMES_COMPARED, recent)]
    hint = nearest(text, names) or f"See `headrace {word.replace(' ', '-')} ls`."
    return CliError(f"There is no {word} '{text}'.", hint, code=ExitCode.NOT_FOUND)


def _ambiguous(text: str, word: str, found: list[Run]) -> CliError:
    shown = ", ".join(run.id for run in found[:_SHOWN_CANDIDATES])
    more = ", and more" if len(found) > _SHOWN_CANDIDATES else ""
    return CliError(
        f"'{text}' means more than one {word}: {shown}{more}.", "Give an id.", code=ExitCode.USAGE
    )


def state_types(words: Sequence[str]) -> list[WireStateType.ValueType]:
    """The numbers of state types, which may be in any case.

    Raises:
        CliError: there is no such type.
    """
    numbers: list[WireStateType.ValueType] = []
    for word in words:
        try:
            numbers.append(WireStateType.Value(f"STATE_TYPE_{StateType(word.upper()).value}"))
        except ValueError:
            known = [t.value for t in StateType]
            raise CliError(
                f"There is no state type '{word}'.",
                nearest(word, known) or f"There are: {', '.join(known)}.",
                code=ExitCode.USAGE,
            ) from None
    return numbers


def state_names(words: Sequence[str]) -> list[str]:
    """State names; those the system gives may be in any case, others are taken as they are."""
    return [_KNOWN_STATES.get(word.casefold(), word) for word in words]


def doubtful_states(words: Sequence[str]) -> str:
    """A question about state names that the system does not give but that look like one it does."""
    unknown = [word for word in words if word.casefold() not in _KNOWN_STATES]
    questions = [nearest(word, _KNOWN_STATES.values()) for word in unknown]
    return " ".join(question for question in questions if question)


def parse_since(text: str, now: datetime) -> Timestamp:
    """The instant that `--since` means.

    Args:
        text: a duration back from `now` such as "90s" or "7d", or an ISO 8601 time.
        now: aware.

    Raises:
        CliError: it is neither.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    back = span_seconds(text)
    try:
        if back is not None:
            instant = now - timedelta(seconds=back)
        else:
            # Without a zone it is the machine's own time.
            instant = datetime.fromisoformat(text.strip()).astimezone(UTC)
        stamp = Timestamp()
        stamp.FromDatetime(instant)
    except (ValueError, OverflowError, OSError):
        raise CliError(
            f"'{text}' is not a time.",
            "Give a duration back from now such as 90s, 15m, 6h or 7d, or a time such as 2026-11-20T08:00.",
            code=ExitCode.USAGE,
        ) from None
    return stamp
