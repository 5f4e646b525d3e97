"""Dask and Ray on this machine, as small as they can be, for as long as tests in a row share them."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pytest

__all__ = [
    "CLUSTERS",
    "DASK",
    "RAY",
    "TOO_SLOW",
    "WORKERS",
    "dask_cluster",
    "group_of",
    "on_dask",
    "on_ray",
    "ray_environment",
    "ray_session",
]

T = TypeVar("T", bound=Callable[..., Any])
# One process has each cluster, and whoever comes first waits for its start.
DASK = [pytest.mark.xdist_group("dask"), pytest.mark.timeout(300)]
RAY = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]
WORKERS = 2
_TRIES = 3
TOO_SLOW = "timed out during startup"
"""What Ray says when it has taken too long to start."""


def on_dask(test: T) -> T:
    """A test that uses the Dask cluster."""
    return DASK[0](DASK[1](test))


def on_ray(test: T) -> T:
    """A test that uses Ray."""
    return RAY[0](RAY[1](test))


@contextmanager
def dask_cluster(workers: int = WORKERS) -> Generator[Any]:
    """A cluster of processes with one thread each, without a dashboard."""
    import dask
    from distributed import LocalCluster

    with (
        tempfile.TemporaryDirectory(prefix="dask-") as folder,
        dask.config.set({"temporary-directory": folder, "distributed.worker.daemon": True}),
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
    ):
        yield cluster


@contextmanager
def ray_session() -> Generator[Any]:
    """Ray with two processors, initialised in this process; it is gone afterwards."""
    # Paths of sockets must be short.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # It would leave a token in the home folder of whoever runs the tests.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        others = _programs()
        _start(ray, folder, others)
        try:
            yield ray
        finally:
            _stop(ray, others)
            shutil.rmtree(folder, ignore_errors=True)


def _stop(ray: Any, others: list[Any]) -> None:
    """End Ray: it tells its programs to leave, but does not wait for them."""
    running = [program for program in _programs() if program not in others]
    ray.shutdown()
    for program in running:
        program.wait(60)


def _start(ray: Any, folder: str, others: list[Any]) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            ray.init(
                num_cpus=WORKERS,
                include_dashboard=False,
                object_store_memory=80 << 20,
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=folder,
            )
            return
        except Exception as error:
            # It gives itself half a minute, which a busy machine may not.
            if TOO_SLOW not in str(error) or not tries_left:
                raise
            _stop(ray, others)


def _programs() -> list[Any]:
    """What this process has started, and what has not ended."""
    started = [one for one in gc.get_objects() if isinstance(one, subprocess.Popen)]
    return [program for program in started if program.poll() is None]


def ray_environment() -> dict[str, str]:
    """Variables for programs that start Ray themselves."""
    return {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }


class Clusters:
    """What is started for the first test that asks for it, and stopped after the last one in a row."""

    def __init__(self, makers: dict[str, Callable[[], AbstractContextManager[Any]]]) -> None:
        self._makers = makers
        self._running: dict[str, tuple[AbstractContextManager[Any], Any]] = {}

    def get(self, name: str) -> Any:
        """The cluster of that name, running."""
        if name not in self._running:
            manager = self._makers[name]()
            self._running[name] = manager, manager.__enter__()
        return self._running[name][1]

    def stop(self, name: str) -> None:
        """End it, if it runs."""
        if name in self._running:
            manager, _ = self._running.pop(name)
            manager.__exit__(None, None, None)


CLUSTERS = Clusters({"dask": dask_cluster, "ray": ray_session})


def group_of(item: pytest.Item) -> str | None:
    """The xdist group of a test, whose members one process runs one after the other."""
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else None
