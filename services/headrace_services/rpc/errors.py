"""From an error of the tree to the status a caller gets: code, message and `google.rpc` details."""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace.core.errors import (
    FieldViolation,
    InternalError,
    ObjectAlreadyExists,
    ObjectNotFound,
    RecorderSealed,
    RunActive,
    ServiceError,
    StaleAttempt,
    StorageFull,
    TransitionNotAllowed,
)
from headrace.core.ids import new_id

__all__ = ["DETAILS_KEY", "DOMAIN", "grpc_code", "service_error", "status_of"]

DOMAIN: Final = "headrace.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"

# A peer may refuse trailers over 8 KiB, and the caller would see that instead of the error. On the wire
# the message can grow threefold (percent encoding) and the details by a third (base64).
_MESSAGE_BYTES: Final = 500
_TEXT_BYTES: Final = 130
_VIOLATIONS: Final = 8
_FACTS: Final = 8

_PRECONDITIONS: Final = (StaleAttempt, TransitionNotAllowed, RunActive, RecorderSealed)

_log = logging.getLogger(__name__)


def grpc_code(error: ServiceError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    return grpc.StatusCode[error.code]


def service_error(error: BaseException, where: str) -> ServiceError:
    """`error` as something a caller may see.

    An error that is not part of the tree is logged with its traceback under a new id; the caller learns
    the id and nothing else.

    Args:
        where: what was being done, for the log, e.g. the method's name.
    """
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return StorageFull()
    error_id = new_id()
    _log.error("error %s in %s", error_id, where, exc_info=error)
    return InternalError(
        f"The server met an error of its own. Its log has the details under the error id {error_id}.",
        facts={"error_id": error_id},
    )


def status_of(error: ServiceError) -> status_pb2.Status:
    """The status with its details: `ErrorInfo` always, the others where they say something."""
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.code), message=_cut(error.message, _MESSAGE_BYTES)
    )
    facts = {_cut(k): _cut(v) for k, v in list(error.facts.items())[:_FACTS]}
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts))
    if error.violations:
        _add(status, _bad_request(error.violations))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        _add(status, retry)
    if isinstance(error, ObjectNotFound | ObjectAlreadyExists):
        _add(
            status,
            error_details_pb2.ResourceInfo(
                resource_type=facts.get("kind", ""),
                resource_name=facts.get("key", ""),
                description=_cut(error.message),
            ),
        )
    if isinstance(error, _PRECONDITIONS):
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=error.reason, subject=facts.get("run_id", ""), description=_cut(error.message)
        )
        _add(status, failure)
    return status


def _bad_request(violations: tuple[FieldViolation, ...]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    for violation in violations[:_VIOLATIONS]:
        request.field_violations.add(field=_cut(violation.field), description=_cut(violation.description))
    if len(violations) > _VIOLATIONS:
        rest = len(violations) - _VIOLATIONS
        request.field_violations.add(field="", description=f"and {rest} more fields that break a rule")
    return request


def _add(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _cut(text: str, limit: int = _TEXT_BYTES) -> str:
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode(errors="ignore") + "…"
