"""`headrace init`: a project file to begin with."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from headrace.cli.failures import CliError, ExitCode, nearest
from headrace.cli.output import say
from headrace.cli.prompts import ask, can_ask
from headrace.deployments.project import FILE_NAMES, find_project
from headrace.deployments.recipes import RECIPES, Recipe, render
from headrace.deployments.versions import git_origin

__all__ = ["init"]


def init(
    *,
    name: Annotated[str | None, Parameter(help="Name of the project; else the folder's.")] = None,
    recipe: Annotated[
        str | None,
        Parameter(
            help=f"How code gets to where it runs: {', '.join(RECIPES)}. Else git in a clone, or local."
        ),
    ] = None,
    field: Annotated[tuple[str, ...], Parameter(help="KEY=VALUE for what the recipe asks. Repeatable.")] = (),
) -> None:
    """Write headrace.yaml for the project in this folder.

    A file that is there is left alone. On a terminal, what the recipe needs is asked for.
    """
    folder = Path.cwd()
    there = find_project(folder)
    if there is not None:
        raise CliError(
            f"There is {there.name} already; it is left as it is.", "Deploy it: `headrace deploy`."
        )
    origin = git_origin(folder)
    chosen = recipe or ("git" if origin else "local")
    if chosen not in RECIPES:
        raise CliError(f"There is no recipe '{chosen}'.", nearest(chosen, RECIPES), code=ExitCode.USAGE)
    known = {"directory": str(folder), "folder": folder.name}
    if origin:
        known |= {"repository": origin[0], "branch": origin[1]}
    fields = _fields(chosen, RECIPES[chosen], field, known)
    path = folder / FILE_NAMES[0]
    path.write_text(
        render(RECIPES[chosen], name or folder.name, fields, _entrypoint(folder)), encoding="utf-8"
    )
    say(f"Wrote {path.name} (recipe {chosen}). Look it over, then: headrace deploy --all")


def _fields(
    recipe_name: str, recipe: Recipe, given: tuple[str, ...], known: Mapping[str, str]
) -> dict[str, str]:
    """A text for each field: given, asked for, or known; what is known is offered to whoever is asked."""
    said: dict[str, str] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or key not in recipe.fields:
            names = ", ".join(recipe.fields)
            raise CliError(
                f"--field {one}: the recipe {recipe_name} takes {names}, each as KEY=VALUE.",
                nearest(key, recipe.fields),
                code=ExitCode.USAGE,
            )
        said[key] = value
    for key, what in recipe.fields.items():
        if key in said:
            continue
        if can_ask():
            said[key] = ask(what, known.get(key, ""))
        elif key in known:
            said[key] = known[key]
        else:
            raise CliError(f"{what}?", f"Say --field {key}=...", code=ExitCode.USAGE)
    return said


def _entrypoint(folder: Path) -> str:
    """The first function decorated as a flow in this folder or one below, else an example."""
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/*.py")])[:200]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                _is_flow(decorator) for decorator in node.decorator_list
            ):
                return f"{path.relative_to(folder).as_posix()}:{node.name}"
    return "flows/example.py:example"


def _is_flow(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
    return name == "flow"
