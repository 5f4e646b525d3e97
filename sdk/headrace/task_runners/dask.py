"""Tasks on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, cast

from headrace.context import FlowRunContext
from headrace.task_runners.clusters import ClusterTaskRunner

if TYPE_CHECKING:
    from headrace.engine.tasks import TaskCall
    from headrace.execution.processes.messages import Ended, Refused
    from headrace.task_runners.cluster_worker import Report
    from headrace.task_runners.clusters import Placed

__all__ = ["DaskTaskRunner", "get_dask_client"]


class DaskTaskRunner(ClusterTaskRunner):
    """Runs tasks on the workers of a Dask cluster; needs `headrace[dask]`, here and on the workers.

        @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 4, "threads_per_worker": 2}))
        def load(urls: list[str]) -> None: ...

    By default a cluster of this machine is started with the flow run and ends with it; Dask starts its
    processes so that a script that does this needs `if __name__ == "__main__":`. Large results stay on the
    workers, and go from one to the other, until the flow itself asks for them.

    Args:
        cluster: a cluster that runs already; it is not closed.
        address: of a scheduler, e.g. `tcp://10.0.0.2:8786`.
        cluster_class: makes the cluster, or its name, e.g. `dask_kubernetes.operator.KubeCluster`. Default:
            `distributed.LocalCluster`.
        cluster_kwargs: arguments for it.
        adapt_kwargs: arguments for its method `adapt`: it grows and shrinks with what there is to do.
        client_kwargs: arguments for `distributed.Client`.
        performance_report_path: a file that gets Dask's report of the flow run; needs `bokeh`.
        max_workers: how many tasks run at once. Default: as many as the cluster has threads.

    Raises:
        ValueError: the arguments name more than one cluster, or `max_workers` is less than 1.
        TypeError: `client_kwargs` or `cluster_kwargs` ask for an asynchronous client or cluster, or
            `adapt_kwargs` come with a cluster that cannot adapt.
    """

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: str | Callable[..., Any] | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        performance_report_path: str | None = None,
        *,
        max_workers: int | None = None,
    ) -> None:
        super().__init__(max_workers)
        made = {"cluster_class": cluster_class, "cluster_kwargs": cluster_kwargs}
        if address is not None:
            _refuse("address", {"cluster": cluster, **made, "adapt_kwargs": adapt_kwargs})
        if cluster is not None:
            _refuse("cluster", made)
        for name, options in (("client_kwargs", client_kwargs), ("cluster_kwargs", cluster_kwargs)):
            if (options or {}).get("asynchronous"):
                raise TypeError(f"{name} cannot have `asynchronous`: the task runner waits in threads.")
        self._configuration: dict[str, Any] = {
            "cluster": cluster,
            "address": address,
            "cluster_class": cluster_class,
            "cluster_kwargs": dict(cluster_kwargs or {}),
            "adapt_kwargs": dict(adapt_kwargs or {}),
            "client_kwargs": dict(client_kwargs or {}),
            "performance_report_path": performance_report_path,
            "max_workers": max_workers,
        }
        self._stack = ExitStack()
        self._client: Any = None

    def duplicate(self) -> Self:
        return type(self)(**self._configuration)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DaskTaskRunner):
            return NotImplemented
        return type(self) is type(other) and self._configuration == other._configuration

    def __hash__(self) -> int:
        return hash((type(self), self._configuration["address"], self._max_workers))

    def __reduce__(self) -> tuple[Any, ...]:
        # A cluster stays where it is; who gets the runner can still reach it.
        configuration = dict(self._configuration)
        cluster = configuration.pop("cluster")
        if cluster is not None:
            configuration |= {"address": cluster.scheduler_address, "adapt_kwargs": {}}
        return _made, (type(self), configuration)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._configuration.items() if value)
        return f"{type(self).__name__}({given})"

    @property
    def client(self) -> Any:
        """The `distributed.Client`, while the runner is started.

        Raises:
            RuntimeError: it is not.
        """
        if self._client is None:
            raise RuntimeError("Task runner is not started")
        return self._client

    def _open(self) -> int | None:
        configuration = self._configuration
        with ExitStack() as stack:
            cluster = configuration["cluster"]
            if configuration["address"] is None and cluster is None:
                cluster = stack.enter_context(
                    _cluster_class(configuration)(**configuration["cluster_kwargs"])
                )
            if configuration["adapt_kwargs"]:
                cluster.adapt(**configuration["adapt_kwargs"])
            # Not the default of the program, which may have one of its own.
            options = {"set_as_default": False, **configuration["client_kwargs"]}
            client = _distributed().Client(configuration["address"] or cluster, **options)
            self._client = stack.enter_context(client)
            if configuration["performance_report_path"]:
                stack.enter_context(self._client.as_current())
                report = _distributed().performance_report(filename=configuration["performance_report_path"])
                stack.enter_context(report)
            is_fixed = isinstance(cluster, _distributed().LocalCluster) and not configuration["adapt_kwargs"]
            capacity = self._thread_total() if is_fixed else None
            self._stack = stack.pop_all()
        return capacity

    def _thread_total(self) -> int | None:
        """How many threads all workers have; None: there are no workers yet."""
        counts: Mapping[str, int] = self._client.nthreads()
        return sum(counts.values()) or None

    def _close(self) -> None:
        self._client = None
        self._stack.close()

    def _place(self, call: TaskCall, packed_job: bytes, parts: Sequence[Any]) -> Placed:
        # What comes before the first hyphen followed by an id is what Dask shows.
        key = f"{call.context.task.name}-{call.run.id}"
        return _Placed(self._client, key, packed_job, parts)


class _Placed:
    """A future of Dask: of a `Report`."""

    def __init__(self, client: Any, key: str, packed_job: bytes, parts: Sequence[Any]) -> None:
        if len(packed_job) > _SCATTERED_BYTES:
            # What is part of the graph goes through the scheduler, which warns.
            packed_job = client.scatter(packed_job, hash=False)
        self._client = client
        self.reference: Any = client.submit(_work, packed_job, *parts, key=key, pure=False)

    def call_when_done(self, fn: Callable[[], object]) -> None:
        self.reference.add_done_callback(lambda _: fn())  # pyright: ignore[reportUnknownLambdaType]

    def is_done(self) -> bool:
        return cast("bool", self.reference.done())

    def outcome(self) -> Ended | Refused | None:
        # On the cluster, so that a large result stays there.
        outcome = self._client.submit(_outcome_of, self.reference, pure=False)
        return cast("Ended | Refused | None", outcome.result())

    def result(self) -> bytes:
        _, left = cast("Report", self.reference.result())
        assert left is not None
        return left

    def give_up(self) -> None:
        self.reference.cancel()


_SCATTERED_BYTES = 1 << 20


def _work(packed_job: bytes, *reports: Report) -> Report:
    from headrace.task_runners.cluster_worker import work

    return work(packed_job, *[left for _, left in reports if left is not None])


def _outcome_of(report: Report) -> Ended | Refused | None:
    return report[0]


@contextmanager
def get_dask_client(timeout: float | None = None) -> Generator[Any]:
    """A client of the cluster that the flow run uses, in a task of it or in the flow itself.

        @task
        def total(frame: Any) -> float:
            with get_dask_client() as client:
                return client.compute(frame.sum()).result()

    Meanwhile the task does not take up a thread of its worker.

    Args:
        timeout: seconds to wait for the connection at most; None: as Dask is configured.

    Yields:
        A `distributed.Client`.

    Raises:
        RuntimeError: the flow run around has no `DaskTaskRunner`, or there is none.
    """
    if _is_in_worker():
        with _distributed().worker_client(timeout=timeout) as client:
            yield client
        return
    flow = FlowRunContext.get()
    runner = None if flow is None else flow.task_runner
    if not isinstance(runner, DaskTaskRunner):
        raise RuntimeError("get_dask_client is for flows that use a DaskTaskRunner, and for their tasks.")
    yield runner.client


def _is_in_worker() -> bool:
    try:
        _distributed().get_worker()
    except ValueError:
        return False
    return True


def _refuse(given: str, others: Mapping[str, Any]) -> None:
    also = [f"`{name}`" for name, value in others.items() if value]
    if also:
        raise ValueError(f"Cannot specify `{given}` and {', '.join(also)}: they name different clusters.")


def _cluster_class(configuration: Mapping[str, Any]) -> Callable[..., Any]:
    chosen = configuration["cluster_class"]
    if chosen is None:
        return cast("Callable[..., Any]", _distributed().LocalCluster)
    if isinstance(chosen, str):
        module, _, name = chosen.rpartition(".")
        return cast("Callable[..., Any]", getattr(import_module(module), name))
    return cast("Callable[..., Any]", chosen)


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise ImportError("DaskTaskRunner needs Dask: pip install 'headrace[dask]'") from error


def _made(cls: type[DaskTaskRunner], configuration: dict[str, Any]) -> DaskTaskRunner:
    return cls(**configuration)
