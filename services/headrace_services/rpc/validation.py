"""The rules that stand in the schema, checked where a message enters the server.

The Python code that users install carries no validation rules: they would collide with another version
of `buf.validate` in the user's process. The rules are in `rules.binpb`, a descriptor set that only this
module reads. A message is parsed a second time, into a class made from that set with the validator's own
Protobuf runtime: both together take half the time that the validator needs for a message of Google's
runtime (5 µs for a recorded state).
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Final

from protobuf.wkt import FileDescriptorSet
from protovalidate import Validator, Violation

from headrace.core import limits
from headrace.core.errors import FieldsInvalid, FieldViolation, PayloadTooLarge, ServiceError

__all__ = ["Rules", "rules"]

_PAYLOAD_RULE: Final = "bytes.max_len"
_SHOWN: Final = 3


class Rules:
    """The schema with its validation rules.

    Args:
        descriptor_set: a serialised `google.protobuf.FileDescriptorSet` with everything it imports.
    """

    def __init__(self, descriptor_set: bytes) -> None:
        self._registry = FileDescriptorSet.from_binary(descriptor_set).to_registry()
        self._validator = Validator()
        self._classes: dict[str, Any] = {}

    def parse(self, name: str, data: bytes) -> Any:
        """The message with that full name, in the class that can be checked.

        Raises:
            FieldsInvalid: the bytes are no such message.
        """
        cls = self._classes.get(name)
        if cls is None:
            descriptor = self._registry.message(name)
            assert descriptor is not None, name
            cls = self._classes[name] = descriptor.type
        try:
            return cls.from_binary(data)
        except (ValueError, RecursionError):
            raise FieldsInvalid(f"The bytes are no {name}.") from None

    def check(self, name: str, data: bytes, prefix: str = "") -> ServiceError | None:
        """What is wrong with a message, or None.

        Args:
            name: full name of the message.
            data: its bytes.
            prefix: what stands before the path of a field, e.g. `entries[3].`.
        """
        try:
            return self.check_parsed(self.parse(name, data), prefix)
        except FieldsInvalid as error:
            return error

    def check_parsed(self, message: Any, prefix: str = "") -> ServiceError | None:
        """What is wrong with a message that `parse` gave, or None."""
        found = self._validator.collect_violations(message)
        return _error(found, prefix) if found else None

    def is_valid(self, message: Any) -> bool:
        """Whether nothing is wrong with a message that `parse` gave."""
        return not self._validator.collect_violations(message, fail_fast=True)


@cache
def rules() -> Rules:
    """The rules of this server's schema, loaded on first use."""
    return Rules(resources.files("headrace_services.rpc").joinpath("rules.binpb").read_bytes())


def _error(found: list[Violation], prefix: str) -> ServiceError:
    violations = [FieldViolation(prefix + _path(v), _sentence(v)) for v in found]
    message = "; ".join(
        f"{v.field}: {v.description}" if v.field else v.description for v in violations[:_SHOWN]
    )
    if len(violations) > _SHOWN:
        message += f"; and {len(violations) - _SHOWN} more"
    for violation, shown in zip(found, violations, strict=True):
        if violation.proto.rule_id == _PAYLOAD_RULE and shown.field.endswith("inline"):
            return PayloadTooLarge(
                f"{shown.field}: a value may travel inline up to {limits.INLINE_PAYLOAD_BYTES} bytes; "
                "put larger ones into result storage and send a reference.",
                violations=violations,
                facts={"max_bytes": str(limits.INLINE_PAYLOAD_BYTES)},
            )
    return FieldsInvalid(message, violations=violations)


def _path(violation: Violation) -> str:
    """The path of a field as people write it: `run.tags[3]`, `run.labels["team"]`."""
    parts: list[str] = []
    for element in violation.proto.field.elements if violation.proto.field else ():
        parts.append(("." if parts else "") + element.field_name)
        subscript = element.subscript
        if subscript is not None:
            if subscript.field == "index":
                parts.append(f"[{subscript.value}]")
            else:
                parts.append(f'["{subscript.value}"]')
    return "".join(parts)


def _sentence(violation: Violation) -> str:
    text = violation.proto.message or f"breaks the rule {violation.proto.rule_id}"
    if violation.proto.rule_id == "enum.not_in":
        return "must be set"
    return text
