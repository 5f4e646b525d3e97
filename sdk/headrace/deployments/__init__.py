"""Flows made runnable elsewhere: how their code is fetched, how they are deployed, and runs of them.

Names are loaded by their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.deployments.deploying_flows import adeploy as adeploy
    from headrace.deployments.deploying_flows import deploy as deploy
    from headrace.deployments.git import GitRepository as GitRepository
    from headrace.deployments.remote import RemoteStorage as RemoteStorage
    from headrace.deployments.running import arun_deployment as arun_deployment
    from headrace.deployments.running import run_deployment as run_deployment
    from headrace.deployments.sources import LocalStorage as LocalStorage

__all__ = [
    "GitRepository",
    "LocalStorage",
    "RemoteStorage",
    "adeploy",
    "arun_deployment",
    "deploy",
    "run_deployment",
]

_HOMES = {
    "GitRepository": "git",
    "LocalStorage": "sources",
    "RemoteStorage": "remote",
    "adeploy": "deploying_flows",
    "arun_deployment": "running",
    "deploy": "deploying_flows",
    "run_deployment": "running",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
