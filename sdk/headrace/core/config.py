"""Settings from several sources, the first one that has a value winning.

A settings class is a frozen dataclass whose fields are made with `option`. A source is a `Layer`: lower-case
setting names with the raw value found and the words that say where. `resolve` checks every value that wins
and names the variable, the source and the allowed form when one is wrong.

Only the standard library is used: this is read before every program and every command.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from headrace.core.errors import ConfigurationError

__all__ = [
    "Form",
    "Found",
    "Layer",
    "Option",
    "Resolved",
    "boolean",
    "choice",
    "dotenv_layer",
    "duration_list",
    "environment_layer",
    "integer",
    "number",
    "option",
    "optional",
    "options_of",
    "path",
    "read_toml",
    "resolve",
    "table_layer",
    "text",
    "word_list",
]

T = TypeVar("T")
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off", ""})


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """What a value may look like.

    Attributes:
        allowed: completes the sentence "give …".
        parse: the value of what stood in a source (text, or a TOML value); ValueError or TypeError when
            it is not allowed.
    """

    allowed: str
    parse: Callable[[Any], T]


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise TypeError
    return int(raw)


def _real(raw: Any) -> float:
    if isinstance(raw, bool):
        raise TypeError
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError
    return value


def _in_range(value: T, low: Any, high: Any) -> T:
    if (low is not None and cast("Any", value) < low) or (high is not None and cast("Any", value) > high):
        raise ValueError
    return value


def _range(kind: str, low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    return kind + (f" of at least {low}" if low is not None else "")


def _plain_text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


text: Form[str] = Form("a text", _plain_text)


def integer(low: int | None = None, high: int | None = None) -> Form[int]:
    """A whole number, with inclusive bounds."""
    return Form(_range("a whole number", low, high), lambda raw: _in_range(_whole(raw), low, high))


def number(low: float | None = None, high: float | None = None) -> Form[float]:
    """A number, with inclusive bounds; never infinite."""
    return Form(_range("a number", low, high), lambda raw: _in_range(_real(raw), low, high))


def choice(*words: str) -> Form[str]:
    """One of some words, in any case; the value is the word as given here."""
    by_lower = {word.lower(): word for word in words}

    def parse(raw: Any) -> str:
        found = by_lower.get(_plain_text(raw).strip().lower())
        if found is None:
            raise ValueError
        return found

    return Form("one of " + ", ".join(words), parse)


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


boolean: Form[bool] = Form("true or false", _boolean)


def _path(raw: Any) -> Path:
    if isinstance(raw, Path):
        return raw.expanduser().absolute()
    if not _plain_text(raw).strip():
        raise ValueError
    return Path(raw).expanduser().absolute()


path: Form[Path] = Form("a path; ~ is the home folder", _path)


def optional(form: Form[T]) -> Form[T | None]:
    """`form`, or nothing: an empty text or "none"."""

    def parse(raw: Any) -> T | None:
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in {"", "none"}):
            return None
        return form.parse(raw)

    return Form(f"{form.allowed}, or nothing", parse)


def _words(raw: Any) -> tuple[str, ...]:
    parts: list[Any] = raw.split(",") if isinstance(raw, str) else list(raw)
    return tuple(word for part in parts if (word := _plain_text(part).strip()))


word_list: Form[tuple[str, ...]] = Form("words with commas between them", _words)


def _durations(raw: Any) -> float | tuple[float, ...]:
    if isinstance(raw, str) and (raw.strip().startswith("[") or "," in raw):
        raw = raw.strip().strip("[]").split(",")
    if isinstance(raw, list | tuple):
        return tuple(_in_range(_real(part), 0, None) for part in cast("list[Any]", raw))
    return _in_range(_real(raw), 0, None)


duration_list: Form[float | tuple[float, ...]] = Form(
    "a number of seconds of at least 0, or several with commas between them", _durations
)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting.

    Attributes:
        name: lower case with underscores; the variable is the product's prefix and this in upper case.
        default: the value when no source has one.
        form: what a value may look like.
        doc: what it does, with the unit, in one or two sentences.
        secret: never shown unless asked for.
        peer: the name that another product's users know it by, without that product's prefix.
    """

    name: str
    default: Any
    form: Form[Any]
    doc: str
    secret: bool
    peer: str | None


class Found(NamedTuple):
    """A raw value and where it stood.

    Attributes:
        raw: text, or what TOML made of it.
        variable: the name as it is written there.
        source: e.g. "the environment", a file's path.
    """

    raw: Any
    variable: str
    source: str


