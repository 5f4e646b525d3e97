"""The wheel holds the three packages whole, with what they read at run time, and nothing else."""

from __future__ import annotations

import configparser
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests.support.tools import ROOT

ROOTS = {
    "headrace": ROOT / "sdk",
    "headrace_services": ROOT / "services",
    "headrace_workers": ROOT / "workers",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, capture_output=True, timeout=60, check=True)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.parametrize("package", ROOTS)
def test_it_holds_every_file_of_the_package(wheel: zipfile.ZipFile, package: str) -> None:
    held = {name for name in wheel.namelist() if name.startswith(f"{package}/")}
    assert held == _source_files(package)


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {pathlib.PurePosixPath(name).parts[0].split("-")[0] for name in wheel.namelist()}
    assert tops == set(ROOTS)


def test_it_brings_the_command_and_its_parts(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert dict(points["console_scripts"]) == {"headrace": "headrace.cli:main"}
    assert set(points["headrace.commands"]) >= {"server", "db"}


def _source_files(package: str) -> set[str]:
    files = (path for path in (ROOTS[package] / package).rglob("*") if path.is_file())
    return {str(file.relative_to(ROOTS[package])) for file in files if "__pycache__" not in file.parts}
