"""What flows and tasks have in common: an object that stands for a function and behaves like it."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, Final, Generic, ParamSpec, Self

from typing_extensions import TypeVar

from headrace.exceptions import InvalidNameError
from headrace.parameters import Binder

__all__ = ["Decorated", "callable_name", "check_name", "hook_list", "positive_timeout"]

P = ParamSpec("P")
R = TypeVar("R", default=Any, covariant=True)

Hook = Callable[..., Any]
_BANNED: Final = ("/", "%", "&", ">", "<")


class Decorated(Generic[P, R]):
    """An object in the place of a function: same name, documentation, signature; callable; a method too.

    Attributes:
        fn: the function itself; calling it makes no run.
        binder: binds arguments to its parameters.
        isasync: whether it is a coroutine function or an async generator function.
        is_coroutine: whether it is a coroutine function.
        isgenerator: whether it is a generator function of either kind.
    """

    fn: Callable[P, R]
    binder: Binder
    isasync: bool
    is_coroutine: bool
    isgenerator: bool
    name: str

    def _adopt(self, fn: Any) -> None:
        """Take the place of `fn`.

        Raises:
            TypeError: it cannot be called.
            ReservedArgumentError: one of its parameters has a name that calls need for themselves.
        """
        # Above a classmethod or staticmethod: the function is below, the binding is the descriptor's.
        self._descriptor = fn if isinstance(fn, (classmethod, staticmethod)) else None
        if self._descriptor is not None:
            fn = self._descriptor.__func__
        if not callable(fn):
            raise TypeError("'fn' must be callable")
        self.fn = fn
        self._binds = self._descriptor is None and hasattr(type(fn), "__get__")
        inner = _innermost(fn)
        self.isgenerator = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
        self.is_coroutine = inspect.iscoroutinefunction(inner)
        self.isasync = self.is_coroutine or inspect.isasyncgenfunction(inner)
        self.binder = Binder(fn)
        self._bound_binder: Binder | None = None
        functools.update_wrapper(self, fn, updated=())
        # With these, `inspect.iscoroutinefunction` and others take the object for the function it is.
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(fn, name):
                setattr(self, name, getattr(fn, name))

    @property
    def __signature__(self) -> inspect.Signature:
        return self.binder.signature

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        if isinstance(self._descriptor, classmethod):
            return self._bound(self._descriptor.__get__(instance, owner))
        if instance is None or not self._binds:
            return self
        return self._bound(self.fn.__get__(instance, owner))  # type: ignore[attr-defined]

    def _bound(self, method: Any) -> Self:
        """A copy for one instance or class; the parameters are those after the first."""
        if self._bound_binder is None:
            self._bound_binder = self.binder.without_first()
        bound = copy.copy(self)
        bound.fn = method
        bound.binder = self._bound_binder
        bound._binds = False
        bound._descriptor = None
        return bound

    def _again(self, cls: type[Self], **options: Any) -> Self:
        """The same function with other options, bound to the same instance if it is a method."""
        again = cls(self.fn if self._descriptor is None else self._descriptor, **options)  # type: ignore[call-arg]
        if again.binder.signature != self.binder.signature:
            again.binder = self.binder
        return again

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.__module__ != "__main__" and _lookup(self.__module__, self.__qualname__) is self:
            return self.__qualname__
        return (_restored, (type(self), vars(self).copy()))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _restored(cls: type[Any], attributes: dict[str, Any]) -> Any:
    restored = cls.__new__(cls)
    vars(restored).update(attributes)
    return restored


def _lookup(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _innermost(fn: Any) -> Any:
    """The function whose kind is that of `fn`: under partials, or the `__call__` of an object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isfunction(fn) or inspect.ismethod(fn) or inspect.isbuiltin(fn) or inspect.isclass(fn):
        return fn
    return fn.__call__


def callable_name(fn: Any) -> str:
    """The function's name; for a partial that of what it calls, for an object that of its class."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def code_of(fn: Any) -> CodeType | None:
    """The code that runs when `fn` is called, where there is any in Python."""
    inner = inspect.unwrap(_innermost(fn))
    code = getattr(getattr(inner, "__func__", inner), "__code__", None)
    return code if isinstance(code, CodeType) else None


def check_name(name: str) -> str:
    """`name`, if it holds no character that would break a path or a page.

    Raises:
        InvalidNameError: it does.
    """
    for character in _BANNED:
        if character in name:
            raise InvalidNameError(
                f"Name {name!r} contains an invalid character: none of {' '.join(_BANNED)} may be in it."
            )
    return name


def hook_list(option: str, hooks: Iterable[Hook] | None, decorator: str) -> list[Hook]:
    """The hooks of an option.

    Raises:
        TypeError: not a list, or something in it cannot be called.
    """
    if hooks is None:
        return []
    example = f"Please provide a list of hooks to '{option}':\n\n@{decorator}({option}=[hook1, hook2])"
    if callable(hooks) or not isinstance(hooks, Iterable) or isinstance(hooks, str):
        raise TypeError(f"Expected iterable for '{option}'; got {type(hooks).__name__} instead. {example}")
    listed = list(hooks)
    for hook in listed:
        if not callable(hook):
            raise TypeError(f"Expected callables in '{option}'; got {type(hook).__name__} instead. {example}")
    return listed


def positive_timeout(seconds: float | None) -> float | None:
    """A time limit in seconds; None for none.

    Raises:
        ValueError: it is negative.
        TypeError: it is no number.
    """
    if not seconds:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"'timeout_seconds' must be a number of seconds, not {seconds!r}")
    if seconds < 0:
        raise ValueError(f"'timeout_seconds' must not be negative, got {seconds!r}")
    return float(seconds)
