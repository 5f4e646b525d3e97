"""Where headrace is meant to differ: (program, fact) -> (what is found here, row of the page on moving)."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["DIFFERENCES"]

_NONE_IS_A_VALUE: Final = "`None` is a value"
_FAILURE_WITHOUT_DATA: Final = "The exception of a failed state"
_RETRY_STATES: Final = "States of a retried flow run"
_RUNNING_HOOK: Final = "`run_count` in `on_running` of a flow"
_MESSAGE: Final = "Messages of failed task runs"
_UPSTREAM: Final = "A task called with a future that failed"
_GENERATOR_STATE: Final = "`return_state=True` on a generator"
_GENERATOR_RETURNED: Final = "A generator that a flow returns"
_METHODS: Final = "Methods as tasks"
_POLICY: Final = "A cache policy that is none"


def _upstream_error() -> dict[str, Any]:
    return {"raised": ["UpstreamTaskError", []]}


DIFFERENCES: Final[dict[tuple[str, str], tuple[Any, str]]] = {
    ("exceptions_of_states", "completed with None"): (None, _NONE_IS_A_VALUE),
    ("exceptions_of_states", "completed with None, without raising"): (None, _NONE_IS_A_VALUE),
    ("flow_returns", "failed by hand: result without raising"): (
        {"exception": "FailedRun", "text": "not good"},
        _FAILURE_WITHOUT_DATA,
    ),
    ("flow_returns", "crashed by hand: result without raising"): (
        {"exception": "CrashedRun", "text": "broken"},
        _FAILURE_WITHOUT_DATA,
    ),
    ("flow_returns", "cancelled by hand: result without raising"): (
        {"exception": "CancelledRun", "text": "stopped"},
        _FAILURE_WITHOUT_DATA,
    ),
    ("flow_retries", "history"): (["Pending", "Running", "Retrying", "Completed"], _RETRY_STATES),
    ("flow_retries", "never: history"): (
        ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"],
        _RETRY_STATES,
    ),
    ("flow_retries", "hooks"): (
        ["running Running 1", "running Retrying 2", "completion Completed 2"],
        _RUNNING_HOOK,
    ),
    ("flow_retries", "never: hooks"): (
        ["running Running 1", "running Retrying 2", "failure Failed 2"],
        _RUNNING_HOOK,
    ),
    ("errors", "task's message"): (
        ["FAILED", "Failed", "Task run encountered an exception: ValueError: told"],
        _MESSAGE,
    ),
    ("coroutines", "failures"): (
        [
            ["FAILED", "Failed", "Task run encountered an exception: ValueError: boom"],
            [{"exception": "ValueError", "text": "boom"}, 4],
        ],
        _MESSAGE,
    ),
    ("upstreams", "failed future, direct call"): (_upstream_error(), _UPSTREAM),
    ("upstreams", "wait, direct call"): (_upstream_error(), _UPSTREAM),
    ("generators", "state of a generator"): (
        {"raised": ["ValueError", ["ValueError"]]},
        _GENERATOR_STATE,
    ),
    ("generators", "returned"): ([0, 1, 2], _GENERATOR_RETURNED),
    ("methods", "two bound tasks"): ([11, 12], _METHODS),
    ("persistence", "a bad policy"): ({"raised": ["TypeError", ["TypeError"]]}, _POLICY),
}
