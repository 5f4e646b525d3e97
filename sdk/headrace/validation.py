"""Arguments of flows against annotations: checked and coerced by pydantic, one parameter at a time.

One at a time, so that a parameter may have any name (`copy`, `schema`, `_private`), and so that a type that
pydantic cannot handle costs its own parameter the check, not the whole flow.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import is_
from typing import Annotated, Any, Final, cast

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from headrace.annotations import resolved_annotations
from headrace.exceptions import ParameterTypeError

__all__ = ["Validator"]

_ARBITRARY: Final = ConfigDict(arbitrary_types_allowed=True)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_EMPTY: Final = inspect.Parameter.empty


class Validator:
    """Checks arguments against the annotations of one function.

    Args:
        fn: the function.
        signature: its signature as callers see it.
    """

    def __init__(self, fn: Callable[..., Any], signature: inspect.Signature) -> None:
        self._fn = fn
        self._signature = signature
        annotations = resolved_annotations(fn)
        self._types: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            annotation = annotations.get(name, parameter.annotation)
            if isinstance(parameter.default, FieldInfo):
                annotation = Annotated[Any if annotation is _EMPTY else annotation, parameter.default]
            if annotation is not _EMPTY and annotation is not Any and parameter.kind not in _VARIADIC:
                self._types[name] = annotation
        self._adapters = {name: _adapter(annotation) for name, annotation in self._types.items()}

    def validate(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, coerced to their annotations.

        Raises:
            ParameterTypeError: some do not fit; it names each one.
        """
        valid = dict(parameters)
        bad: list[str] = []
        for name, adapter in self._adapters.items():
            if adapter is None or name not in valid:
                continue
            try:
                valid[name] = _same(valid[name], adapter.validate_python(valid[name]))
            except ValidationError as error:
                bad += [_line(name, detail["loc"], detail["msg"]) for detail in error.errors()]
            except PydanticUserError as error:
                bad.append(_line(name, (), str(error)))
        if bad:
            lines = "\n - ".join(bad)
            raise ParameterTypeError(f"Flow run received invalid parameters:\n - {lines}")
        return valid

    def schema(self) -> dict[str, Any]:
        """JSON schema of the parameters, with their order and defaults."""
        properties: dict[str, Any] = {}
        definitions: dict[str, Any] = {}
        required: list[str] = []
        described = _described(inspect.getdoc(self._fn) or "")
        for position, (name, parameter) in enumerate(self._signature.parameters.items()):
            own = self._schema_of(name)
            definitions.update(own.pop("$defs", {}))
            own.setdefault("title", name)
            own["position"] = position
            if name in described:
                own.setdefault("description", described[name])
            default = _default(parameter)
            if default is _EMPTY:
                required += [name] if parameter.kind not in _VARIADIC else []
            else:
                own["default"] = to_jsonable_python(default, fallback=_type_name)
            properties[name] = own
        schema: dict[str, Any] = {"title": "Parameters", "type": "object", "properties": properties}
        if required:
            schema["required"] = required
        if definitions:
            schema["definitions"] = definitions
        return schema

    def _schema_of(self, name: str) -> dict[str, Any]:
        adapter = self._adapters.get(name)
        if adapter is None:
            return {}
        try:
            return adapter.json_schema(ref_template="#/definitions/{model}")
        except (PydanticInvalidForJsonSchema, PydanticUserError):
            return {}


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"


def _line(name: str, location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join([name, *map(str, location)])}: {message}"


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """None for a type that pydantic can neither handle nor check by `isinstance`."""
    try:
        return TypeAdapter(annotation, config=_ARBITRARY)
    except PydanticUndefinedAnnotation:
        return None
    except (PydanticSchemaGenerationError, PydanticUserError):
        pass
    try:
        # Models, dataclasses and typed dictionaries have a configuration of their own.
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError, PydanticUndefinedAnnotation):
        return None


def _same(given: Any, valid: Any) -> Any:
    """`given` itself where validation has changed nothing in it but the container."""
    return given if given is not valid and _is_equal_container(given, valid) else valid


def _is_equal_container(given: Any, valid: Any) -> bool:
    if type(given) is not type(valid):
        return False
    if isinstance(given, (list, tuple)):
        a, b = cast("list[Any]", given), cast("list[Any]", valid)
        return len(a) == len(b) and (all(map(is_, a, b)) or all(map(_is_same_value, a, b)))
    if isinstance(given, dict):
        old, new = cast("dict[Any, Any]", given), cast("dict[Any, Any]", valid)
        return (
            len(old) == len(new)
            and all(map(is_, old, new))
            and all(map(_is_same_value, old.values(), new.values()))
        )
    if isinstance(given, (set, frozenset)):
        before, after = cast("set[Any]", given), cast("set[Any]", valid)
        ids = {id(item) for item in after}
        return len(before) == len(after) and all(id(item) in ids for item in before)
    return False


def _is_same_value(given: Any, valid: Any) -> bool:
    return given is valid or _is_equal_container(given, valid)


def _default(parameter: inspect.Parameter) -> Any:
    if isinstance(parameter.default, FieldInfo):
        field = parameter.default
        return _EMPTY if field.is_required() else field.get_default(call_default_factory=True)
    return parameter.default


def _described(doc: str) -> dict[str, str]:
    """What the `Args:` section of a Google-style docstring says about each parameter."""
    lines = iter(doc.splitlines())
    if not any(line.strip() in ("Args:", "Arguments:", "Parameters:") for line in lines):
        return {}
    described: dict[str, str] = {}
    indent, name = None, ""
    for line in lines:
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if not text:
            continue
        indent = depth if indent is None else indent
        if depth < indent or not depth:
            break
        if depth == indent and ":" in text:
            name, _, text = text.partition(":")
            name = name.partition("(")[0].strip().lstrip("*")
            described[name] = text.strip()
        elif name:
            described[name] += f" {text}"
    return described
