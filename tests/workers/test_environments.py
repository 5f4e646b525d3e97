"""Environments with packages: how they are named, shared, given up and removed; no package is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from headrace.v1.run_pb2 import AttemptRef
from headrace.v1.worker_service_pb2 import Assignment
from headrace_workers.base import BaseWorkerResult
from headrace_workers.managed import environments as module
from headrace_workers.managed.environments import EnvironmentFailed, Environments
from headrace_workers.managed.interpreters import constraints, lend_headrace
from headrace_workers.managed.worker import ManagedJobConfiguration, ManagedWorker
from tests.support.worker_processes import is_running

DAY = 24 * 3600.0


class Made(Environments):
    """Environments of one file each.

    Attributes:
        calls: how often one was made.
    """

    def __init__(self, folder: pathlib.Path, keep_seconds: float = DAY, keep_bytes: int = 10**9) -> None:
        super().__init__(folder, keep_seconds, keep_bytes)
        self.calls = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.began = asyncio.Event()

    async def _make(
        self, environment: pathlib.Path, packages: Sequence[str], variables: Mapping[str, str], tell: Any
    ) -> None:
        self.calls += 1
        self.began.set()
        await self.may_end.wait()
        if "broken" in packages:
            raise EnvironmentFailed("no such package")
        environment.mkdir()
        note = {"packages": list(packages), "size_bytes": 100}
        (environment / ".headrace-environment.json").write_text(json.dumps(note))


async def silent(lines: list[str]) -> None:
    pass


async def make(environments: Environments, *packages: str) -> pathlib.Path:
    """Use one and leave it; its folder."""
    async with environments.use(packages, {}, silent) as python:
        return python.parent.parent


def age(environment: pathlib.Path, seconds: float) -> None:
    done = environment / ".headrace-environment.json"
    then = done.stat().st_mtime - seconds
    os.utime(done, (then, then))


async def test_the_same_packages_are_the_same_environment_for_several_workers(tmp_path: pathlib.Path) -> None:
    one, other = Made(tmp_path), Made(tmp_path)
    one.may_end.clear()
    other.may_end = one.may_end
    other.began = one.began
    uses = [asyncio.ensure_future(make(who, *ps)) for who in (one, other) for ps in (("a", "b"), ("b", "a"))]
    await one.began.wait()
    one.may_end.set()
    assert len(set(await asyncio.gather(*uses))) == 1
    assert one.calls + other.calls == 1


async def test_a_file_that_has_changed_is_another_environment(tmp_path: pathlib.Path) -> None:
    environments = Made(tmp_path / "environments")
    package = tmp_path / "package.whl"
    package.write_text("1")
    first = await make(environments, str(package))
    assert await make(environments, str(package)) == first
    package.write_text("22")
    assert await make(environments, str(package)) != first
    folder = tmp_path / "project"
    folder.mkdir()
    second = await make(environments, f"-e {folder}")
    (folder / "module.py").write_text("")
    assert await make(environments, f"-e {folder}") != second


async def test_one_that_could_not_be_made_is_tried_again(tmp_path: pathlib.Path) -> None:
    environments = Made(tmp_path)
    for _ in range(2):
        with pytest.raises(EnvironmentFailed):
            await make(environments, "broken")
    assert environments.calls == 2


async def test_what_nobody_uses_is_removed_and_what_somebody_uses_stays(tmp_path: pathlib.Path) -> None:
    environments = Made(tmp_path, keep_seconds=DAY)
    old, fresh = await make(environments, "old"), await make(environments, "fresh")
    async with environments.use(["used"], {}, silent) as python:
        for environment in (old, python.parent.parent):
            age(environment, 2 * DAY)
        environments.sweep()
        assert not old.exists()
        assert fresh.exists()
        assert python.parent.parent.exists()
    environments.sweep()
    assert not python.parent.parent.exists()


async def test_the_oldest_of_too_many_are_removed(tmp_path: pathlib.Path) -> None:
    environments = Made(tmp_path, keep_bytes=250)
    made = [await make(environments, name) for name in "abcd"]
    for position, environment in enumerate(made):
        if environment.exists():
            age(environment, 100.0 - position)
    again = Made(tmp_path, keep_bytes=250)
    await make(again, "b")
    again.sweep()
    assert len([environment for environment in made if environment.exists()]) == 2


async def test_a_program_does_not_outlive_who_waits_for_it(tmp_path: pathlib.Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()

    async def tell(lines: list[str]) -> None:
        said.put_nowait(lines[0])

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    task = asyncio.ensure_future(
        module._run("it", [sys.executable, "-c", program], tmp_path, os.environ, tell)
    )
    pid = int(await said.get())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not is_running(pid)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_run_that_is_ended_while_its_packages_are_installed_does_not_begin(
    tmp_path: pathlib.Path, is_cancelled: bool
) -> None:
    environments = Made(tmp_path)
    environments.may_end.clear()
    worker = ManagedWorker(environments)
    identifiers: list[str] = []
    configuration = ManagedJobConfiguration(pip_packages=("a",))
    assignment = Assignment(attempt=AttemptRef(run_id="r", attempt=1, fence=7))
    running = asyncio.ensure_future(worker.run(configuration, assignment, identifiers.append))
    await environments.began.wait()
    if is_cancelled:
        await worker.cancel_gently(identifiers[0], configuration, "somebody wants it")
    else:
        await worker.kill_infrastructure(identifiers[0], configuration, 0.0)
    result = await running
    assert isinstance(result, BaseWorkerResult)
    assert result.never_started
    assert "before its packages were installed" in result.message
    assert list(tmp_path.glob("*/")) == []


@pytest.mark.parametrize("line", ["", "  ", "a\nb", "a\r\n--index-url http://elsewhere"])
def test_one_requirement_per_item(line: str) -> None:
    with pytest.raises(ValueError, match="is no requirement"):
        ManagedJobConfiguration(pip_packages=("fine", line))


def test_what_headrace_needs_holds_for_the_packages_too() -> None:
    lines = constraints().splitlines()
    assert any(line.startswith("grpcio") for line in lines)
    assert not any("extra" in line or "[" in line for line in lines)


async def test_an_interpreter_without_pip_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_pip", lambda: None)
        with pytest.raises(EnvironmentFailed, match="has no pip of version 22"):
            await make(Environments(tmp_path, DAY, 10**9), "a")
    assert list(tmp_path.glob("*/")) == []


def test_headrace_is_described_as_installed(tmp_path: pathlib.Path) -> None:
    packages = tmp_path / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    lend_headrace(tmp_path)
    (described,) = packages.glob("headrace-*.dist-info")
    assert "headrace.commands" in (described / "entry_points.txt").read_text()
    assert (packages / "_headrace.pth").read_text().startswith("import site; site.addsitedir(")
