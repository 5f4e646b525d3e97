"""Names of images."""

from __future__ import annotations

import re
import sys
from typing import Final

from headrace.client.channel import client_version

__all__ = ["DOCKER_HUB", "default_image", "registry_of"]

DOCKER_HUB: Final = "docker.io"
_NO_TAG: Final = re.compile(r"[^A-Za-z0-9_.-]")


def default_image() -> str:
    """headrace's own image: of this version, with this version of Python."""
    tag = _NO_TAG.sub("-", client_version())
    return f"headrace/headrace:{tag}-python{sys.version_info.major}.{sys.version_info.minor}"


def registry_of(image: str) -> str:
    """Where an image is: `host` or `host:port`."""
    host, slash, _ = image.partition("/")
    return host if slash and ("." in host or ":" in host or host == "localhost") else DOCKER_HUB
