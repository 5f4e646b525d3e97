"""What a worker has to report, until the server has said that it is durable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.v1.worker_service_pb2 import AttemptReport
from headrace_workers.actions import Attempt

__all__ = ["ReportLog"]


@dataclass(slots=True)
class _Report:
    message: AttemptReport
    attempt: Attempt
    beat: int | None = None
    """The newest heartbeat when it was sent; None: the present stream has not carried it."""


class ReportLog:
    """Numbered from 1 in each session, without gaps, and kept in this order."""

    def __init__(self) -> None:
        self._reports: list[_Report] = []
        self._last = 0

    def __len__(self) -> int:
        return len(self._reports)

    def started(self, attempt: Attempt, infrastructure_id: str) -> None:
        """The attempt has infrastructure."""
        report = AttemptReport(attempt=attempt.to_message())
        report.started.infrastructure_id = infrastructure_id
        self._add(report, attempt)

    def exited(self, attempt: Attempt, exit_code: int | None, message: str, never_started: bool) -> None:
        """The attempt's infrastructure is gone."""
        exited = AttemptReport.InfrastructureExited(message=message, never_started=never_started)
        if exit_code is not None:
            exited.exit_code = exit_code
        self._add(AttemptReport(attempt=attempt.to_message(), exited=exited), attempt)

    def _add(self, message: AttemptReport, attempt: Attempt) -> None:
        self._last += 1
        message.report_seq = self._last
        self._reports.append(_Report(message, attempt))

    def unsent(self, beat: int) -> Iterator[AttemptReport]:
        """Those to be sent now; they count as sent after heartbeat number `beat`."""
        for report in self._reports:
            if report.beat is None:
                report.beat = beat
                yield report.message

    def send_again(self) -> None:
        """What was sent may not have arrived."""
        for report in self._reports:
            report.beat = None

    def renumber(self) -> None:
        """A new session has begun: it knows no report yet."""
        self._last = 0
        for report in self._reports:
            self._last += 1
            report.message.report_seq = self._last
        self.send_again()

    def acknowledged(self, report_seq: int, beat: int) -> None:
        """Heartbeat number `beat` is answered, and every report up to `report_seq` is durable.

        What was sent before that heartbeat and is not durable is lost, and is sent again.
        """
        self._reports = [r for r in self._reports if r.message.report_seq > report_seq]
        for report in self._reports:
            if report.beat is not None and report.beat < beat:
                report.beat = None

    def is_open(self, attempt: Attempt) -> bool:
        """Whether something about the attempt is not known to be durable."""
        return any(report.attempt == attempt for report in self._reports)
