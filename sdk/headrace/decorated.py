"""What flows and tasks have in common: an object that stands for a function and behaves like it."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from types import CodeType
from typing import Any, Final, Generic, ParamSpec, Self, cast

from headrace.core.budget import UNTIL_DEADLINE
from headrace.exceptions import InvalidNameError
from headrace.parameters import Binder
from headrace.utilities.typevars import TypeVar

__all__ = [
    "UNSET",
    "Decorated",
    "Hook",
    "RunName",
    "callable_name",
    "check_name",
    "checked_run_name",
    "chosen",
    "code_of",
    "count_of_retries",
    "hook_list",
    "positive_timeout",
    "retry_deadline",
]

P = ParamSpec("P")
R = TypeVar("R", default=Any, covariant=True)

Hook = Callable[..., Any]
RunName = str | Callable[..., str]
"""A format string over the parameters, or a function that gives the name."""
_BANNED: Final = ("/", "%", "&", ">", "<")


class _Unset:
    """The value of an option that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<not given>"

    def __reduce__(self) -> str:
        # The same object in every process.
        return "UNSET"


UNSET: Final[Any] = _Unset()


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
        self._descriptor: Any = None
        if isinstance(fn, (classmethod, staticmethod)):
            self._descriptor = fn
            fn = self._descriptor.__func__
        if not callable(fn):
            raise TypeError("'fn' must be callable")
        self.fn = cast("Callable[P, R]", fn)
        self._binds = self._descriptor is None and hasattr(type(fn), "__get__")
        inner = _innermost(fn)
        self.isgenerator = inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)
        self.is_coroutine = inspect.iscoroutinefunction(inner)
        self.isasync = self.is_coroutine or inspect.isasyncgenfunction(inner)
        self.binder = Binder(fn)
        self._bound_binder: Binder | None = None
        self.__wrapped__ = fn
        # With the last three, `inspect.iscoroutinefunction` and others take the object for a function.
        for name in (*functools.WRAPPER_ASSIGNMENTS, "__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(fn, name):
                setattr(self, name, getattr(fn, name))

    @property
    def __signature__(self) -> inspect.Signature:
        return self.binder.signature

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        descriptor = self._descriptor
        if isinstance(cast("object", descriptor), classmethod):
            return self._bound(descriptor.__get__(instance, owner))
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

    @property
    def _undecorated(self) -> Any:
        """What to decorate again for the same function with other options."""
        return self.fn if self._descriptor is None else self._descriptor

    def again(self, fn: Any, options: Mapping[str, Any]) -> Self:
        """Another one of this kind, of another function or with other options."""
        kind: Any = type(self)
        other: Self = kind(fn, **options)
        return other

    def without_body(self) -> Self:
        """A copy for another process, of all but the function, which may be called in this process only."""
        copied = copy.copy(self)
        copied._adopt(_elsewhere)
        return copied

    def __copy__(self) -> Self:
        copied: Self = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce__(self) -> str | tuple[Any, ...]:
        qualname = getattr(self, "__qualname__", "")
        if self.__module__ != "__main__" and _lookup(self.__module__, qualname) is self:
            return qualname
        return (_restored, (type(self), vars(self).copy()))

    def __headrace_key__(self) -> Any:
        """As part of an argument it counts by its function; options such as retries do not."""
        return self.fn

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _elsewhere() -> None:
    raise RuntimeError("This function could not be pickled: it can be called in its own process only.")


def _restored(cls: type[Any], attributes: dict[str, Any]) -> Any:
    restored: Any = object.__new__(cls)
    restored.__dict__.update(attributes)
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


def hook_list(option: str, hooks: Any, decorator: str) -> list[Hook]:
    """The hooks of an option.

    Raises:
        TypeError: not a list, or something in it cannot be called.
    """
    if hooks is None:
        return []
    example = f"Please provide a list of hooks to '{option}':\n\n@{decorator}({option}=[hook1, hook2])"
    if callable(hooks) or not isinstance(hooks, Iterable) or isinstance(hooks, str):
        raise TypeError(f"Expected iterable for '{option}'; got {type(hooks).__name__} instead. {example}")
    listed: list[Any] = [*hooks]
    for hook in listed:
        if not callable(hook):
            raise TypeError(f"Expected callables in '{option}'; got {type(hook).__name__} instead. {example}")
    return listed


def positive_timeout(seconds: Any) -> float | None:
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


def count_of_retries(retries: Any, default: int, deadline_seconds: float | None) -> int:
    """The number of retries; `UNTIL_DEADLINE` where only a deadline ends them.

    Args:
        retries: as it was given; None: until the deadline, where there is one, else `default`.
        default: what the settings say.
        deadline_seconds: the budget of time over all attempts; None for none.

    Raises:
        ValueError: it is negative, and not `UNTIL_DEADLINE` with a deadline.
        TypeError: it is no integer.
    """
    if retries is None:
        return default if deadline_seconds is None else UNTIL_DEADLINE
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"'retries' must be an integer, not {retries!r}")
    if retries == UNTIL_DEADLINE and deadline_seconds is None:
        raise ValueError(f"retries={retries} means until the deadline: give 'retry_deadline_seconds', too")
    if retries < 0 and retries != UNTIL_DEADLINE:
        raise ValueError(f"'retries' must not be negative, got {retries}")
    return retries


def retry_deadline(seconds: Any) -> float | None:
    """The option `retry_deadline_seconds`; None for none.

    Raises:
        ValueError: it is not positive and finite.
        TypeError: it is no number.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"'retry_deadline_seconds' must be a number of seconds, not {seconds!r}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"'retry_deadline_seconds' must be positive and finite, got {seconds!r}")
    return float(seconds)


def checked_run_name(option: str, template: RunName | None) -> RunName | None:
    """The option `flow_run_name` or `task_run_name`.

    Raises:
        TypeError: neither a string nor callable.
    """
    if template is not None and not isinstance(template, str) and not callable(template):
        raise TypeError(f"Expected string or callable for '{option}'; got {type(template).__name__} instead.")
    return template


def chosen(options: dict[str, tuple[Any, Any]], not_given: object) -> dict[str, Any]:
    """Options of `with_options`: each as it was given, or as it is when it was `not_given`.

    Args:
        options: what was given and what is, by name.
        not_given: what stands for an option that was not given.
    """
    return {name: held if given is not_given else given for name, (given, held) in options.items()}
