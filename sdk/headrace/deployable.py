"""What makes a flow run elsewhere: as a deployment, served by its own program or run by a pool's workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from headrace.deployments.declaring import (
        ConcurrencyLimitConfig,
        EntrypointType,
        Intervals,
        RunnerDeployment,
        Texts,
    )
    from headrace.deployments.sources import FlowSource, Source
    from headrace.docker import DockerImage
    from headrace.flows import Flow
    from headrace.schedules import Schedule

__all__ = ["Deployable"]


class Deployable:
    """The part of a flow that deploys it.

    Attributes:
        name: what people see.
        source: where `from_source` has found the flow; None: where it is imported from.
    """

    name: str
    source: FlowSource | None = None

    def to_deployment(
        self,
        name: str,
        *,
        interval: Intervals | None = None,
        cron: Texts | None = None,
        rrule: Texts | None = None,
        schedule: Schedule | None = None,
        schedules: Sequence[Schedule] | None = None,
        paused: bool | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        fairness_key: str | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        work_pool_name: str | None = None,
        work_queue_name: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        entrypoint_type: EntrypointType = "file",
    ) -> RunnerDeployment:
        """The flow as a deployment, for `headrace.serve`, or for its `apply` method.

        Args:
            name: unique for the flow.
            interval: between runs, as a `timedelta` or in seconds; several make several schedules. Only one
                of `interval`, `cron`, `rrule`, `schedule` and `schedules` can be given.
            cron: cron expressions in UTC.
            rrule: recurrence rules in UTC.
            schedule: with a time zone, parameters, or more.
            schedules: several of them.
            paused: no schedule makes a run; None: as it is, and not if it is new.
            concurrency_limit: runs at once.
            parameters: of runs that do not say otherwise.
            description: default: the flow's.
            tags: of every run.
            fairness_key: runs of equal keys take turns with those of others; a template over `parameters`,
                `tags` and `labels` such as `{{ parameters.tenant }}`. None: as the server has it.
            version: default: the flow's.
            enforce_parameter_schema: parameters are checked when a run is created.
            work_pool_name: whose workers run it; None: whoever serves it.
            work_queue_name: of the pool.
            job_variables: over the pool's template.
            entrypoint_type: `file`: runs load the flow by its file; `module`: by its module.

        Raises:
            ValueError: another process could not load the flow, or more than one kind of schedule is given.
        """
        from headrace.deployments.declaring import RunnerDeployment

        return RunnerDeployment.from_flow(
            cast("Flow[..., Any]", self),
            name,
            interval=interval,
            cron=cron,
            rrule=rrule,
            schedule=schedule,
            schedules=schedules,
            paused=paused,
            concurrency_limit=concurrency_limit,
            parameters=parameters,
            description=description,
            tags=tags,
            fairness_key=fairness_key,
            version=version,
            enforce_parameter_schema=enforce_parameter_schema,
            work_pool_name=work_pool_name,
            work_queue_name=work_queue_name,
            job_variables=job_variables,
            entrypoint_type=entrypoint_type,
        )

    async def ato_deployment(self, name: str, **options: Any) -> RunnerDeployment:
        """`to_deployment`, for code that awaits it; it waits for nothing."""
        return self.to_deployment(name, **options)

    def serve(
        self,
        name: str | None = None,
        *,
        interval: Intervals | None = None,
        cron: Texts | None = None,
        rrule: Texts | None = None,
        schedule: Schedule | None = None,
        schedules: Sequence[Schedule] | None = None,
        paused: bool | None = None,
        global_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        fairness_key: str | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        pause_on_shutdown: bool = True,
        print_starting_message: bool = True,
        limit: int | None = None,
        webserver: bool = False,
        entrypoint_type: EntrypointType = "file",
    ) -> None:
        """Serve the flow as a deployment from this process, until it is told to stop.

        Args:
            name: of the deployment; default: the flow's.
            interval: as of `to_deployment`, as are all options that are not named here.
            paused: no schedule makes a run; None: they do from now on.
            global_limit: runs at once, wherever they run.
            pause_on_shutdown: pause the deployment at the end, unless another process serves it too.
            print_starting_message: say what is served.
            limit: runs at once in this process; None: as many as there are.
            webserver: answer over HTTP, as `headrace.runner.Runner` does.
        """
        from headrace.runner import serve

        deployment = self.to_deployment(
            name or self.name,
            interval=interval,
            cron=cron,
            rrule=rrule,
            schedule=schedule,
            schedules=schedules,
            paused=paused,
            concurrency_limit=global_limit,
            parameters=parameters,
            description=description,
            tags=tags,
            fairness_key=fairness_key,
            version=version,
            enforce_parameter_schema=enforce_parameter_schema,
            entrypoint_type=entrypoint_type,
        )
        serve(
            deployment,
            pause_on_shutdown=pause_on_shutdown,
            print_starting_message=print_starting_message,
            limit=limit,
            webserver=webserver,
        )

    async def adeploy(
        self,
        name: str,
        work_pool_name: str | None = None,
        *,
        interval: Intervals | None = None,
        cron: Texts | None = None,
        rrule: Texts | None = None,
        schedule: Schedule | None = None,
        schedules: Sequence[Schedule] | None = None,
        paused: bool | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        fairness_key: str | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        work_queue_name: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        entrypoint_type: EntrypointType = "file",
        image: str | DockerImage | None = None,
        build: bool = True,
        push: bool = True,
        print_next_steps: bool = True,
        ignore_warnings: bool = False,
    ) -> str:
        """`deploy`, for code on an event loop."""
        from headrace.deployments.deploying_flows import adeploy

        deployment = self.to_deployment(
            name,
            work_pool_name=work_pool_name,
            interval=interval,
            cron=cron,
            rrule=rrule,
            schedule=schedule,
            schedules=schedules,
            paused=paused,
            concurrency_limit=concurrency_limit,
            parameters=parameters,
            description=description,
            tags=tags,
            fairness_key=fairness_key,
            version=version,
            enforce_parameter_schema=enforce_parameter_schema,
            work_queue_name=work_queue_name,
            job_variables=job_variables,
            entrypoint_type=entrypoint_type,
        )
        [deployment_id] = await adeploy(
            deployment,
            image=image,
            build=build,
            push=push,
            print_next_steps_message=print_next_steps,
            ignore_warnings=ignore_warnings,
        )
        return deployment_id

    def deploy(
        self,
        name: str,
        work_pool_name: str | None = None,
        *,
        interval: Intervals | None = None,
        cron: Texts | None = None,
        rrule: Texts | None = None,
        schedule: Schedule | None = None,
        schedules: Sequence[Schedule] | None = None,
        paused: bool | None = None,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        fairness_key: str | None = None,
        version: str | None = None,
        enforce_parameter_schema: bool = True,
        work_queue_name: str | None = None,
        job_variables: Mapping[str, Any] | None = None,
        entrypoint_type: EntrypointType = "file",
        image: str | DockerImage | None = None,
        build: bool = True,
        push: bool = True,
        print_next_steps: bool = True,
        ignore_warnings: bool = False,
    ) -> str:
        """Have the flow run by the workers of a pool. Nothing is made before everything is checked.

        The code is where `from_source` says; else the file's, which the workers of a process pool find on
        their machine, or, by its module, wherever it is installed.

        Args:
            name: unique for the flow.
            work_pool_name: whose workers run it; default: setting `default_work_pool_name`.
            interval: as of `to_deployment`, as are all options that are not named here.
            image: that runs are started in, built of the files of the current folder; None: whatever the job
                variables or the pool say.
            build: build the image, by the container engine of this machine; else it is taken as it is.
            push: push an image that was built, for workers of other machines.
            print_next_steps: say on standard error what there is now, and how to run it.
            ignore_warnings: take the file for a pool whose workers may not see the files of this machine.

        Returns:
            The deployment's id.

        Raises:
            ConfigurationError: no pool is named.
            ObjectNotFound: there is no such pool.
            ValueError: the pool's workers could not find the flow, its storage has credentials that would be
                recorded, or more than one kind of schedule is given.
            ParametersInvalid: parameters do not fit the flow.
            ImageFailed: the image cannot be built or pushed.
            ServerUnavailable: there is no server, and none can be started.
        """
        from headrace.execution.background import dispatched

        return dispatched(
            self.adeploy(
                name,
                work_pool_name,
                interval=interval,
                cron=cron,
                rrule=rrule,
                schedule=schedule,
                schedules=schedules,
                paused=paused,
                concurrency_limit=concurrency_limit,
                parameters=parameters,
                description=description,
                tags=tags,
                fairness_key=fairness_key,
                version=version,
                enforce_parameter_schema=enforce_parameter_schema,
                work_queue_name=work_queue_name,
                job_variables=job_variables,
                entrypoint_type=entrypoint_type,
                image=image,
                build=build,
                push=push,
                print_next_steps=print_next_steps,
                ignore_warnings=ignore_warnings,
            )
        )

    @staticmethod
    async def afrom_source(source: Source, entrypoint: str) -> Flow[..., Any]:
        """`from_source`, for code on an event loop."""
        from headrace.deployments.sources import load_flow_from_source

        return await load_flow_from_source(source, entrypoint)

    @staticmethod
    def from_source(source: Source, entrypoint: str) -> Flow[..., Any]:
        """A flow whose code is elsewhere. Its deployments fetch the code anew for each of their runs.

        Args:
            source: a folder; the address of a git repository (`https`, `ssh`, or ending in `.git`) or of an
                object store (`s3`, `gs`, `az`); a `GitRepository`, `RemoteStorage` or `LocalStorage` of
                `headrace.deployments`.
            entrypoint: `path/file.py:flow` or `package.module:flow`, relative to the top of the code.

        Raises:
            GitError: git cannot fetch it.
            OSError: there is no such folder, or the store cannot be read.
            MissingFlowError: there is no such flow in it.
            ScriptError: its code cannot be executed.
        """
        from headrace.execution.background import dispatched

        return dispatched(Deployable.afrom_source(source, entrypoint))
