"""A virtual environment that has headrace, in the version of whoever makes it."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Final

__all__ = ["constraints", "find_pip", "identity", "lend_headrace", "own_folders"]

_DISTRIBUTION: Final = "headrace"
_SYSTEM_PACKAGES: Final = ("/usr/lib/python3/dist-packages",)
"""Where Debian keeps the packages of its own interpreter."""
_EXTRAS: Final = re.compile(r"\[[^]]*\]")


def own_folders() -> list[str]:
    """Where this interpreter finds packages, in its order; the present folder is left out."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    standard |= {str(Path(folder) / "lib-dynload") for folder in standard}
    found = [path for path in sys.path if path and path not in standard and path != str(Path.cwd())]
    return [path for path in dict.fromkeys(found) if Path(path).is_dir()]


def lend_headrace(environment: Path) -> None:
    """Let the interpreter of a virtual environment import what this one can, after its own packages.

    A file of paths alone would not do: files of that kind in the folders that it names are not read, and
    that is where an editable installation says where it is. A description of headrace as installed keeps an
    installer from fetching another version of it for a package that needs it.
    """
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    calls = "".join(f"; site.addsitedir({folder!r})" for folder in own_folders())
    (packages / "_headrace.pth").write_text(f"import site{calls}\n", encoding="utf-8")
    own = metadata.distribution(_DISTRIBUTION)
    described = packages / f"{_DISTRIBUTION}-{own.version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {_DISTRIBUTION}\nVersion: {own.version}\n", encoding="utf-8"
    )
    (described / "entry_points.txt").write_text(own.read_text("entry_points.txt") or "", encoding="utf-8")
    (described / "INSTALLER").write_text("headrace\n", encoding="utf-8")
    (described / "RECORD").write_text("", encoding="utf-8")


def constraints() -> str:
    """What headrace can work with, as constraints for pip: its own requirements without those of extras."""
    needed = [line for line in metadata.requires(_DISTRIBUTION) or [] if "extra ==" not in line]
    # Constraints may not name extras, such as those of `sqlalchemy[asyncio]>=2`.
    return "".join(f"{_EXTRAS.sub('', line)}\n" for line in needed)


def find_pip() -> Path | None:
    """The file by which another interpreter runs the pip of this one, or of the one this was made from.

    It is what `pip --python` calls, without a process between that would outlive its end. None: there is no
    pip, or one before 22.3.
    """
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix}
    folders = [*sys.path, sysconfig.get_path("purelib", "posix_prefix", base), *_SYSTEM_PACKAGES]
    for found in metadata.distributions(name="pip", path=folders):
        runner = Path(str(found.locate_file("pip/__pip-runner__.py")))
        if runner.is_file():
            return runner
    return None


def identity() -> tuple[str, ...]:
    """What two environments for the same packages must have in common: the interpreter, and headrace."""
    folders = os.pathsep.join(own_folders())
    return sys.version, sys.base_prefix, site.__file__ or "", metadata.version(_DISTRIBUTION), folders
