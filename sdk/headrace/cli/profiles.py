"""`headrace profile`: named sets of settings in `<home>/profiles.toml`."""

from __future__ import annotations

import re
from typing import Annotated

from cyclopts import Parameter

from headrace.cli import profile_store
from headrace.cli.candidates import profile_names
from headrace.cli.config import HIDDEN, canonical_or_self
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output, Quiet, Yes
from headrace.cli.output import Listing, emit_document, emit_json, emit_list, iterate, say
from headrace.cli.prompts import confirm
from headrace.core.errors import ServiceError
from headrace.settings import DEFAULT_PROFILE, OPTIONS, use_profile, variable_name

__all__ = ["create", "delete", "inspect", "ls", "rename", "use"]

Name = Annotated[str, Parameter(name="NAME", help="The profile.", completer=profile_names)]
_PATIENCE_SECONDS = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


async def ls(*, output: Output = "table", quiet: Quiet = False) -> None:
    """List profiles."""
    file = profile_store.read()
    listing = Listing[str](
        headers=("PROFILE", "ACTIVE"),
        row=lambda name: (name, "*" if name == file.active else ""),
        key=str,
        json=lambda name: {"name": name, "active": name == file.active},
        none="There are no profiles.",
    )
    await emit_list(iterate(file.names), listing, output, quiet=quiet)


def create(
    name: Name,
    /,
    *,
    from_: Annotated[
        str | None, Parameter(name="--from", help="Begin with the settings of this profile.")
    ] = None,
    output: Output = "table",
) -> None:
    """Create a profile."""
    _check_name(name)
    with profile_store.editing() as file:
        _check_free(file, name)
        values = file.values(from_) if from_ is not None else {}
        file.table(name).update(values)
    _report({"name": name, "settings": len(values)}, output)
    say(f"Created profile {name}. `headrace profile use {name}` makes it the active one.")


async def use(name: Name, /, *, output: Output = "table") -> None:
    """Make a profile the active one.

    Says whether its server answers; none is started.
    """
    with profile_store.editing() as file:
        file.expect(name)
        file.document["active"] = name
    reach = await _reach(name)
    _report({"name": name, "active": True, "server": reach}, output)
    say(f"Profile {name} is active. {reach}")


async def _reach(name: str) -> str:
    """Whether the server of the profile answers, as a sentence."""
    from headrace.client import get_client

    try:
        # What the environment says about the address still goes before what the profile says.
        with use_profile(name) as settings:
            if settings.api_url == "off":
                return "It records nothing: its API_URL is off."
            async with get_client(settings, start_server=False) as client:
                info = await client.get_server_info(timeout=_PATIENCE_SECONDS)
                return f"Its server at {client.address} answers (version {info.version})."
    except ServiceError as error:
        return str(error)


def inspect(
    name: Annotated[
        str | None, Parameter(name="NAME", help="The profile; the active one if none is named.")
    ] = None,
    /,
    *,
    show_secrets: Annotated[bool, Parameter(help="Show secret values.")] = False,
    output: Output = "table",
) -> None:
    """Show the settings of a profile."""
    file = profile_store.read()
    name = file.active if name is None else name
    values = {variable_name(canonical_or_self(k)): str(v) for k, v in file.values(name).items()}
    if not show_secrets:
        values = {k: HIDDEN if _is_secret(k) else v for k, v in values.items()}
    document = {"name": name, "active": name == file.active, "settings": values}
    if not values and output == "table":
        say(f"Profile {name} sets nothing.")
    emit_document(document, lambda: list(values.items()), output)


def rename(
    name: Name,
    new_name: Annotated[str, Parameter(name="NEW_NAME", help="Its new name.")],
    /,
    *,
    output: Output = "table",
) -> None:
    """Rename a profile."""
    _check_name(new_name)
    with profile_store.editing() as file:
        _check_free(file, new_name)
        values = file.values(name)
        file.table(new_name).update(values)
        file.document["profiles"].pop(name, None)
        if file.active == name:
            file.document["active"] = new_name
    _report({"name": new_name, "old_name": name}, output)
    say(f"Profile {name} is now {new_name}.")


def delete(
    names: Annotated[tuple[str, ...], Parameter(name="NAME", negative=(), help="The profiles.")],
    /,
    *,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Delete profiles.

    The active profile is not deleted: make another one active first.
    """
    file = profile_store.read()
    for name in names:
        file.expect(name)
        if name == file.active:
            raise CliError(
                f"Profile {name} is the active one.", "Make another active: `headrace profile use NAME`."
            )
    confirm(f"Delete {'profile' if len(names) == 1 else 'profiles'} {', '.join(names)}?", yes=yes)
    with profile_store.editing() as file:
        for name in names:
            file.document.get("profiles", {}).pop(name, None)
    _report({"deleted": list(names)}, output)
    say(f"Deleted {', '.join(names)}.")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CliError(
            f"'{name}' cannot be a profile's name.",
            "Use letters, digits, - and _, at most 64, beginning with a letter or digit.",
            code=ExitCode.USAGE,
        )


def _check_free(file: profile_store.ProfileFile, name: str) -> None:
    taken = name in file.document.get("profiles", {})
    if taken or (name == DEFAULT_PROFILE and name == file.active):
        raise CliError(f"There is a profile {name} already.", "Choose another name, or delete it first.")


def _is_secret(variable: str) -> bool:
    known = OPTIONS.get(canonical_or_self(variable))
    # What belongs to the server is not described here: hide what may be a credential.
    return (
        known.secret if known else bool(re.search("AUTH|KEY|PASSWORD|SECRET|TOKEN|CONNECTION_URL", variable))
    )


def _report(document: dict[str, object], output: str) -> None:
    if output != "table":
        emit_json(document, indent=2 if output == "json" else None)
