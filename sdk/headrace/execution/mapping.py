"""What `map` spreads, and over what: from the arguments of one `map` to the arguments of each call."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from headrace.exceptions import MappingLengthMismatch, MappingMissingIterable
from headrace.futures import HeadraceFuture
from headrace.states import State
from headrace.upstreams import collect_inputs, resolve_inputs
from headrace.utilities.annotations import BaseAnnotation, allow_failure, quote, unmapped

__all__ = ["Spread", "spread"]

_WHOLE: Final = (str, bytes, bytearray, io.IOBase)
"""Can be iterated over, and yet is one value to most people."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The calls of one `map`.

    Attributes:
        calls: the arguments of each, by parameter name, without defaults; made one at a time.
        edges: for each parameter, the runs whose results were spread.
    """

    calls: Iterator[dict[str, Any]]
    edges: dict[str, list[str]]


@dataclass(slots=True)
class _Argument:
    """One argument of a `map`.

    Attributes:
        name: its parameter.
        key: which of the arguments that `*args` or `**kwargs` has taken.
        value: what was given.
        items: one value per call; None when every call gets `value`.
    """

    name: str
    key: int | str | None
    value: Any
    items: list[Any] | None = None

    @property
    def label(self) -> str:
        return self.name if self.key is None else f"{self.name}[{self.key!r}]"


def spread(signature: inspect.Signature, parameters: Mapping[str, Any]) -> Spread:
    """Lay the arguments of a `map` out into calls.

    A future or state is waited for, and its result is spread; futures inside an iterable stay, one per call.
    Strings, bytes, open files and what cannot be iterated over are the same for each call, as is anything
    marked `unmapped`. Each of `*args` and `**kwargs` is an argument of its own.

    Args:
        signature: of the function.
        parameters: the arguments that were given; defaults, which are never spread, are not among them.

    Raises:
        MappingMissingIterable: nothing can be spread.
        MappingLengthMismatch: what is spread has different lengths.
        UpstreamTaskError: an upstream that should have been spread did not complete.
    """
    arguments = list(_arguments(signature, parameters))
    edges: dict[str, list[str]] = {}
    for argument in arguments:
        if isinstance(argument.value, (HeadraceFuture, State)):
            _await_result(argument, edges)
        _lay_out(argument)
    count = _common_length(arguments, parameters)
    return Spread((_call(signature, arguments, i) for i in range(count)), edges)


def _arguments(signature: inspect.Signature, parameters: Mapping[str, Any]) -> Iterator[_Argument]:
    for name, value in parameters.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from (_Argument(name, i, item) for i, item in enumerate(value))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from (_Argument(name, key, item) for key, item in value.items())
        else:
            yield _Argument(name, None, value)


def _await_result(argument: _Argument, edges: dict[str, list[str]]) -> None:
    whole = {argument.name: argument.value}
    inputs = collect_inputs(whole)
    for future in inputs.waits_for:
        future.join()
    for name, run_ids in inputs.edges.items():
        edges.setdefault(name, []).extend(run_ids)
    argument.value = resolve_inputs(whole)[argument.name]


def _lay_out(argument: _Argument) -> None:
    value, rewrap = _unwrapped(argument.value)
    if isinstance(value, unmapped):
        argument.value = rewrap(value.unwrap())
    elif _is_spread(value):
        argument.items = [rewrap(item) for item in value]


def _unwrapped(value: Any) -> tuple[Any, Callable[[Any], Any]]:
    """What an annotation is round, and how to put it back round each item."""
    if isinstance(value, (allow_failure, quote)):
        annotation = cast("BaseAnnotation[Any]", value)
        return annotation.value, annotation.rewrap
    return value, lambda item: item


def _is_spread(value: Any) -> bool:
    if isinstance(value, _WHOLE):
        return False
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _common_length(arguments: Iterable[_Argument], parameters: Mapping[str, Any]) -> int:
    lengths = {argument.label: len(argument.items) for argument in arguments if argument.items is not None}
    if not lengths:
        raise MappingMissingIterable(
            "No iterable parameters were received. Parameters for map must include at least one iterable."
            f" Parameters: {dict(parameters)}"
        )
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatch(
            "Received iterable parameters with different lengths. Parameters for map must all be the same"
            f" length. Got lengths: {lengths}"
        )
    return next(iter(lengths.values()))


def _call(signature: inspect.Signature, arguments: Iterable[_Argument], index: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for argument in arguments:
        value = argument.value if argument.items is None else argument.items[index]
        if argument.key is None:
            parameters[argument.name] = value
        elif isinstance(argument.key, int):
            parameters[argument.name] = (*parameters.get(argument.name, ()), value)
        else:
            parameters.setdefault(argument.name, {})[argument.key] = value
    return parameters
