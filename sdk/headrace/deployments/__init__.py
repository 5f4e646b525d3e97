"""Flows made runnable elsewhere: how their code is fetched, how they are deployed, and runs of them.

Names are loaded by their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.deployments.running import arun_deployment as arun_deployment
    from headrace.deployments.running import run_deployment as run_deployment

__all__ = ["arun_deployment", "run_deployment"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from headrace.deployments import running

    return getattr(running, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
