"""Every error that can cross the wire, as one tree, and two that stay at home.

    HeadraceException
    ├── ConfigurationError             a setting or a configuration file is wrong
    ├── MissingExtraError              an optional dependency is not installed
    └── ServiceError                   what a call to a server can end with
        ├── FieldsInvalid              INVALID_ARGUMENT     FIELD_INVALID
        │   └── ParametersInvalid      INVALID_ARGUMENT     PARAMETERS_INVALID
        ├── PayloadTooLarge            INVALID_ARGUMENT     PAYLOAD_TOO_LARGE
        ├── MessageTooLarge            RESOURCE_EXHAUSTED   MESSAGE_TOO_LARGE
        ├── PageTokenInvalid           INVALID_ARGUMENT     PAGE_TOKEN_INVALID
        ├── ResumeTokenInvalid         INVALID_ARGUMENT     RESUME_TOKEN_INVALID
        ├── ResumeTokenExpired         OUT_OF_RANGE         RESUME_TOKEN_EXPIRED
        ├── ObjectNotFound             NOT_FOUND            NOT_FOUND
        ├── ObjectAlreadyExists        ALREADY_EXISTS       ALREADY_EXISTS
        ├── RequestIdReused            ALREADY_EXISTS       REQUEST_ID_REUSED
        ├── EtagMismatch               ABORTED              ETAG_MISMATCH
        ├── StaleAttempt               FAILED_PRECONDITION  STALE_ATTEMPT
        ├── TransitionNotAllowed       FAILED_PRECONDITION  TRANSITION_NOT_ALLOWED
        ├── RunActive                  FAILED_PRECONDITION  RUN_ACTIVE
        ├── PreconditionFailed         FAILED_PRECONDITION  PRECONDITION_FAILED
        ├── RecorderSealed             FAILED_PRECONDITION  RECORDER_SEALED
        ├── SequenceGap                OUT_OF_RANGE         SEQUENCE_GAP
        ├── ProtocolUnsupported        FAILED_PRECONDITION  PROTOCOL_VERSION_UNSUPPORTED
        ├── Unauthenticated            UNAUTHENTICATED      UNAUTHENTICATED
        ├── PermissionMissing          PERMISSION_DENIED    PERMISSION_MISSING
        ├── ServerDraining             UNAVAILABLE          SERVER_DRAINING
        ├── ServerBusy                 RESOURCE_EXHAUSTED   SERVER_BUSY
        ├── DatabaseUnavailable        UNAVAILABLE          DATABASE_UNAVAILABLE
        ├── StorageFull                RESOURCE_EXHAUSTED   STORAGE_FULL
        ├── InternalError              INTERNAL             INTERNAL
        └── ServerUnavailable          UNAVAILABLE          (made by the client: nobody answered)

Each class carries the name of its gRPC status code and of its `headrace.v1.ErrorReason`; `facts` are the
strings that travel in `google.rpc.ErrorInfo.metadata`. One interceptor turns an error into a status with
details, one function turns it back into the same class. Messages say what is wrong and what to do next;
they never contain a traceback or another exception's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ConfigurationError",
    "DatabaseUnavailable",
    "EtagMismatch",
    "FieldViolation",
    "FieldsInvalid",
    "HashError",
    "HeadraceException",
    "InternalError",
    "MessageTooLarge",
    "MissingExtraError",
    "MissingProfileError",
    "ObjectAlreadyExists",
    "ObjectNotFound",
    "PageTokenInvalid",
    "ParametersInvalid",
    "PayloadTooLarge",
    "PermissionMissing",
    "PreconditionFailed",
    "ProtocolUnsupported",
    "RecorderSealed",
    "RequestIdReused",
    "ResumeTokenExpired",
    "ResumeTokenInvalid",
    "RunActive",
    "SequenceGap",
    "ServerBusy",
    "ServerDraining",
    "ServerUnavailable",
    "ServiceError",
    "StaleAttempt",
    "StorageFull",
    "TransitionNotAllowed",
    "Unauthenticated",
    "error_class",
    "error_classes",
]


class HeadraceException(Exception):
    """The root of every error that headrace raises on purpose."""


class ConfigurationError(HeadraceException):
    """A setting or a configuration file is wrong; the message names it and says what is allowed."""


class MissingProfileError(ConfigurationError):
    """There is no profile of that name."""


class HashError(HeadraceException):
    """A value has no fingerprint; the message names the part to blame, e.g. `inputs.clients[3]._lock`.

    Attributes:
        path: where the part is.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[HashError], tuple[str, str]]:
        return (HashError, (self.path, self.reason))