Layer = Mapping[str, Found]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What `resolve` found: the values, and for each the words that say where it came from."""

    values: dict[str, Any]
    sources: dict[str, str]


def option(default: T, form: Form[T], doc: str, *, secret: bool = False, peer: str | None = None) -> T:
    """A field of a settings class; see `Option`. Declared as its value's type, like `dataclasses.field`."""
    metadata = {"form": form, "doc": doc, "secret": secret, "peer": peer}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(cls: type[Any]) -> dict[str, Option]:
    """The options of a settings class by name, in the order they are written."""
    return {
        field.name: Option(field.name, field.default, **field.metadata) for field in dataclasses.fields(cls)
    }


def resolve(options: Mapping[str, Option], layers: Iterable[Layer]) -> Resolved:
    """The value of each option from the first layer that has it, else its default.

    Raises:
        ConfigurationError: a winning value is not of the allowed form.
    """
    result = Resolved({}, {})
    ordered = list(layers)
    for name, known in options.items():
        found = next((layer[name] for layer in ordered if name in layer), None)
        if found is None:
            result.values[name], result.sources[name] = known.default, "default"
        else:
            result.values[name], result.sources[name] = parse_found(known, found), found.source
    return result


def parse_found(known: Option, found: Found) -> Any:
    """The value of `found`.

    Raises:
        ConfigurationError: it is not of the allowed form; a secret is not repeated in the message.
    """
    try:
        return known.form.parse(found.raw)
    except (ValueError, TypeError, AttributeError):
        shown = "its value" if known.secret else repr(found.raw)
        raise ConfigurationError(
            f"{found.variable} in {found.source}: {shown} is not allowed; give {known.form.allowed}."
        ) from None


def environment_layer(environ: Mapping[str, str], prefix: str) -> dict[str, Found]:
    """The variables that begin with `prefix`."""
    cut = len(prefix)
    return {
        variable[cut:].lower(): Found(value, variable, "the environment")
        for variable, value in environ.items()
        if variable.startswith(prefix)
    }


_DOTENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")


def dotenv_layer(file: Path, prefix: str) -> dict[str, Found]:
    """The variables of a `.env` file that begin with `prefix`; lines of others are not looked at.

    Raises:
        ConfigurationError: the file cannot be read, or the quotes of one of ours do not match.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {_reason(error)}") from None
    found: dict[str, Found] = {}
    for index, line in enumerate(lines, start=1):
        match = _DOTENV_LINE.match(line)
        if match and match[1].startswith(prefix):
            value = _unquoted(match[2], file, index)
            found[match[1][len(prefix) :].lower()] = Found(value, match[1], str(file))
    return found


def _unquoted(value: str, file: Path, line: int) -> str:
    quote = value[:1]
    if quote not in {"'", '"'} or not quote:
        return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
    end = value.find(quote, 1)
    rest = value[end + 1 :].strip()
    if end < 0 or (rest and not rest.startswith("#")):
        raise ConfigurationError(f"{file}, line {line}: the quotes do not match.")
    return value[1:end]


def read_toml(file: Path) -> dict[str, Any]:
    """What a TOML file says; nothing if there is no such file.

    Raises:
        ConfigurationError: it cannot be read or is not TOML; the message has the line.
    """
    try:
        written = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {_reason(error)}") from None
    try:
        return tomllib.loads(written)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
        line = place[1] if place and place[1] else written.rstrip().count("\n") + 1
        reason = message[: place.start()] if place else message
        raise ConfigurationError(f"{file}, line {line}: {reason}.") from None


def table_layer(table: Any, file: Path, where: str, prefix: str) -> dict[str, Found]:
    """The settings of a TOML table: `api_url`, `HEADRACE_API_URL`, and `url` in a table `api`, are one.

    Args:
        table: as read; must be a table.
        file: where it stood.
        where: the table's name, for messages ("" for the whole file).
        prefix: what may stand before a name.

    Raises:
        ConfigurationError: it is not a table.
    """
    source = f"{file} [{where}]" if where else str(file)
    if not isinstance(table, dict):
        raise ConfigurationError(f"{source}: a table of settings is expected.")
    found: dict[str, Found] = {}
    pending: list[tuple[str, str, Any]] = [("", key, value) for key, value in _items(table)]
    while pending:
        before, key, value = pending.pop()
        written = f"{before}.{key}" if before else key
        if isinstance(value, dict):
            pending.extend((written, inner, inner_value) for inner, inner_value in _items(value))
            continue
        name = written.replace(".", "_").lower()
        found[name.removeprefix(prefix.lower())] = Found(value, written, source)
    return found


def _items(table: Any) -> Iterable[tuple[str, Any]]:
    return cast("dict[str, Any]", table).items()


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text."
