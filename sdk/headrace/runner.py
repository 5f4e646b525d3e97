"""Serving flows from the program they stand in: `flow.serve`, `serve`, and what they are made of.

    if __name__ == "__main__":
        nightly.serve(cron="0 2 * * *")

A serving process registers its deployments and is a worker for their runs, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from headrace.client import get_client
from headrace.core.errors import ConfigurationError, ServiceError
from headrace.deployments.declaring import ConcurrencyLimitConfig, RunnerDeployment
from headrace.execution.background import dispatched
from headrace.settings import get_current_settings
from headrace.v1.worker_pb2 import WorkerStatus

if TYPE_CHECKING:
    from headrace.flows import Flow

__all__ = ["ConcurrencyLimitConfig", "Runner", "RunnerDeployment", "aserve", "serve"]

DEFAULT_LIMIT: Final = 5


class Runner:
    """Runs the runs of its deployments, each in a process of its own.

    Args:
        name: what people see; None: made up.
        limit: runs at once; None: as many as there are.
        pause_on_shutdown: pause the deployments when it leaves, unless somebody else serves them.
        webserver: answer over HTTP, where the settings `runner_server_host` and `runner_server_port` say:
            `/health`, `/ready`, `/metrics`, `/run_count`, POST `/shutdown`, POST `/deployment/{id}/run`. The
            setting `runner_server_enable` does so too.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        limit: int | None = DEFAULT_LIMIT,
        pause_on_shutdown: bool = True,
        webserver: bool = False,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"'limit' must be at least 1, got {limit}")
        self.name = name or ""
        self.limit = limit
        self.pause_on_shutdown = pause_on_shutdown
        self.webserver = webserver
        self.deployment_ids: list[str] = []
        self._service: Any = None

    async def aadd_flow(self, flow: Flow[..., Any], name: str | None = None, **options: Any) -> str:
        """`add_flow`, for code on an event loop."""
        return await self.aadd_deployment(flow.to_deployment(name or flow.name, **options))

    def add_flow(self, flow: Flow[..., Any], name: str | None = None, **options: Any) -> str:
        """Register a deployment of a flow; to be awaited where an event loop runs.

        Args:
            flow: the flow.
            name: of the deployment; None: the flow's.
            options: those of `Flow.to_deployment`.

        Returns:
            Its id.

        Raises:
            ValueError: as of `add_deployment`.
        """
        return dispatched(self.aadd_flow(flow, name, **options))

    def add_deployment(self, deployment: RunnerDeployment) -> str:
        """Register a deployment; to be awaited where an event loop runs.

        Returns:
            Its id.

        Raises:
            ValueError: it has a work pool, whose workers run it.
        """
        return dispatched(self.aadd_deployment(deployment))

    async def aadd_deployment(self, deployment: RunnerDeployment) -> str:
        """`add_deployment`, for code on an event loop."""
        if deployment.work_pool_name:
            raise ValueError(
                f"'{deployment.name}' is for workers of pool {deployment.work_pool_name}: apply it instead"
            )
        if deployment.paused is None:
            # Whoever served it before has paused it when it left.
            deployment = replace(deployment, paused=False)
        deployment_id = await deployment.aapply()
        self.deployment_ids.append(deployment_id)
        return deployment_id

    async def start(
        self,
        *,
        run_once: bool = False,
        webserver: bool | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Take runs until told to stop; SIGINT and SIGTERM let those that run end first.

        Args:
            run_once: take what is there now, and return.
            webserver: None: as the runner was made.
            tell: takes lines for whoever looks; None: they are printed on standard error.
        """
        from headrace_workers.lines import LineWriter
        from headrace_workers.process.worker import ProcessWorker
        from headrace_workers.service import WorkerOptions, WorkerService
        from headrace_workers.serving import ServingRoutes

        if not self.deployment_ids:
            raise ConfigurationError("A runner without a deployment has nothing to run: add one first.")
        writer = None if tell is not None else LineWriter()
        settings = get_current_settings()
        is_served = self.webserver if webserver is None else webserver
        options = WorkerOptions(
            name=self.name,
            deployment_ids=self.deployment_ids,
            limit=self.limit,
            run_once=run_once,
            health_address=(settings.runner_server_host, settings.runner_server_port)
            if is_served or settings.runner_server_enable
            else None,
            more=ServingRoutes(self.deployment_ids, self.stop),
        )
        service = WorkerService(options, ProcessWorker(), settings, tell or writer or print)
        self._service = service
        try:
            await service.run()
        finally:
            self._service = None
            if self.pause_on_shutdown and not run_once:
                try:
                    await self._pause()
                except ServiceError as error:
                    print(f"The deployments could not be paused: {error.message}", file=sys.stderr)
            if writer is not None:
                writer.close()

    def stop(self) -> None:
        """Take nothing new, and return from `start` when nothing runs any more."""
        if self._service is not None:
            self._service.leave()

    async def execute_flow_run(self, flow_run_id: str | UUID, entrypoint: str | None = None) -> int:
        """Execute one run that is on record, in a process of its own, and wait for its end.

        It is taken as it is: nobody else must be executing it. When this is cancelled, the process gets
        SIGTERM, and is waited for.

        Args:
            flow_run_id: the run.
            entrypoint: of the flow; None: the run's deployment says it.

        Returns:
            The process's exit code: 0 when the run has completed, or goes on elsewhere.
        """
        from headrace_workers.service import child_environment

        words = [sys.executable, "-m", "headrace", "flow-run", "execute", str(flow_run_id)]
        if entrypoint is not None:
            words += ["--entrypoint", entrypoint]
        environment = {**os.environ, **child_environment(get_current_settings())}
        process = await asyncio.create_subprocess_exec(*words, env=environment)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise

    async def _pause(self) -> None:
        """Let no schedule make runs that nobody would take."""
        async with get_client() as client:
            statuses = [WorkerStatus.WORKER_STATUS_ONLINE]
            others = [worker async for worker in client.iter_workers(statuses=statuses)]
            served = {deployment_id for worker in others for deployment_id in worker.deployment_ids}
            for deployment_id in self.deployment_ids:
                if deployment_id not in served:
                    await client.pause_deployment(deployment_id)


async def aserve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
    webserver: bool = False,
) -> None:
    """`serve`, for code on an event loop."""
    runner = Runner(limit=limit, pause_on_shutdown=pause_on_shutdown, webserver=webserver)
    for deployment in deployments:
        await runner.aadd_deployment(deployment)
    if print_starting_message:
        for deployment in deployments:
            name = f"{deployment.flow_name}/{deployment.name}"
            print(f"Serving {name}. Ctrl-C stops it.", file=sys.stderr)
    await runner.start()


def serve(
    *deployments: RunnerDeployment,
    pause_on_shutdown: bool = True,
    print_starting_message: bool = True,
    limit: int | None = None,
    webserver: bool = False,
) -> None:
    """Serve deployments from this process until it is told to stop.

    Args:
        deployments: made with `Flow.to_deployment`.
        pause_on_shutdown: pause them at the end, unless another process serves them too.
        print_starting_message: say what is served.
        limit: runs at once, of all of them together; None: as many as there are.
        webserver: answer over HTTP, as `Runner` does.

    Raises:
        RuntimeError: an event loop runs here: await `aserve`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("serve() blocks, and an event loop runs here: await headrace.runner.aserve().")
    asyncio.run(
        aserve(
            *deployments,
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
            limit=limit,
            webserver=webserver,
        )
    )
