"""Runs the containers of pods as processes of this machine, and says in their status what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from tests.support.kubernetes.store import Object, Store, now

__all__ = ["Kubelet", "PodLog"]

_IMAGE = re.compile(r"[a-z0-9]([a-z0-9._/:@-]*[a-zA-Z0-9._-])?")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


# A container that does not obey would outlive tests that are killed.
_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


class PodLog:
    """What a container has printed."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.is_over = False
        self._news = asyncio.Event()

    def add(self, line: str) -> None:
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        self.lines.append((time, line))
        self._wake()

    def end(self) -> None:
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def more(self) -> None:
        """Wait until there is something new."""
        await self._news.wait()


class Kubelet:
    """The one node of the cluster.

    Attributes:
        images: what registries have.
        environment: what every image sets.
        capacity: what the node has of each resource.
        logs: by pod uid.
    """

    def __init__(
        self, store: Store, folder: pathlib.Path, images: set[str], environment: dict[str, str]
    ) -> None:
        self.images = images
        self.environment = environment
        self.capacity = {"cpu": 4.0, "memory": 8 * 2.0**30}
        self.logs: dict[str, PodLog] = {}
        self._store = store
        self._folder = folder
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ended_because: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, pod: Object) -> None:
        """Take a pod that was just made."""
        self._tasks[pod["metadata"]["uid"]] = asyncio.ensure_future(self._run(pod))

    async def _run(self, pod: Object) -> None:
        if (missing := self._does_not_fit(pod)) is not None:
            message = f"0/1 nodes are available: 1 Insufficient {missing}."
            self._condition(pod, "PodScheduled", "False", "Unschedulable", message)
            self._event(pod, "FailedScheduling", message)
            return None
        pod["spec"]["nodeName"] = "node-1"
        self._condition(pod, "PodScheduled", "True")
        if (volume := self._unknown_secret(pod)) is not None:
            self._waiting(pod, "ContainerCreating", "")
            words = f'MountVolume.SetUp failed for volume "{volume}" : secret "{volume}" not found'
            self._event(pod, "FailedMount", words)
            return None
        self._waiting(pod, "ContainerCreating", "")
        if (reason := self._image_problem(pod)) is not None:
            return self._no_image(pod, *reason)
        await self._container(pod)
        return None

    def _does_not_fit(self, pod: Object) -> str | None:
        requests: Object = pod["spec"]["containers"][0].get("resources", {}).get("requests") or {}
        for name, quantity in requests.items():
            number = re.match(r"[\d.]+", quantity)
            assert number is not None
            if float(number[0]) * _UNITS[quantity[number.end() :]] > self.capacity.get(name, 0):
                return name
        return None

    def _unknown_secret(self, pod: Object) -> str | None:
        for volume in pod["spec"].get("volumes") or []:
            secret = (volume.get("secret") or {}).get("secretName")
            if secret and self._store.find("secrets", pod["metadata"]["namespace"], secret) is None:
                return str(secret)
        return None

    def _image_problem(self, pod: Object) -> tuple[str, str] | None:
        container = pod["spec"]["containers"][0]
        image = container["image"]
        if not _IMAGE.fullmatch(image):
            return (
                "InvalidImageName",
                f'Failed to apply default image tag "{image}": invalid reference format',
            )
        if image not in self.images:
            if container.get("imagePullPolicy") == "Never":
                words = f'Container image "{image}" is not present with pull policy of Never'
                return "ErrImageNeverPull", words
            words = f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": not found'
            return "ErrImagePull", words
        return None

    def _no_image(self, pod: Object, reason: str, message: str) -> None:
        self._waiting(pod, reason, message)
        self._event(pod, "Failed", message)
        if reason == "ErrImagePull":
            image = pod["spec"]["containers"][0]["image"]
            self._waiting(
                pod, "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}'
            )

    async def _container(self, pod: Object) -> None:
        uid, container = pod["metadata"]["uid"], pod["spec"]["containers"][0]
        log = self.logs[uid] = PodLog()
        home = self._folder / uid
        home.mkdir()
        environment = {**self.environment, "HOME": str(home), "HOSTNAME": pod["metadata"]["name"]}
        environment.update({v["name"]: v.get("value", "") for v in container.get("env") or []})
        command = [*(container.get("command") or []), *(container.get("args") or [])]
        if not command or shutil.which(command[0], path=environment.get("PATH")) is None:
            words = f'exec: "{(command or [""])[0]}": executable file not found in $PATH'
            return self._ended(pod, 128, "StartError", f"failed to create containerd task: {words}")
        process = await asyncio.create_subprocess_exec(
            *_WITH_US,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=home,
            start_new_session=True,
            limit=2**20,
        )
        self._processes[uid] = process
        started = now()
        running = {"running": {"startedAt": started}}
        self._status(pod, "Running", {"ready": True, "started": True, "state": running})
        assert process.stdout is not None
        async for line in process.stdout:
            log.add(line.decode(errors="replace").rstrip("\n"))
        code = await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.end()
        code = 128 - code if code < 0 else code
        because = self._ended_because.pop(uid, "")
        reason = because if because == "OOMKilled" else "Error" if code else "Completed"
        self._ended(pod, code, reason, "")
        return None

    def _ended(self, pod: Object, code: int, reason: str, message: str) -> None:
        state = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
        if message:
            state["message"] = message
        phase = "Failed" if code else "Succeeded"
        if pod.get("status", {}).get("phase") not in ("Failed", "Succeeded"):
            self._status(pod, phase, {"ready": False, "started": False, "state": {"terminated": state}})

    # What others do to pods.

    def process_of(self, pod: Object) -> int | None:
        """The process id of a pod's container while it runs."""
        process = self._processes.get(pod["metadata"]["uid"])
        return process.pid if process is not None and process.returncode is None else None

    def signal(self, pod: Object, signum: signal.Signals) -> None:
        """To the first process of the container; SIGKILL is for all of them."""
        if (pid := self.process_of(pod)) is not None:
            (os.killpg if signum == signal.SIGKILL else os.kill)(pid, signum)

    def oom(self, pod: Object) -> None:
        """Memory of the pod's cgroup runs out."""
        self._ended_because[pod["metadata"]["uid"]] = "OOMKilled"
        self.signal(pod, signal.SIGKILL)

    def evict(self, pod: Object) -> None:
        """The node is short of something: the pod has to go."""
        message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. "
        self.signal(pod, signal.SIGKILL)
        self._condition(pod, "DisruptionTarget", "True", "TerminationByKubelet", message)
        pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
        self._store.changed("pods", pod)

    def delete(self, pod: Object, grace_seconds: int | None) -> None:
        """As the API does: asked to end, made to end, then gone. A grace can only be made shorter."""
        metadata = pod["metadata"]
        grace = pod["spec"]["terminationGracePeriodSeconds"] if grace_seconds is None else grace_seconds
        known = metadata.get("deletionGracePeriodSeconds")
        if known is not None and grace >= known:
            return
        metadata |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace}
        self._store.changed("pods", pod)
        self._tasks[metadata["uid"] + "/end"] = asyncio.ensure_future(self._end(pod, grace))

    async def _end(self, pod: Object, grace_seconds: int) -> None:
        uid = pod["metadata"]["uid"]
        task = self._tasks[uid]
        if self.process_of(pod) is None:
            task.cancel()
        if grace_seconds:
            self.signal(pod, signal.SIGTERM)
            await asyncio.wait([task], timeout=grace_seconds)
        self.signal(pod, signal.SIGKILL)
        await asyncio.wait([task])
        self._store.remove("pods", pod)

    async def close(self) -> None:
        """End everything."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for process in self._processes.values():
            await process.wait()

    # What is said of them.

    def _waiting(self, pod: Object, reason: str, message: str) -> None:
        waiting = {"reason": reason, **({"message": message} if message else {})}
        self._status(pod, "Pending", {"ready": False, "started": False, "state": {"waiting": waiting}})

    def _status(self, pod: Object, phase: str, container: Object) -> None:
        spec = pod["spec"]["containers"][0]
        common = {"name": spec["name"], "image": spec["image"], "restartCount": 0}
        pod["status"] |= {"phase": phase, "containerStatuses": [{**common, **container}]}
        self._store.changed("pods", pod)

    def _condition(self, pod: Object, type: str, status: str, reason: str = "", message: str = "") -> None:
        condition = {"type": type, "status": status, "reason": reason, "message": message}
        pod["status"].setdefault("conditions", []).append(condition)
        self._store.changed("pods", pod)

    def _event(self, pod: Object, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        about = {
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        }
        event = {
            "metadata": {
                "name": f"{metadata['name']}.{self._store.version:x}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        self._store.add("events", event)

    def pods(self, namespace: str = "") -> Iterator[Any]:
        """Those that are there."""
        return self._store.all("pods", namespace)
