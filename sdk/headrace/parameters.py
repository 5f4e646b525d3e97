"""Arguments of flows and tasks: bound to parameter names, and turned back into a call.

What can be worked out from the signature is worked out once, at decoration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.exceptions import ParameterBindError, ReservedArgumentError

__all__ = ["RESERVED", "Binder"]

RESERVED: Final = ("return_state", "wait_for")
"""Keywords of every call of a flow or task, which their functions therefore cannot have."""

_EMPTY: Final = inspect.Parameter.empty
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Binder:
    """Binds arguments to the parameters of one function.

    Args:
        fn: the function; its signature follows `__wrapped__`.
        signature: use this one instead.

    Attributes:
        signature: the function's signature.
        names: the parameters, in their order.

    Raises:
        ReservedArgumentError: a parameter has a name that calls need for themselves.
    """

    __slots__ = ("_defaults", "_fn", "_keywords_only", "_positional", "_simple", "names", "signature")

    def __init__(self, fn: Callable[..., Any], signature: inspect.Signature | None = None) -> None:
        self._fn = fn
        self.signature = signature or _signature(fn)
        parameters = self.signature.parameters
        self.names = tuple(parameters)
        for name in RESERVED:
            if name in parameters:
                raise ReservedArgumentError(
                    f"'{name}' is a reserved argument name and cannot be a parameter of "
                    f"'{getattr(fn, '__name__', fn)}'. Rename the parameter."
                )
        self._positional = tuple(name for name, p in parameters.items() if p.kind in _POSITIONAL)
        self._keywords_only = tuple(
            name for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
        )
        self._simple = not any(
            p.kind in _VARIADIC or p.kind is inspect.Parameter.POSITIONAL_ONLY for p in parameters.values()
        )
        self._defaults = {
            name: _default_of(p.default) for name, p in parameters.items() if p.default is not _EMPTY
        }
        if _wants_keywords(fn, self._positional):
            self._positional, self._keywords_only = (), self._positional + self._keywords_only

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name, defaults filled in, in the order of the signature.

        Raises:
            ParameterBindError: they do not fit the signature.
        """
        names = self.names
        if self._simple and not kwargs and len(args) == len(names) == len(self._positional):
            return dict(zip(names, args, strict=True))
        return self._bind_any(args, kwargs)

    def _bind_any(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self.complete(self.bind_given(args, kwargs))

    def bind_given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Like `bind`, without the defaults: what `complete` adds to.

        Raises:
            ParameterBindError: the arguments do not fit the signature.
        """
        try:
            return self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ParameterBindError.from_bind_failure(self._fn, error, args, kwargs) from None

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`given`, which `bind_given` has checked, with the defaults filled in, in the signature's order."""
        if len(given) == len(self.names):
            return dict(given)
        parameters: dict[str, Any] = {}
        for name in self.names:
            if name in given:
                parameters[name] = given[name]
            elif name in self._defaults:
                parameters[name] = self._defaults[name]
            else:
                variadic = self.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                parameters[name] = () if variadic else {}
        return parameters

    def arguments(self, parameters: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments with which to call the function."""
        if self._simple:
            return (
                [parameters[name] for name in self._positional],
                {name: parameters[name] for name in self._keywords_only} if self._keywords_only else {},
            )
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(parameters[name])
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(parameters[name])
            elif parameter.kind in _POSITIONAL:
                args.append(parameters[name])
            else:
                kwargs[name] = parameters[name]
        return args, kwargs

    def without_first(self) -> Binder:
        """For the same function as a method: the first parameter is bound already."""
        rest = list(self.signature.parameters.values())[1:]
        return Binder(self._fn, self.signature.replace(parameters=rest))


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:
        # Some builtins tell nothing about their parameters: they take what they are given.
        anything = [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]
        return inspect.Signature([*anything, inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)])


def _default_of(default: Any) -> Any:
    """The value behind a default; `pydantic.Field(default=...)` stands for a value too."""
    # Told by its name, so that nothing imports pydantic for the sake of a check.
    if type(default).__name__ == "FieldInfo" and hasattr(default, "get_default"):
        return default.get_default(call_default_factory=True)
    return default


def _wants_keywords(fn: Callable[..., Any], positional: tuple[str, ...]) -> bool:
    """Whether a decorator under ours takes keywords only, although the function below it does not."""
    if not hasattr(fn, "__wrapped__") or not positional:
        return False
    try:
        outer = inspect.signature(fn, follow_wrapped=False).parameters.values()
    except ValueError:  # a wrapper in C, such as that of `functools.lru_cache`, hands everything on
        return False
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in outer):
        return False
    return sum(p.kind in _POSITIONAL for p in outer) < len(positional)
