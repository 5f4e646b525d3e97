"""Every error of the tree, as a caller gets it."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from headrace.core import errors
from headrace.core.errors import FieldsInvalid, ServiceError
from headrace_services.rpc.errors import DOMAIN, grpc_code, service_error, status_of

CLASSES = sorted(errors.error_classes(), key=lambda cls: cls.__name__)


def detail(status: status_pb2.Status, kind: type) -> object | None:
    """The detail of one kind, or None."""
    for packed in status.details:
        assert isinstance(packed, any_pb2.Any)
        if packed.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            packed.Unpack(message)
            return message
    return None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_its_reason_and_is_found_by_it(cls: type[ServiceError]) -> None:
    status = status_of(cls("Because.", facts={"kind": "run", "key": "x"}))
    info = detail(status, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.domain, info.reason, info.metadata["key"]) == (DOMAIN, cls.reason, "x")
    assert status.message == "Because."
    assert status.code == grpc_code(cls()).value[0]
    assert errors.error_class(info.reason) is cls


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_retry_is_named_exactly_where_it_makes_sense(cls: type[ServiceError]) -> None:
    retry = detail(status_of(cls()), error_details_pb2.RetryInfo)
    if cls.default_retry_after_seconds is None:
        assert retry is None
    else:
        assert isinstance(retry, error_details_pb2.RetryInfo)
        assert retry.retry_delay.ToTimedelta().total_seconds() == cls.default_retry_after_seconds


def test_fields_are_named() -> None:
    status = status_of(FieldsInvalid.of("run.tags[3]", "must not be empty"))
    bad = detail(status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("run.tags[3]", "must not be empty")]


def test_a_missing_thing_is_named() -> None:
    info = detail(status_of(errors.ObjectNotFound.of("flow", "etl")), error_details_pb2.ResourceInfo)
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("flow", "etl")


def test_a_broken_precondition_is_named() -> None:
    status = status_of(errors.StaleAttempt(facts={"run_id": "r"}))
    failure = detail(status, error_details_pb2.PreconditionFailure)
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert (failure.violations[0].type, failure.violations[0].subject) == ("STALE_ATTEMPT", "r")


def test_a_foreign_error_becomes_an_id(caplog: pytest.LogCaptureFixture) -> None:
    error = service_error(ValueError("password=hunter2"), "/svc/M")
    assert grpc_code(error) is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(status_of(error))
    assert error.facts["error_id"] in caplog.text
    assert "hunter2" in caplog.text