class MissingExtraError(HeadraceException, ImportError):
    """A feature needs an optional dependency.

    Args:
        feature: what was asked for.
        packages: what pip must install, e.g. `headrace[docker]`.
    """

    def __init__(self, feature: str, packages: str) -> None:
        self.feature = feature
        self.packages = packages
        super().__init__(f'{feature} needs packages that are not installed: pip install "{packages}"')

    def __reduce__(self) -> tuple[object, ...]:
        return (MissingExtraError, (self.feature, self.packages))


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks a rule.

    Attributes:
        field: path in the request, e.g. `run.tags[3]`.
        description: what the rule is, as a sentence.
    """

    field: str
    description: str


class ServiceError(HeadraceException):
    """A call to a server ended with an error.

    Attributes:
        code: name of the gRPC status code.
        reason: name of the `headrace.v1.ErrorReason`, without its prefix.
        retry_after_seconds: when it makes sense to try again; None: not by itself.
        violations: the fields that break a rule.
        facts: machine-readable details.
    """

    code: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = "UNSPECIFIED"
    default_retry_after_seconds: ClassVar[float | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        facts: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n", 1)[0]
        self.facts: dict[str, str] = dict(facts or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        if retry_after_seconds is None:
            retry_after_seconds = self.default_retry_after_seconds
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.facts, self.violations, self.retry_after_seconds))


def _rebuild(
    cls: type[ServiceError],
    message: str,
    facts: dict[str, str],
    violations: tuple[FieldViolation, ...],
    retry_after_seconds: float | None,
) -> ServiceError:
    return cls(message, facts=facts, violations=violations, retry_after_seconds=retry_after_seconds)


class FieldsInvalid(ServiceError):
    """A field of the request breaks a rule."""

    code = "INVALID_ARGUMENT"
    reason = "FIELD_INVALID"

    @classmethod
    def of(cls, field: str, description: str) -> FieldsInvalid:
        """The error for one field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field, description)])


class ParametersInvalid(FieldsInvalid):
    """The parameters do not fit the flow's signature."""

    reason = "PARAMETERS_INVALID"


class PayloadTooLarge(ServiceError):
    """A value is too large to travel inline."""

    code = "INVALID_ARGUMENT"
    reason = "PAYLOAD_TOO_LARGE"


class MessageTooLarge(ServiceError):
    """A message is larger than the server takes."""

    code = "RESOURCE_EXHAUSTED"
    reason = "MESSAGE_TOO_LARGE"


class PageTokenInvalid(ServiceError):
    """The page token was not made by this list with this filter and order. Start from the first page."""

    code = "INVALID_ARGUMENT"
    reason = "PAGE_TOKEN_INVALID"


class ResumeTokenInvalid(ServiceError):
    """The resume token was not made by this call. Watch again without one."""

    code = "INVALID_ARGUMENT"
    reason = "RESUME_TOKEN_INVALID"


class ResumeTokenExpired(ServiceError):
    """The changes after the resume token are no longer kept. Watch again without one."""

    code = "OUT_OF_RANGE"
    reason = "RESUME_TOKEN_EXPIRED"


class ObjectNotFound(ServiceError):
    """There is no such object."""

    code = "NOT_FOUND"
    reason = "NOT_FOUND"

    @classmethod
    def of(cls, kind: str, key: str) -> ObjectNotFound:
        """The error for a missing `kind` ("run", "flow", ...) with the id or name `key`."""
        return cls(f"There is no {kind} '{key}'.", facts={"kind": kind, "key": key})


class ObjectAlreadyExists(ServiceError):
    """An object with this id or name exists already."""

    code = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class RequestIdReused(ServiceError):
    """The id was used before, for a request that says something else."""

    code = "ALREADY_EXISTS"
    reason = "REQUEST_ID_REUSED"


class EtagMismatch(ServiceError):
    """The object has changed since it was read. Read it again, then decide."""

    code = "ABORTED"
    reason = "ETAG_MISMATCH"


