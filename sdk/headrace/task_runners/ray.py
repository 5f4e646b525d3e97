"""Tasks on Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self, cast

from headrace.task_runners.clusters import ClusterTaskRunner

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.execution.processes.messages import Ended, Refused
    from headrace.task_runners.clusters import Placed

__all__ = ["RayTaskRunner", "remote_options"]

_options: ContextVar[Mapping[str, Any] | None] = ContextVar("headrace_ray_options", default=None)
_OWN_OPTIONS: Final = frozenset({"num_returns", "max_retries", "retry_exceptions"})


@contextmanager
def remote_options(**options: Any) -> Generator[None]:
    """What the tasks that are submitted inside ask Ray for: arguments of its `ray.remote`.

        with remote_options(num_cpus=4, memory=2 << 30):
            train.submit(rows)

    Inner options come over outer ones.

    Raises:
        ValueError: an option would change what a run is: how often it runs, what it gives.
    """
    refused = sorted(_OWN_OPTIONS & options.keys())
    if refused:
        raise ValueError(f"{', '.join(refused)} cannot be set for a task run; use the options of the task.")
    token = _options.set({**(_options.get() or {}), **options})
    try:
        yield
    finally:
        _options.reset(token)


class _Session:
    """Ray is one per process: the first task runner starts it, the last one ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._is_own = False

    def join(self, start: Callable[[], object]) -> None:
        with self._lock:
            if not _ray().is_initialized():
                start()
                self._is_own = True
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._is_own and not self._users:
                self._is_own = False
                _ray().shutdown()


_session: Final = _Session()


class RayTaskRunner(ClusterTaskRunner):
    """Runs tasks on the workers of Ray; needs `headrace[ray]`, here and on the workers.

        @flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 4}))
        def load(urls: list[str]) -> None: ...

    Where Ray is initialised in this process already, it is used as it is, and not shut down. Else Ray is
    started on this machine, or connected to, with the flow run, and left with the last one that uses it.
    Large results stay with Ray, and go from task to task, until the flow itself asks for them.
    `remote_options` says what tasks need.

    Args:
        address: of a cluster, as `ray.init` takes it: `auto`, `host:port` or `ray://host:port`.
        init_kwargs: further arguments for `ray.init`.
        max_workers: how many tasks run at once. Default: as many as Ray has room for.

    Raises:
        ValueError: `max_workers` is less than 1, or the address is given twice.
    """

    def __init__(
        self,
        address: str | None = None,
        init_kwargs: Mapping[str, Any] | None = None,
        *,
        max_workers: int | None = None,
    ) -> None:
        super().__init__(max_workers)
        self._address = address
        self._init_kwargs = dict(init_kwargs or {})
        if address is not None and "address" in self._init_kwargs:
            raise ValueError("Cannot specify `address` and `init_kwargs['address']`.")
        self._remote: Any = None

    def duplicate(self) -> Self:
        return type(self)(self._address, self._init_kwargs, max_workers=self._max_workers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RayTaskRunner):
            return NotImplemented
        return type(self) is type(other) and self._configuration == other._configuration

    def __hash__(self) -> int:
        return hash((type(self), self._address, self._max_workers))

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), *self._configuration)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(address={self._address!r}, init_kwargs={self._init_kwargs!r})"

    @property
    def _configuration(self) -> tuple[Any, ...]:
        return self._address, self._init_kwargs, self._max_workers

    def _open(self) -> int | None:
        ray = _ray()
        given = {} if self._address is None else {"address": self._address}
        _session.join(lambda: ray.init(**given, **self._init_kwargs))
        self._remote = ray.remote(_work)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        # What else there is on other machines, nobody here can ask.
        if len(nodes) > 1 or ray.util.client.ray.is_connected():
            return None
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def _close(self) -> None:
        self._remote = None
        _session.leave()

    def _place(self, call: TaskCall, packed_job: bytes, parts: Sequence[Any]) -> Placed:
        options = {**(_options.get() or {}), "name": call.run.name, "num_returns": 2, "max_retries": 0}
        return _Placed(self._remote.options(**options).remote(packed_job, *parts))


class _Placed:
    """The two references of a job: how it ended, and its result if that stays with Ray."""

    def __init__(self, references: Sequence[Any]) -> None:
        self._outcome, self.reference = references
        self._ray = _ray()

    def call_when_done(self, fn: Callable[[], object]) -> None:
        self._outcome.future().add_done_callback(lambda _: fn())  # pyright: ignore[reportUnknownLambdaType]

    def is_done(self) -> bool:
        done, _ = self._ray.wait([self._outcome], timeout=0)
        return bool(done)

    def outcome(self) -> Ended | Refused | None:
        return cast("Ended | Refused | None", self._ray.get(self._outcome))

    def result(self) -> bytes:
        return cast("bytes", self._ray.get(self.reference))

    def give_up(self) -> None:
        self._ray.cancel(self._outcome)


def _work(packed_job: bytes, *parts: bytes) -> tuple[Ended | Refused | None, bytes | None]:
    from headrace.task_runners.cluster_worker import work

    return work(packed_job, *parts)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise ImportError("RayTaskRunner needs Ray: pip install 'headrace[ray]'") from error


def _made(cls: type[RayTaskRunner], address: Any, init_kwargs: Any, max_workers: Any) -> RayTaskRunner:
    return cls(address, init_kwargs, max_workers=max_workers)
