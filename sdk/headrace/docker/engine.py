"""The container engine of this machine, and who one is at registries."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Final

from headrace.core.errors import ConfigurationError
from headrace.docker.names import DOCKER_HUB, registry_of

__all__ = ["engine_error", "open_engine", "registry_auth"]

_TIMEOUT_SECONDS: Final = 60.0
_CONNECT_SECONDS: Final = 10.0
_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


async def open_engine() -> Any:
    """The engine that the environment names: DOCKER_HOST, a Docker context, or the usual sockets.

    Returns:
        An `aiodocker.Docker`, to be closed.

    Raises:
        ConfigurationError: the extra is not installed, there is no engine, or it does not answer.
    """
    try:
        import aiodocker
        import aiohttp
    except ImportError:
        raise ConfigurationError("aiodocker is missing. Install it: pip install 'headrace[docker]'") from None
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS, sock_connect=_CONNECT_SECONDS)
    try:
        engine: Any = aiodocker.Docker(timeout=timeout)
    except (AssertionError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"There is no container engine: start Docker, or set DOCKER_HOST. {error}".strip()
        ) from None
    # Each container takes up two connections for as long as it runs.
    engine.session.connector._limit = 0
    try:
        await engine.version()
    except (aiodocker.exceptions.DockerError, aiohttp.ClientError, TimeoutError) as error:
        await engine.close()
        raise ConfigurationError(f"The container engine does not answer: {engine_error(error)}") from None
    return engine


def engine_error(error: BaseException) -> str:
    """What an error of the engine says."""
    return str(getattr(error, "message", "") or error or type(error).__name__)


def registry_auth(image: str) -> dict[str, str] | None:
    """Who one is at the registry of an image, as `docker login` has noted it; None: nobody.

    Logins that are kept by a credential helper are not seen.
    """
    registry = registry_of(image)
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        known = json.loads((folder / "config.json").read_text()).get("auths", {})
    except (OSError, ValueError, AttributeError):
        return None
    for key in _HUB_KEYS if registry == DOCKER_HUB else (registry, f"https://{registry}"):
        said = known.get(key, {}).get("auth")
        if said:
            username, _, password = base64.b64decode(said).decode().partition(":")
            return {"username": username, "password": password, "serveraddress": registry}
    return None
