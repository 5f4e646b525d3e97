"""`RunInput`: what a flow run asks for, and what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Self, TypeVar, cast, get_origin
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model

from headrace.context import FlowRunContext
from headrace.execution.background import dispatched
from headrace.input.actions import acreate_flow_run_input, aread_flow_run_input

if TYPE_CHECKING:
    from headrace.input.receiving import GetAutomaticInputHandler, GetInputHandler

__all__ = [
    "AutomaticRunInput",
    "RunInput",
    "RunInputMetadata",
    "asend_input",
    "default_key_prefix",
    "run_input_subclass_from_type",
    "schema_text",
    "send_input",
]

T = TypeVar("T")
_SENDER = "headrace.flow-run."


class RunInputMetadata(BaseModel):
    """Where an input came from.

    Attributes:
        key: under which it was sent.
        sender: who sent it, e.g. `headrace.flow-run.<id>`; None when nobody in particular did.
        receiver: the flow run that it was sent to.
    """

    key: str
    sender: str | None
    receiver: str


class RunInput(BaseModel):
    """Base of what flow runs ask for and are sent; fields that are not declared are refused."""

    model_config = ConfigDict(extra="forbid")

    _for_people: ClassVar[str | None] = None
    _metadata: RunInputMetadata | None = PrivateAttr(default=None)

    @property
    def metadata(self) -> RunInputMetadata:
        """Where it came from.

        Raises:
            RuntimeError: it was not received.
        """
        if self._metadata is None:
            raise RuntimeError("Only an input that was received has metadata.")
        return self._metadata

    def receive_as(self, metadata: RunInputMetadata) -> None:
        """Note where it came from; for receivers."""
        self._metadata = metadata

    @classmethod
    def description_for_people(cls) -> str | None:
        """Markdown for whoever answers, as `with_initial_data` was given it."""
        return cls._for_people

    @classmethod
    def with_initial_data(cls, description: str | None = None, **kwargs: Any) -> type[Self]:
        """The same type with other defaults.

        Args:
            description: Markdown for whoever answers.
            kwargs: a default for each field to change.
        """
        fields = {name: _with_default(cls, name, value) for name, value in kwargs.items()}
        model: Any = create_model(cls.__name__, __base__=cls, **cast("Any", fields))
        if description is not None:
            model._for_people = description
        return cast("type[Self]", model)

    @classmethod
    async def aload(cls, keyset: str, flow_run_id: str | UUID | None = None) -> Any:
        """What a pause was answered; the defaults when it was not.

        Args:
            keyset: what the keys of the pause begin with, e.g. `paused-1`.
            flow_run_id: the run; None: the one around the call.

        Raises:
            pydantic.ValidationError: the answer does not fit, or there is none and a field has no default.
        """
        answer = await aread_flow_run_input(f"{keyset}-response", flow_run_id)
        return cls.model_validate_json(json.dumps(answer or {}))

    @classmethod
    def load(cls, keyset: str, flow_run_id: str | UUID | None = None) -> Any:
        """What a pause was answered; see `aload`."""
        return dispatched(cls.aload(keyset, flow_run_id))

    @classmethod
    def receive(
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: str | UUID | None = None,
    ) -> GetInputHandler[Any]:
        """Iterate over the inputs of this type that a run is sent; see `headrace.input.receive_input`."""
        from headrace.input.receiving import GetInputHandler

        return GetInputHandler(
            cls, key_prefix, timeout, poll_interval, raise_timeout_error, exclude_keys, flow_run_id
        )

    async def asend_to(
        self, flow_run_id: str | UUID, sender: str | None = None, key_prefix: str | None = None
    ) -> None:
        """Send it to a flow run; see `asend_input`."""
        await asend_input(self, flow_run_id, sender, key_prefix)

    def send_to(
        self, flow_run_id: str | UUID, sender: str | None = None, key_prefix: str | None = None
    ) -> None:
        """Send it to a flow run; see `asend_input`."""
        return dispatched(self.asend_to(flow_run_id, sender, key_prefix))

    async def arespond(
        self, run_input: Any, sender: str | None = None, key_prefix: str | None = None
    ) -> None:
        """Send something back to the flow run that sent this.

        Raises:
            RuntimeError: it was not sent by a flow run, or not received at all.
        """
        from_whom = self.metadata.sender
        if from_whom is None or not from_whom.startswith(_SENDER):
            raise RuntimeError("Cannot respond to an input that was not sent by a flow run.")
        await asend_input(run_input, from_whom.removeprefix(_SENDER), sender, key_prefix)

    def respond(self, run_input: Any, sender: str | None = None, key_prefix: str | None = None) -> None:
        """Send something back to the flow run that sent this; see `arespond`."""
        return dispatched(self.arespond(run_input, sender, key_prefix))


def _with_default(cls: type[BaseModel], name: str, value: Any) -> tuple[Any, Any]:
    info = cls.model_fields.get(name)
    if info is None:
        return cast("tuple[Any, Any]", (type(value), value))
    annotation: Any = info.annotation
    rules: list[Any] = info.metadata
    if rules:
        annotation = Annotated[(annotation, *rules)]
    return annotation, Field(default=value, title=info.title, description=info.description)


class AutomaticRunInput(RunInput, Generic[T]):
    """Stands for a plain type.

    Attributes:
        value: the value.
    """

    value: T

    @classmethod
    async def aload(cls, keyset: str, flow_run_id: str | UUID | None = None) -> Any:
        """The value that a pause was answered; see `RunInput.aload`."""
        return (await super().aload(keyset, flow_run_id)).value

    @classmethod
    def receive(
        cls,
        timeout: float | None = 3600,
        poll_interval: float = 10,
        raise_timeout_error: bool = False,
        exclude_keys: Iterable[str] | None = None,
        key_prefix: str | None = None,
        flow_run_id: str | UUID | None = None,
        with_metadata: bool = False,
    ) -> GetAutomaticInputHandler[Any]:
        """Iterate over the values that a run is sent; see `headrace.input.receive_input`."""
        from headrace.input.receiving import GetAutomaticInputHandler

        return GetAutomaticInputHandler(
            cls, key_prefix, timeout, poll_interval, raise_timeout_error, exclude_keys, flow_run_id,
            with_metadata=with_metadata,
        )  # fmt: skip


def run_input_subclass_from_type(type_: Any) -> type[RunInput]:
    """The `RunInput` that stands for `type_`: itself, a model's subclass, or a wrapper of a plain type."""
    if isinstance(type_, type) and get_origin(type_) is None:
        if issubclass(type_, RunInput):
            return type_
        if issubclass(type_, BaseModel):
            model: Any = create_model(f"{type_.__name__}RunInput", __base__=(RunInput, type_))
            return cast("type[RunInput]", model)
    # What is sent as a list is received as list[int]: the name leaves the items out.
    name = str(getattr(cast("Any", type_), "__name__", "")).lower()
    wrapper: Any = create_model(
        f"{name}AutomaticRunInput", __base__=AutomaticRunInput, **cast("Any", {"value": (type_, ...)})
    )
    return cast("type[RunInput]", wrapper)


