"""Events as values."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, model_validator

from headrace.core.ids import new_id

__all__ = ["Event", "ReceivedEvent", "RelatedResource", "Resource"]

ID: Final = "headrace.resource.id"
NAME: Final = "headrace.resource.name"
ROLE: Final = "headrace.resource.role"
_LABELS_MAX: Final = 500
_RELATED_MAX: Final = 100
_PEER: Final = "prefect.resource."
_OURS: Final = "headrace.resource."


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Resource(RootModel[dict[str, str]]):
    """A thing that events happen to: labels, of which `headrace.resource.id` must be there.

    Labels that begin with `prefect.resource.` are taken for ours, so that programs of both worlds may say the
    same.
    """

    _required: ClassVar[tuple[str, ...]] = (ID,)

    @model_validator(mode="before")
    @classmethod
    def _in_our_words(cls, labels: Any) -> Any:
        if not isinstance(labels, Mapping):
            return labels
        given = cast("Mapping[Any, Any]", labels)
        return {_in_our_words(name): value for name, value in given.items()}

    @model_validator(mode="after")
    def _check(self) -> Resource:
        if len(self.root) > _LABELS_MAX:
            raise ValueError(f"a resource has at most {_LABELS_MAX} labels, not {len(self.root)}")
        for label in self._required:
            if not self.root.get(label):
                raise ValueError(f"a resource needs the label '{label}'")
        return self

    def __getitem__(self, label: str) -> str:
        return self.root[_in_our_words(label)]

    def __contains__(self, label: object) -> bool:
        return _in_our_words(label) in self.root

    def get(self, label: str, default: str | None = None) -> str | None:
        """The value of a label, or the default."""
        return self.root.get(_in_our_words(label), default)

    def keys(self) -> Iterator[str]:
        """The names of the labels."""
        return iter(self.root)

    def items(self) -> Iterator[tuple[str, str]]:
        """The labels."""
        return iter(self.root.items())

    @property
    def id(self) -> str:
        """What it is known by everywhere."""
        return self[ID]

    @property
    def name(self) -> str | None:
        """What people call it."""
        return self.get(NAME)


class RelatedResource(Resource):
    """A thing that took part in an event, in the role that `headrace.resource.role` says."""

    _required: ClassVar[tuple[str, ...]] = (ID, ROLE)

    @property
    def role(self) -> str:
        """In what role."""
        return self[ROLE]


def _in_our_words(label: Any) -> Any:
    if isinstance(label, str) and label.startswith(_PEER):
        return _OURS + label.removeprefix(_PEER)
    return label


def _not_too_many(related: list[RelatedResource]) -> list[RelatedResource]:
    if len(related) > _RELATED_MAX:
        raise ValueError(f"an event has at most {_RELATED_MAX} related resources, not {len(related)}")
    return related


class Event(BaseModel):
    """Something that happened to a thing.

    Attributes:
        occurred: when, on the sender's clock; a time without a zone is in UTC.
        event: what, e.g. "order.shipped".
        resource: to what.
        related: what else took part, in which roles.
        payload: whatever else there is to say; it must be possible to write it as JSON.
        id: made by the sender.
        follows: the event that is known to have come before this one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    occurred: Annotated[datetime, AfterValidator(_aware)] = Field(default_factory=lambda: datetime.now(UTC))
    event: str = Field(min_length=1, max_length=1024)
    resource: Resource
    related: Annotated[list[RelatedResource], AfterValidator(_not_too_many)] = Field(
        default_factory=list[RelatedResource]
    )
    payload: dict[str, Any] = Field(default_factory=dict[str, Any])
    id: uuid.UUID = Field(default_factory=lambda: uuid.UUID(new_id()))
    follows: uuid.UUID | None = None

    @property
    def size_bytes(self) -> int:
        """How large it is as JSON."""
        return len(self.model_dump_json().encode())

    @property
    def involved_resources(self) -> Sequence[Resource]:
        """What it happened to, then what else took part."""
        return [self.resource, *self.related]

    @property
    def resource_in_role(self) -> Mapping[str, RelatedResource]:
        """The first related resource in each role."""
        return {related.role: related for related in reversed(self.related)}

    @property
    def resources_in_role(self) -> Mapping[str, Sequence[RelatedResource]]:
        """The related resources in each role."""
        found: dict[str, list[RelatedResource]] = {}
        for related in self.related:
            found.setdefault(related.role, []).append(related)
        return found

    def find_resource_label(self, label: str) -> str | None:
        """The value of a label of the resource; `related:<role>:<label>` asks the first one in that role."""
        directive, _, rest = label.partition(":")
        role, _, name = rest.rpartition(":")
        if directive == "related" and role:
            found = next((related for related in self.related if related.role == role), None)
            return None if found is None else found.get(name)
        return self.resource.get(label)


class ReceivedEvent(Event):
    """An event that a server has.

    Attributes:
        received: when it was stored, on the server's clock.
    """

    received: datetime
