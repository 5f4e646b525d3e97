"""Caps on runs, by control groups and by limits of processes, and what workers leave that are killed."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator

import pytest

from headrace.client.api import HeadraceClient
from headrace.core.errors import ConfigurationError
from headrace.settings import get_current_settings, temporary_settings
from headrace.v1.state_pb2 import StateType
from headrace_workers.base import WorkerFacts
from headrace_workers.process.cgroups import ControlGroup, ControlGroups, find_hierarchies
from headrace_workers.process.folders import WorkerFolder, sweep_folders
from headrace_workers.process.worker import ProcessWorker
from headrace_workers.service import child_environment
from tests.support.worker_processes import is_running
from tests.workers.test_process_worker import Bench

FLOWS = """
import os, pathlib, time
from headrace import flow

@flow
def swell():
    return len(b"x" * (10 * 1024 ** 3))

@flow
def breed(where: str):
    made = []
    try:
        while len(made) < 1000:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            made.append(pid)
    except OSError as error:
        pathlib.Path(where).write_text(f"{error.errno} " + " ".join(map(str, made)))
        for pid in made[:15]:  # its own threads need some room
            os.kill(pid, 9)
            os.waitpid(pid, 0)

@flow
def spin():
    while True:
        pass
"""
KILLED = """
import os, pathlib, sys, time
from headrace_workers.process.folders import WorkerFolder
folder = WorkerFolder()
kept = folder.temporary("run-")
pathlib.Path(kept.name, "data").write_text("x")
print(folder.path, flush=True)
time.sleep(600)
"""


def _writable() -> bool:
    found = find_hierarchies(pathlib.Path("/proc/self/mounts").read_text())
    return found is not None and all(os.access(top, os.W_OK) for top in found.tops)


needs_groups = pytest.mark.skipif(
    not (sys.platform == "linux" and _writable()), reason="no control groups that these tests may write to"
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Where workers make their folders."""
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
async def bench(
    client: HeadraceClient, scratch: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    code = tmp_path_factory.mktemp("code")
    (code / "flows.py").write_text(FLOWS)
    worker = ProcessWorker(spare=0)
    worker.facts = WorkerFacts("w", "p", child_environment(get_current_settings()), lambda line: None)
    parent = f"headrace-test-{os.getpid()}" if _writable() else None
    with temporary_settings({"worker_cgroup": parent}):
        await worker.__aenter__()
    try:
        yield Bench(worker, client, code, [])
    finally:
        await worker.__aexit__()
        if parent is not None:
            for top in find_hierarchies(pathlib.Path("/proc/self/mounts").read_text()).tops:  # type: ignore[union-attr]
                (top / parent).rmdir()  # nothing is left in it


@needs_groups
async def test_a_run_that_has_all_its_memory_is_killed_and_its_end_says_so(bench: Bench) -> None:
    _, result = await bench.run("swell", configuration={"memory_limit": "128m"})
    assert result.status_code == 137
    assert "had all the memory that it may have" in result.message


@needs_groups
async def test_a_fork_bomb_is_held_and_nothing_of_it_is_left(bench: Bench, tmp_path: pathlib.Path) -> None:
    run, result = await bench.run(
        "breed", {"where": str(tmp_path / "pids")}, configuration={"process_limit": 40}
    )
    assert run.state.type == StateType.STATE_TYPE_COMPLETED, result.message
    errno, *pids = map(int, (tmp_path / "pids").read_text().split())
    assert os.strerror(errno) == "Resource temporarily unavailable"
    assert 0 < len(pids) < 40
    assert not [pid for pid in pids if is_running(pid)]


@needs_groups
async def test_what_is_left_in_the_groups_of_a_worker_that_is_gone_is_ended(bench: Bench) -> None:
    groups = bench.worker._groups
    assert groups is not None
    gone, alive = (ControlGroups(groups._parent, f"headrace-worker-{name}") for name in ("gone", "alive"))
    left = gone.make("run", None, None)
    process = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    left.enter(process.pid)
    await asyncio.to_thread(groups.sweep)
    assert process.returncode is None
    os.close(gone._lock)  # as the kernel does at its end
    await asyncio.to_thread(groups.sweep)
    assert await process.wait() == -signal.SIGKILL
    assert not [entrance for entrance in left.entrances if pathlib.Path(entrance).exists()]
    assert all(folder.exists() for folder in alive._folders(alive._worker))
    alive.close()
    assert not any(folder.exists() for folder in alive._folders(alive._worker))


async def test_a_run_that_has_used_up_its_processor_time_is_told_so(bench: Bench) -> None:
    _, result = await bench.run("spin", configuration={"cpu_time_limit_seconds": 1})
    assert result.status_code == 128 + signal.SIGXCPU
    assert "used up its processor time" in result.message


def test_only_folders_of_workers_that_are_gone_are_swept(tmp_path: pathlib.Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        alive = WorkerFolder()
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            dead = pathlib.Path(process.stdout.readline().decode().strip())
            assert sweep_folders() == []
            process.kill()
        assert len(list(dead.glob("run-*/data"))) == 1
        assert sweep_folders() == [dead.name]
        assert list(tmp_path.iterdir()) == [alive.path]
        alive.close()
        assert list(tmp_path.iterdir()) == []


def test_both_versions_of_control_groups_are_found(tmp_path: pathlib.Path) -> None:
    unified = tmp_path / "unified"
    unified.mkdir()
    one = f"cgroup {tmp_path}/m cgroup rw,memory 0 0\ncgroup {tmp_path}/p cgroup rw,relatime,pids 0 0\n"
    both = f"cgroup2 {unified} cgroup2 rw 0 0\n{one}"
    (unified / "cgroup.controllers").write_text("hugetlb\n")
    old = find_hierarchies(both)
    assert old is not None
    assert (old.version, old.memory, old.pids) == (1, tmp_path / "m", tmp_path / "p")
    (unified / "cgroup.controllers").write_text("cpu memory pids\n")
    new = find_hierarchies(both)
    assert new is not None
    assert (new.version, new.tops) == (2, (unified,))
    assert find_hierarchies(one.splitlines()[0]) is None


def test_what_is_written_to_groups_of_version_2(tmp_path: pathlib.Path) -> None:
    """Into plain files: only a kernel with the controllers in version 2 knows the rest."""
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    found = find_hierarchies(f"cgroup2 {tmp_path} cgroup2 rw 0 0")
    group = ControlGroups("a/b", "w", found).make("r", 1024, 7)
    assert isinstance(group, ControlGroup)
    for folder in ("a/b", "a/b/w"):
        assert (tmp_path / folder / "cgroup.subtree_control").read_text() == "+memory +pids"
    written = {file.name: file.read_text() for file in (tmp_path / "a/b/w/r").iterdir()}
    assert written == {"memory.max": "1024", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "7"}
    group.enter(42)
    assert (tmp_path / "a/b/w/r/cgroup.procs").read_text() == "42"
    assert group.out_of_memory == 0
    (tmp_path / "a/b/w/r/memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.out_of_memory == 2


def test_groups_that_cannot_be_made_are_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    (tmp_path / "file").write_text("")
    found = find_hierarchies(f"cgroup2 {tmp_path} cgroup2 rw 0 0")
    with pytest.raises(ConfigurationError, match="HEADRACE_WORKER_CGROUP is file, and no groups can be made"):
        ControlGroups("file", "w", found)