def schema_text(input_type: type[RunInput]) -> str:
    """The JSON Schema of what is asked for."""
    return json.dumps(input_type.model_json_schema())


def default_key_prefix(input_type: type[RunInput]) -> str:
    """What the keys of inputs of this type begin with, unless somebody says otherwise."""
    return f"{input_type.__name__.lower()}-auto"


async def asend_input(
    run_input: Any, flow_run_id: str | UUID, sender: str | None = None, key_prefix: str | None = None
) -> None:
    """Send something to a flow run.

    Args:
        run_input: a `RunInput`, another pydantic model, or a plain value.
        flow_run_id: the run.
        sender: who sends it; default: the flow run around the call.
        key_prefix: for a receiver that waits for this prefix; default: by the type of `run_input`.

    Raises:
        ObjectNotFound: there is no such run.
        ServerUnavailable: there is no server, and none can be started.
    """
    said = _as_run_input(run_input)
    if sender is None:
        context = FlowRunContext.get()
        sender = None if context is None else f"{_SENDER}{context.flow_run.id}"
    key = f"{key_prefix or default_key_prefix(type(said))}-{uuid4()}"
    await acreate_flow_run_input(key, said.model_dump(mode="json", by_alias=True), flow_run_id, sender)


def send_input(
    run_input: Any, flow_run_id: str | UUID, sender: str | None = None, key_prefix: str | None = None
) -> None:
    """Send something to a flow run; see `asend_input`."""
    return dispatched(asend_input(run_input, flow_run_id, sender, key_prefix))


def _as_run_input(run_input: Any) -> RunInput:
    if isinstance(run_input, RunInput):
        return run_input
    input_type = run_input_subclass_from_type(type(run_input))
    if isinstance(run_input, BaseModel):
        return input_type.model_validate(run_input.model_dump())
    return input_type.model_validate({"value": run_input})
