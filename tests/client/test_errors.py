"""Every error of the tree, from the server's side of the wire to the client's."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.client.errors import from_rpc_error, from_status
from headrace.core.errors import (
    FieldsInvalid,
    FieldViolation,
    InternalError,
    MessageTooLarge,
    ObjectNotFound,
    ProtocolUnsupported,
    SequenceGap,
    ServerUnavailable,
    ServiceError,
    error_classes,
)
from headrace_services.rpc.errors import DETAILS_KEY, status_of


class Ended:
    """A call that has ended, as gRPC's error objects say it."""

    def __init__(self, code: grpc.StatusCode, details: str, status: status_pb2.Status | None = None) -> None:
        self._code = code
        self._details = details
        self._trailing = ((DETAILS_KEY, status.SerializeToString()),) if status else ()

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._trailing


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_every_class_comes_back_as_it_was(cls: type[ServiceError]) -> None:
    sent = cls(
        "what is wrong",
        facts={"key": "välue"},
        violations=[FieldViolation("run.tags[3]", "must not be empty")],
        retry_after_seconds=2.5,
    )
    for got in (
        from_status(status_of(sent)),
        from_rpc_error(Ended(grpc.StatusCode[cls.code], "what is wrong", status_of(sent)), "h:1"),
    ):
        assert type(got) is cls
        assert got.message == "what is wrong"
        assert got.facts == {"key": "välue"}
        assert got.violations == (FieldViolation("run.tags[3]", "must not be empty"),)
        assert got.retry_after_seconds == 2.5


def test_a_gap_tells_where_to_go_on() -> None:
    got = from_status(status_of(SequenceGap.at(41)))
    assert isinstance(got, SequenceGap) and got.durable_seq == 41


def test_a_reason_from_a_newer_server_is_told_by_its_code() -> None:
    status = status_pb2.Status(code=5, message="no such thing")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="THING_MISSING", domain="headrace.dev"))
    got = from_status(status)
    assert type(got) is ObjectNotFound and got.message == "no such thing"


@pytest.mark.parametrize(
    ("code", "details", "cls", "says"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", ServerUnavailable, "h:1 does not answer"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", ServerUnavailable, "in time"),
        (grpc.StatusCode.CANCELLED, "CANCELLED", ServerUnavailable, "h:1 has ended the call"),
        (grpc.StatusCode.UNIMPLEMENTED, "", ProtocolUnsupported, "older"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Sent message larger than max (9 vs. 8)",
            MessageTooLarge,
            "9 vs. 8",
        ),
        (grpc.StatusCode.INVALID_ARGUMENT, "no", FieldsInvalid, "no"),
        (grpc.StatusCode.UNKNOWN, "odd", InternalError, "odd"),
        (grpc.StatusCode.ABORTED, "stopped", ServiceError, "stopped"),
    ],
)
def test_a_status_without_details_is_told_by_its_code(
    code: grpc.StatusCode, details: str, cls: type[ServiceError], says: str
) -> None:
    got = from_rpc_error(Ended(code, details), "h:1")
    assert type(got) is cls
    assert says in got.message


def test_details_that_cannot_be_read_are_left_aside() -> None:
    ended = Ended(grpc.StatusCode.NOT_FOUND, "gone")
    ended._trailing = ((DETAILS_KEY, b"\xff\xff"),)
    assert type(from_rpc_error(ended, "h:1")) is ObjectNotFound
