"""The image of runs for which nobody names one."""

from __future__ import annotations

import re
import sys
from typing import Final

from headrace.client.channel import client_version

__all__ = ["default_image"]

_NO_TAG: Final = re.compile(r"[^A-Za-z0-9_.-]")


def default_image() -> str:
    """headrace's own image: of this version, with this version of Python."""
    tag = _NO_TAG.sub("-", client_version())
    return f"headrace/headrace:{tag}-python{sys.version_info.major}.{sys.version_info.minor}"
