"""`headrace config`: the settings in force, and those of the active profile."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from headrace.cli import profile_store
from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.options import Output, Quiet, Yes
from headrace.cli.output import Listing, emit_json, emit_list, iterate, say
from headrace.cli.prompts import confirm
from headrace.core.config import Found, Option, parse_found
from headrace.core.errors import ConfigurationError
from headrace.settings import (
    OPTIONS,
    SettingValue,
    active_profile,
    canonical_name,
    get_current_settings,
    list_settings,
    use_profile,
    variable_name,
)

__all__ = ["set", "unset", "validate", "view"]

HIDDEN = "********"


async def view(
    *,
    show_defaults: Annotated[bool, Parameter(help="Show the settings nobody has set, too.")] = False,
    show_sources: Annotated[
        bool, Parameter(help="Show where each value comes from (always in JSON).")
    ] = False,
    show_secrets: Annotated[bool, Parameter(help="Show secret values.")] = False,
    output: Output = "table",
    quiet: Quiet = False,
) -> None:
    """Show the settings in force.

    A value comes from the first of: environment, .env, headrace.toml, pyproject.toml, active profile.
    """
    chosen = [s for s in list_settings() if show_defaults or s.source != "default"]
    listing = Listing[SettingValue](
        headers=("SETTING", "VALUE", "SOURCE") if show_sources else ("SETTING", "VALUE"),
        row=lambda s: (variable_name(s.option.name), str(_shown(s.option, s.value, show_secrets)), s.source)[
            : 3 if show_sources else 2
        ],
        key=lambda s: variable_name(s.option.name),
        json=lambda s: {
            "name": variable_name(s.option.name),
            "value": _as_json(_shown(s.option, s.value, show_secrets)),
            "source": s.source,
            "description": s.option.doc,
        },
        none="Every setting has its default: see --show-defaults.",
    )
    if output == "table" and not quiet:
        say(f"Active profile: {active_profile()}")
    await emit_list(iterate(chosen), listing, output, quiet=quiet)


def set(
    assignments: Annotated[
        tuple[str, ...], Parameter(name="NAME=VALUE", negative=(), help="What to set; several may be given.")
    ],
    /,
    *,
    output: Output = "table",
) -> None:
    """Set values in the active profile.

    Nothing is written unless every name and value is allowed.
    """
    chosen: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise CliError(f"'{assignment}' is not of the form NAME=VALUE.", code=ExitCode.USAGE)
        known = _option(name)
        parse_found(known, Found(value, variable_name(known.name), "the command line"))
        chosen[variable_name(known.name)] = value
    with profile_store.editing() as file:
        profile = _writable_profile(file)
        table = file.table(profile)
        for variable, value in chosen.items():
            _remove(table, variable)
            table[variable] = value
    if output != "table":
        emit_json({"profile": profile, "set": list(chosen)}, indent=2 if output == "json" else None)
    for variable in chosen:
        say(f"Set {variable} in profile {profile}.")
        if variable in os.environ:
            say(f"The environment has {variable} too, and wins.")


def unset(
    names: Annotated[
        tuple[str, ...], Parameter(name="NAME", negative=(), help="What to remove; several may be given.")
    ],
    /,
    *,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Remove values from the active profile."""
    variables = [variable_name(_option(name).name) for name in names]
    file = profile_store.read()
    profile = _writable_profile(file)
    written = {variable_name(canonical_or_self(key)) for key in file.values(profile)}
    for variable in variables:
        if variable not in written:
            raise CliError(f"Profile {profile} does not set {variable}.", code=ExitCode.NOT_FOUND)
    confirm(f"Remove {', '.join(variables)} from profile {profile}?", yes=yes)
    with profile_store.editing() as file:
        for variable in variables:
            _remove(file.table(profile), variable)
    if output != "table":
        emit_json({"profile": profile, "unset": variables}, indent=2 if output == "json" else None)
    for variable in variables:
        say(f"Removed {variable} from profile {profile}.")


def validate(*, output: Output = "table") -> int:
    """Check the configuration files and the environment.

    Every profile is checked, not the active one alone.
    """
    problems: list[str] = []
    try:
        get_current_settings()
        profiles = profile_store.read().names
    except ConfigurationError as error:
        problems.append(str(error))
        profiles = []
    for name in profiles:
        try:
            with use_profile(name):
                pass
        except ConfigurationError as error:
            if str(error) not in problems:
                problems.append(str(error))
    if output != "table":
        emit_json({"valid": not problems, "problems": problems}, indent=2 if output == "json" else None)
    for problem in problems:
        say(f"Error: {problem}")
    if not problems:
        say("The configuration is valid.")
    return ExitCode.USAGE if problems else ExitCode.OK


def canonical_or_self(name: str) -> str:
    """The setting's canonical name, or the name itself when it belongs to another family (the server's)."""
    try:
        return canonical_name(name)
    except ConfigurationError:
        return name.lower().removeprefix("headrace_")


def _option(name: str) -> Option:
    """The setting called `name`, of the SDK or of another installed package.

    Raises:
        CliError: there is no such setting.
    """
    key = canonical_or_self(name)
    known = OPTIONS.get(key) or _options_elsewhere().get(key)
    if known is None:
        hint = nearest(key, [*OPTIONS, *_options_elsewhere()])
        raise CliError(f"There is no setting {name}.", hint, code=ExitCode.USAGE)
    return known


@cache
def _options_elsewhere() -> Mapping[str, Option]:
    found: dict[str, Option] = {}
    for point in entry_points(group="headrace.settings"):
        found.update(point.load())
    return found


def _writable_profile(file: profile_store.ProfileFile) -> str:
    profile = os.environ.get("HEADRACE_PROFILE") or file.active
    file.expect(profile)
    return profile


def _remove(table: Any, variable: str) -> None:
    """Take out the setting however it is spelled."""
    for key in [k for k in table if variable_name(canonical_or_self(str(k))) == variable]:
        del table[key]


def _shown(known: Option, value: Any, show_secrets: bool) -> Any:
    return HIDDEN if known.secret and value is not None and not show_secrets else value


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
