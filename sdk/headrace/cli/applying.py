"""`headrace deployment apply`: deployments as the API has them, from a file, for flows in any language."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from cyclopts import Parameter
from google.protobuf.json_format import ParseDict, ParseError

from headrace.cli.deployed import show
from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output
from headrace.client import get_client
from headrace.core.errors import HeadraceException
from headrace.deployments.deploying import Deployed, Failed
from headrace.v1.deployment_pb2 import Deployment

__all__ = ["apply"]

_JSON_TEXTS = ("parameters", "parameter_schema")


async def apply(
    file: Annotated[str, Parameter(name="FILE", help="YAML or JSON; - reads it from stdin.")],
    /,
    *,
    dry_run: Annotated[bool, Parameter(help="Show what would change, change nothing.")] = False,
    output: Output = "table",
) -> int:
    """Make deployments what a file says: messages of the API.

    The file holds one deployment, or a list of them, by the field names of headrace.v1.Deployment. Fields
    that are not named stay as they are. No flow is loaded, so that it may be written in any language; for
    flows in Python see `headrace deploy`.
    """
    wanted = [_message(number, entry) for number, entry in enumerate(_entries(file), 1)]
    done: list[Deployed | Failed] = []
    async with get_client() as client:
        for said, paths in wanted:
            name = f"{said.flow_name}/{said.name}"
            try:
                done.append(Deployed(name, await client.apply_deployment(said, paths, dry_run=dry_run)))
            except HeadraceException as error:
                done.append(Failed(name, error))
    show(done, dry_run, output)
    return ExitCode.FAILED if any(isinstance(one, Failed) for one in done) else ExitCode.OK


def _entries(file: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        read: object = yaml.load(text, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.", code=ExitCode.NOT_FOUND) from None
    except yaml.YAMLError as error:
        raise CliError(f"{file} is no YAML: {error}", code=ExitCode.USAGE) from None
    listed = cast("list[Any]", read if isinstance(read, list) else [read])
    if not listed or not all(isinstance(entry, Mapping) for entry in listed):
        raise CliError(f"{file} holds no deployment.", "Give flow_name and name.", code=ExitCode.USAGE)
    return [dict(entry) for entry in listed]


def _message(number: int, entry: dict[str, Any]) -> tuple[Deployment, list[str]]:
    """The deployment, and the fields that the entry names."""
    for name in _JSON_TEXTS:
        if isinstance(entry.get(name), Mapping):
            entry[name] = json.dumps(entry[name])
    said = Deployment()
    try:
        ParseDict(entry, said)
    except ParseError as error:
        raise CliError(f"Deployment {number} of the file: {error}", code=ExitCode.USAGE) from None
    if not said.flow_name or not said.name:
        raise CliError(f"Deployment {number} of the file needs flow_name and name.", code=ExitCode.USAGE)
    known = {field.json_name: field.name for field in Deployment.DESCRIPTOR.fields}
    paths = [known.get(key, key) for key in entry]
    return said, [path for path in paths if path not in ("flow_name", "name", "id", "etag")]