class StaleAttempt(ServiceError):
    """This attempt no longer owns the run; its writes are refused."""

    code = "FAILED_PRECONDITION"
    reason = "STALE_ATTEMPT"


class TransitionNotAllowed(ServiceError):
    """The run cannot go from its state into the proposed one."""

    code = "FAILED_PRECONDITION"
    reason = "TRANSITION_NOT_ALLOWED"


class RunActive(ServiceError):
    """The run may still be executing. Wait for it to end, or say `force`."""

    code = "FAILED_PRECONDITION"
    reason = "RUN_ACTIVE"


class PreconditionFailed(ServiceError):
    """The object is not in a condition in which this can be done; the message says what stands against it."""

    code = "FAILED_PRECONDITION"
    reason = "PRECONDITION_FAILED"


class LockLost(ServiceError):
    """The lock under which this was to be written has been given to somebody else."""

    code = "ABORTED"
    reason = "LOCK_LOST"

    @classmethod
    def of(cls, key: str) -> LockLost:
        """The error for the lock of `key`."""
        return cls(f"The lock of '{key}' has been given to somebody else.", facts={"key": key})


class RecorderSealed(ServiceError):
    """The recorder has said that it is done; nothing more can be recorded under its id."""

    code = "FAILED_PRECONDITION"
    reason = "RECORDER_SEALED"


class SequenceGap(ServiceError):
    """The batch does not follow the last durable entry. Send again from there."""

    code = "OUT_OF_RANGE"
    reason = "SEQUENCE_GAP"

    @classmethod
    def at(cls, durable_seq: int) -> SequenceGap:
        """The error that tells a recorder to go on from `durable_seq + 1`."""
        return cls(
            f"The batch does not follow the last durable entry, which is {durable_seq}.",
            facts={"durable_seq": str(durable_seq)},
        )

    @property
    def durable_seq(self) -> int:
        """Sequence number of the last durable entry."""
        return int(self.facts.get("durable_seq", "0"))


class ProtocolUnsupported(ServiceError):
    """Client and server share no version of the protocol. Upgrade the older of the two."""

    code = "FAILED_PRECONDITION"
    reason = "PROTOCOL_VERSION_UNSUPPORTED"


class Unauthenticated(ServiceError):
    """Unauthorized"""

    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionMissing(ServiceError):
    """The caller may not do this."""

    code = "PERMISSION_DENIED"
    reason = "PERMISSION_MISSING"


class ServerDraining(ServiceError):
    """The server is shutting down. Connect again."""

    code = "UNAVAILABLE"
    reason = "SERVER_DRAINING"
    default_retry_after_seconds = 1.0


class ServerBusy(ServiceError):
    """Too many ask the server at once. Try again in a moment."""

    code = "RESOURCE_EXHAUSTED"
    reason = "SERVER_BUSY"
    default_retry_after_seconds = 1.0


class DatabaseUnavailable(ServiceError):
    """The server cannot reach its database. Nothing was written; try again."""

    code = "UNAVAILABLE"
    reason = "DATABASE_UNAVAILABLE"
    default_retry_after_seconds = 1.0


class StorageFull(ServiceError):
    """The disk of the server's database is full. Nothing was written; free some space, then try again."""

    code = "RESOURCE_EXHAUSTED"
    reason = "STORAGE_FULL"
    default_retry_after_seconds = 5.0


class InternalError(ServiceError):
    """The server met an error of its own. Its log has the details under the error id."""

    code = "INTERNAL"
    reason = "INTERNAL"


class ServerUnavailable(ServiceError):
    """The server does not answer."""

    code = "UNAVAILABLE"
    reason = "UNSPECIFIED"
    default_retry_after_seconds = 1.0


def error_classes() -> Iterator[type[ServiceError]]:
    """Every concrete class of the tree that has a reason of its own."""
    pending: list[type[ServiceError]] = [ServiceError]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if "reason" in vars(cls) and cls.reason != "UNSPECIFIED":
            yield cls


def error_class(reason: str) -> type[ServiceError] | None:
    """The class for the reason of an `ErrorInfo`, or None for a reason from a newer server."""
    return next((cls for cls in error_classes() if cls.reason == reason), None)
