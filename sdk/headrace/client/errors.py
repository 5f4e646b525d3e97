"""Statuses from the wire, as the classes of `headrace.core.errors` that the server raised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from headrace.core import errors
from headrace.core.errors import FieldViolation, ServiceError

__all__ = ["from_rpc_error", "from_status"]

_DETAILS_KEY: Final = "grpc-status-details-bin"
_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Names of the gRPC status codes, by number."""

_BY_CODE: Final[dict[str, type[ServiceError]]] = {
    "INVALID_ARGUMENT": errors.FieldsInvalid,
    "NOT_FOUND": errors.ObjectNotFound,
    "ALREADY_EXISTS": errors.ObjectAlreadyExists,
    "PERMISSION_DENIED": errors.PermissionMissing,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "UNAVAILABLE": errors.ServerUnavailable,
    "CANCELLED": errors.ServerUnavailable,
    "DEADLINE_EXCEEDED": errors.ServerUnavailable,
    "UNIMPLEMENTED": errors.ProtocolUnsupported,
    "INTERNAL": errors.InternalError,
    "UNKNOWN": errors.InternalError,
}
"""The class for a status without details: it comes from the transport, a proxy or another product."""


def from_status(status: status_pb2.Status) -> ServiceError:
    """The error that `status` (with `google.rpc` details) stands for."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, bad, retry):
            detail.Unpack(known)
    code = _CODES[status.code] if 0 <= status.code < len(_CODES) else "UNKNOWN"
    cls = errors.error_class(info.reason) or _BY_CODE.get(code, ServiceError)
    return cls(
        status.message,
        facts=dict(info.metadata),
        violations=[FieldViolation(v.field, v.description) for v in bad.field_violations],
        retry_after_seconds=_seconds(retry),
    )


def _seconds(retry: error_details_pb2.RetryInfo) -> float | None:
    if not retry.HasField("retry_delay"):
        return None
    delay = retry.retry_delay
    return float(delay.seconds) + float(delay.nanos) / 1e9


def from_rpc_error(error: Any, address: str) -> ServiceError:
    """The error behind a `grpc.RpcError`.

    Args:
        error: of a call that has ended: it has `code()`, `details()` and `trailing_metadata()`.
        address: the server that was called, for the message.
    """
    code = str(error.code().name)
    text = str(error.details() or "")
    details = _details(error.trailing_metadata() or ())
    if details is not None:
        return from_status(details)
    if code == "UNAVAILABLE":
        return errors.ServerUnavailable(
            f"The server at {address} does not answer. Is it running, and is the address right?"
        )
    if code == "CANCELLED":
        # Not by this client, which would not ask. So a server ends the calls that are left when it stops.
        return errors.ServerUnavailable(f"The server at {address} has ended the call.")
    if code == "DEADLINE_EXCEEDED":
        return errors.ServerUnavailable(f"The server at {address} did not answer in time.")
    if code == "UNIMPLEMENTED":
        return errors.ProtocolUnsupported(
            f"The server at {address} does not know this call: it is older than this client, or it is not "
            f"a headrace server."
        )
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in text:
        return errors.MessageTooLarge(f"A message is larger than the transport takes ({text}).")
    return _BY_CODE.get(code, ServiceError)(text)


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in metadata:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
