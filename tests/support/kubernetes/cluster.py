"""One cluster: server, controllers and kubelet on an event loop of their own."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from aiohttp import web

from tests.support.kubernetes.jobs import JobController
from tests.support.kubernetes.kubelet import Kubelet
from tests.support.kubernetes.server import ApiServer, Rule
from tests.support.kubernetes.store import Object, Store

__all__ = ["TOKEN", "StubCluster"]

TOKEN = "the token of the worker's account"
T = TypeVar("T")


class StubCluster:
    """A cluster of one node, served on loopback from a thread; `with` it.

    It behaves as Kubernetes does where a worker can notice: versions, watches and their ends, deletion and
    its propagation, refusals, statuses of jobs and pods. Images are names only: a container is a process of
    this machine.

    Args:
        folder: for the homes of its pods.
        rules: what the worker may do in a namespace.

    Attributes:
        images: what can be pulled.
        server: the API; its attributes may be set from any thread.
    """

    def __init__(
        self, folder: pathlib.Path, rules: list[Rule], images: tuple[str, ...] = ("flows:1",)
    ) -> None:
        self.images = set(images)
        self.url = ""
        self._folder = folder
        self._rules = rules
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubernetes", daemon=True)
        self._store = Store()
        self._runner: web.AppRunner | None = None
        path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.kubelet = Kubelet(self._store, folder, self.images, {"PATH": path})
        self.jobs_controller = JobController(self._store, self.kubelet)
        self.server = ApiServer(self._store, self.kubelet, self.jobs_controller, rules, TOKEN)

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self.jobs_controller.close()
        await self.kubelet.close()
        await self._hang_up()
        await self._loop.shutdown_default_executor()

    def do(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Run something on the cluster's loop."""
        return asyncio.run_coroutine_threadsafe(work(*arguments), self._loop).result(60)

    def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Call something on the cluster's loop."""

        async def run() -> T:
            return work(*arguments)

        return self.do(run)

    # The API server comes and goes; what runs goes on.

    def listen(self) -> None:
        """Serve, on the port of the time before if there was one."""
        self.do(self._listen)

    async def _listen(self) -> None:
        self._runner = web.AppRunner(
            self.server.app(), shutdown_timeout=0.1, handler_cancellation=True, access_log=None
        )
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def hang_up(self) -> None:
        """The API server is gone; pods and controllers are not."""
        self.do(self._hang_up)

    async def _hang_up(self) -> None:
        if self._runner is not None:
            self._end_watches()
            await self._runner.cleanup()
            self._runner = None

    def compact(self) -> None:
        """Forget old versions: watches end with 410."""
        self.call(self._store.compact)

    def bookmark(self) -> None:
        """Tell who watches which version it is, as happens every minute."""

        def tell() -> None:
            for watcher in self._store.watchers:
                metadata = {"resourceVersion": str(self._store.version)}
                watcher.tell("BOOKMARK", {"metadata": metadata})

        self.call(tell)

    def end_watches(self) -> None:
        """As happens when their time is over."""
        self.call(self._end_watches)

    def _end_watches(self) -> None:
        for watcher in self._store.watchers:
            watcher.events.put_nowait(None)

    def watches(self, label: str) -> int:
        """How many are open that ask for a label."""
        return sum(label in watcher.selector.split(",") for watcher in list(self._store.watchers))

    # What is in it.

    def jobs(self, namespace: str = "") -> list[Object]:
        return self.call(lambda: list(self._store.all("jobs", namespace)))

    def pods(self, namespace: str = "") -> list[Object]:
        return self.call(lambda: list(self._store.all("pods", namespace)))

    def pid_of(self, pod: Object) -> int | None:
        """Of the process in a pod."""
        return self.call(self.kubelet.process_of, pod)

    def oom(self, pod: Object) -> None:
        self.call(self.kubelet.oom, pod)

    def evict(self, pod: Object) -> None:
        self.call(self.kubelet.evict, pod)

    def delete_job(self, job: Object, policy: str = "Background") -> None:
        """As an administrator does."""
        self.call(self.jobs_controller.delete, job, policy)

    def signal(self, pod: Object, signum: signal.Signals) -> None:
        self.call(self.kubelet.signal, pod, signum)

    # How it is reached.

    def kubeconfig(self, namespace: str = "default") -> dict[str, Any]:
        """A kubeconfig of the worker's account."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": self.url}}],
            "users": [{"name": "worker", "user": {"token": TOKEN}}],
            "contexts": [
                {"name": "stub", "context": {"cluster": "stub", "user": "worker", "namespace": namespace}}
            ],
        }

    def write_kubeconfig(self, path: pathlib.Path) -> pathlib.Path:
        """The same, in a file."""
        path.write_text(yaml.safe_dump(self.kubeconfig()))
        return path
