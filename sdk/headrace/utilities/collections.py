"""One traversal of the values that authors pass around.

Entered are lists, tuples (named ones too), sets, frozen sets, dictionaries (keys and values), dataclass
instances, pydantic models and annotations, subclasses included. Not entered are strings, iterators,
generators, mocks and all other objects. A container in which nothing is replaced is handed back itself,
never a copy; one in which something is replaced becomes a new one of the same type.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable
from operator import is_
from typing import Any, Final, Protocol, TypeAlias, cast

from headrace.utilities.annotations import BaseAnnotation, allow_failure, opaque, quote

__all__ = ["Traversal"]

_KNOWN_TYPES_MAX: Final = 4096

Substitute: TypeAlias = Callable[[Any], Any]

_new_tuple: Callable[[type[Any], list[Any]], Any] = cast("Any", tuple).__new__
_new_frozenset: Callable[[type[Any], list[Any]], Any] = cast("Any", frozenset).__new__


class _Kind(Protocol):
    """How a container of one type is looked into and made anew."""

    def members(self, value: Any) -> Collection[Any]: ...

    def rebuild(self, value: Any, substitute: Substitute) -> Any: ...


class _Lists:
    def __init__(self, cls: type[list[Any]]) -> None:
        self._rebuilds_as_list = getattr(cls, "__rebuilds_as__", cls) is list

    def members(self, value: list[Any]) -> Collection[Any]:
        return value

    def rebuild(self, value: list[Any], substitute: Substitute) -> Any:
        items = [substitute(item) for item in value]
        if all(map(is_, items, value)):
            return value
        if self._rebuilds_as_list:
            return items
        made = copy.copy(value)
        made[:] = items
        return made


class _Tuples:
    def __init__(self, cls: type[tuple[Any, ...]]) -> None:
        self._cls = cls

    def members(self, value: tuple[Any, ...]) -> Collection[Any]:
        return value

    def rebuild(self, value: tuple[Any, ...], substitute: Substitute) -> Any:
        items = [substitute(item) for item in value]
        if all(map(is_, items, value)):
            return value
        # Past the `__new__` of named tuples and other subclasses, which may want other arguments.
        made: Any = _new_tuple(self._cls, items)
        if hasattr(value, "__dict__"):
            made.__dict__.update(value.__dict__)
        return made


class _Sets:
    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls
        self._frozen = issubclass(cls, frozenset)

    def members(self, value: Collection[Any]) -> Collection[Any]:
        return value

    def rebuild(self, value: Any, substitute: Substitute) -> Any:
        old = list(value)
        items = [substitute(item) for item in old]
        if all(map(is_, items, old)):
            return value
        if self._frozen:
            return _new_frozenset(self._cls, items)
        made = copy.copy(value)
        made.clear()
        made.update(items)
        return made


class _Dicts:
    def members(self, value: dict[Any, Any]) -> Collection[Any]:
        return (*value.keys(), *value.values())

    def rebuild(self, value: dict[Any, Any], substitute: Substitute) -> Any:
        pairs = [(key, item, substitute(key), substitute(item)) for key, item in value.items()]
        if all(key is new_key and item is new_item for key, item, new_key, new_item in pairs):
            return value
        made = copy.copy(value)
        if any(key is not new_key for key, _, new_key, _ in pairs):
            made.clear()
        for _, _, new_key, new_item in pairs:
            made[new_key] = new_item
        return made


class _Dataclasses:
    def __init__(self, cls: type[Any]) -> None:
        self._names = [field.name for field in dataclasses.fields(cls)]

    def _items(self, value: Any) -> list[tuple[str, Any]]:
        # A field with `init=False` may never have been set.
        return [(name, getattr(value, name)) for name in self._names if hasattr(value, name)]

    def members(self, value: Any) -> Collection[Any]:
        return [item for _, item in self._items(value)]

    def rebuild(self, value: Any, substitute: Substitute) -> Any:
        changed = _changed(self._items(value), substitute)
        if not changed:
            return value
        made = copy.copy(value)
        for name, item in changed.items():
            # Works on frozen ones, and runs neither `__init__` nor `__post_init__` again.
            object.__setattr__(made, name, item)
        return made


class _Models:
    """Pydantic models: fields, extra fields and private attributes."""

    def members(self, value: Any) -> Collection[Any]:
        return [item for part in self._parts(value) for item in part.values()]

    def rebuild(self, value: Any, substitute: Substitute) -> Any:
        changed = [_changed(part.items(), substitute) for part in self._parts(value)]
        if not any(changed):
            return value
        made = value.model_copy()
        for part, items in zip(self._parts(made), changed, strict=True):
            # Past validation, so that a frozen model can be copied too.
            part.update(items)
        return made

    def _parts(self, model: Any) -> list[dict[str, Any]]:
        parts = (model.__dict__, model.__pydantic_extra__, model.__pydantic_private__)
        return [part or {} for part in parts]


class _Annotations:
    def members(self, value: BaseAnnotation[Any]) -> Collection[Any]:
        return (value.value,)

    def rebuild(self, value: BaseAnnotation[Any], substitute: Substitute) -> Any:
        raise AssertionError("annotations are treated by the traversal itself")


def _changed(items: Iterable[tuple[str, Any]], substitute: Substitute) -> dict[str, Any]:
    replaced = ((name, item, substitute(item)) for name, item in items)
    return {name: new for name, item, new in replaced if new is not item}


class _Whole:
    """What is not entered: an atom, or a leaf."""

    def members(self, value: Any) -> Collection[Any]:
        return ()

    def rebuild(self, value: Any, substitute: Substitute) -> Any:
        return value


_ATOM: Final = _Whole()
_LEAF: Final = _Whole()
_DICTS: Final = _Dicts()
_MODELS: Final = _Models()
_ANNOTATIONS: Final = _Annotations()


class Traversal:
    """Finds and replaces the instances of some classes, the *leaves*, at any depth of a value.

    Safe to use from several threads at once.

    Args:
        leaves: the classes looked for; they are never entered, whatever else they are.
        hidden_by_opaque: those among them that are left alone when marked `opaque`.
    """

    def __init__(self, *leaves: type, hidden_by_opaque: tuple[type, ...] = ()) -> None:
        self._leaves = leaves
        self._hidden = hidden_by_opaque
        self._kinds: dict[type, _Kind] = {}
        self._atoms: set[type] = set()

    def holds_none(self, values: Iterable[Any]) -> bool:
        """Whether the types of `values` tell that they hold no leaf, no container and no annotation."""
        types = set(map(type, values))
        return types <= self._atoms or all(map(self._is_atom, types))

    def find(self, value: Any) -> list[Any]:
        """Every leaf in `value`, each once, in the order met. Quoted values hold none.

        Takes any depth of nesting and cycles; never calls user code beyond iterating over containers.
        """
        found: dict[int, Any] = {}
        seen: set[int] = set()
        pending = [value]
        while pending:
            item = pending.pop()
            kind = self.kind_of(item)
            if kind is _LEAF:
                found.setdefault(id(item), item)
            elif kind is not _ATOM and id(item) not in seen:
                seen.add(id(item))
                pending.extend(reversed(self._to_visit(kind, item)))
        return list(found.values())

    def substitute(
        self, value: Any, replace: Callable[[Any, bool], Any], *, keep_annotations: bool = False
    ) -> Any:
        """`value` with every leaf replaced.

        Args:
            value: what to go through. A cycle is followed once; its way back leads to the original.
            replace: called once for each leaf, with the leaf and whether it stands inside
                `allow_failure`; gives what takes its place, which is not gone through again.
            keep_annotations: keep annotations round what they mark; else they are taken off.

        Returns:
            `value` itself when nothing had to be replaced.
        """
        if type(value) in self._atoms:
            return value
        return _Substitution(self, replace, keep_annotations).of(value)

    def _is_atom(self, cls: type[Any]) -> bool:
        return (self._kinds.get(cls) or self._learn(cls)) is _ATOM

    def _learn(self, cls: type[Any]) -> _Kind:
        if len(self._kinds) >= _KNOWN_TYPES_MAX:
            # Classes made on the fly, such as those of mocks, must not pile up for ever.
            self._kinds, self._atoms = {}, set()
        kind = _LEAF if issubclass(cls, self._leaves) else _kind_of(cls)
        self._kinds[cls] = kind
        if kind is _ATOM:
            self._atoms.add(cls)
        return kind

    def _to_visit(self, kind: _Kind, value: Any) -> list[Any]:
        """The members of a container that may hold a leaf."""
        if kind is _ANNOTATIONS and not self.enters(value):
            return []
        members = kind.members(value)
        if self.holds_none(members):
            return []
        return [member for member in members if type(member) not in self._atoms]

    def enters(self, annotation: BaseAnnotation[Any]) -> bool:
        """Whether the annotation lets the traversal look at its value."""
        cls: type = type(annotation)
        if issubclass(cls, opaque):
            return self.kind_of(annotation.value) is _LEAF and not isinstance(annotation.value, self._hidden)
        return not issubclass(cls, quote)

    def kind_of(self, value: object) -> _Kind:
        """How values of that type are looked into."""
        cls = type(value)
        return self._kinds.get(cls) or self._learn(cls)


class _Substitution:
    """One run of `Traversal.substitute`."""

    def __init__(self, traversal: Traversal, replace: Callable[[Any, bool], Any], keep: bool) -> None:
        self._traversal = traversal
        self._replace = replace
        self._keep = keep
        self._allow = False
        self._done: dict[tuple[int, bool], Any] = {}

    def of(self, value: Any) -> Any:
        kind = self._traversal.kind_of(value)
        if kind is _ATOM:
            return value
        key = (id(value), self._allow)
        if key not in self._done:
            self._done[key] = value
            self._done[key] = self._made(kind, value)
        return self._done[key]

    def _made(self, kind: _Kind, value: Any) -> Any:
        if kind is _LEAF:
            return self._replace(value, self._allow)
        if kind is _ANNOTATIONS:
            return self._annotated(value)
        if self._traversal.holds_none(kind.members(value)):
            return value
        return kind.rebuild(value, self.of)

    def _annotated(self, value: BaseAnnotation[Any]) -> Any:
        inner = value.value
        if self._traversal.enters(value):
            cls: type[Any] = type(value)
            outer, self._allow = self._allow, self._allow or issubclass(cls, allow_failure)
            try:
                inner = self.of(inner)
            finally:
                self._allow = outer
        if not self._keep:
            return inner
        return value if inner is value.value else value.rewrap(inner)


_CONTAINERS: Final[list[tuple[type[Any], Callable[[Any], _Kind]]]] = [
    (list, _Lists),
    (tuple, _Tuples),
    (dict, lambda _: _DICTS),
    (set, _Sets),
    (frozenset, _Sets),
    (BaseAnnotation, lambda _: _ANNOTATIONS),
]


def _kind_of(cls: type[Any]) -> _Kind:
    for base, make in _CONTAINERS:
        if issubclass(cls, base):
            return make(cls)
    if hasattr(cls, "__dataclass_fields__"):
        return _Dataclasses(cls)
    # Told by its marks, so that nothing imports pydantic for the sake of a check.
    if hasattr(cls, "__pydantic_fields__") and hasattr(cls, "model_copy"):
        return _MODELS
    return _ATOM
