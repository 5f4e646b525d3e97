"""What is wrong with a schedule."""

from __future__ import annotations

__all__ = ["ScheduleInvalid"]


class ScheduleInvalid(ValueError):
    """A schedule cannot be kept: the message says what is wrong and what to write instead.

    Attributes:
        field: the part to blame: `cron`, `interval`, `rrule`, `timezone`, ...
        reason: what is wrong with it, as the end of a sentence.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[ScheduleInvalid], tuple[str, str]]:
        return (ScheduleInvalid, (self.field, self.reason))
