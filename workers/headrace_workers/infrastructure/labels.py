"""The marks on infrastructure by which it is found again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from headrace_workers.actions import Attempt
from headrace_workers.base import LABEL_PREFIX

__all__ = ["ATTEMPT", "FENCE", "RUN_ID", "WORK_POOL", "attempt_of"]

RUN_ID: Final = f"{LABEL_PREFIX}flow-run-id"
ATTEMPT: Final = f"{LABEL_PREFIX}attempt"
FENCE: Final = f"{LABEL_PREFIX}fence"
WORK_POOL: Final = f"{LABEL_PREFIX}work-pool-name"


def attempt_of(labels: Mapping[str, str]) -> Attempt | None:
    """The attempt that infrastructure with these labels was made for; None: they name none."""
    run_id, number, fence = (labels.get(name, "") for name in (RUN_ID, ATTEMPT, FENCE))
    if not (run_id and number.isdecimal() and fence.isdecimal()):
        return None
    return Attempt(run_id, int(number), int(fence))
