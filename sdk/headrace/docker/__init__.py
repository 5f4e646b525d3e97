"""Images that runs of deployments are started in: `DockerImage`.

Names are loaded by their first use. They need the extra `docker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.docker.images import DockerImage as DockerImage

__all__ = ["DockerImage"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from headrace.docker.images import DockerImage

    return DockerImage


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
