"""`headrace.v1.DeploymentService`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.core.errors import (
    EtagMismatch,
    FieldsInvalid,
    ObjectNotFound,
    PreconditionFailed,
)
from headrace.v1 import deployment_service_pb2 as pb
from headrace.v1.deployment_pb2 import Deployment
from headrace_services.domain.deployment_checks import deployment_violations, job_variables_of
from headrace_services.domain.deployments import merged
from headrace_services.domain.run_parameters import (
    hydrated,
    invalid,
    job_variable_violations,
    json_object,
    parameter_violations,
)
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database
from headrace_services.storage.declared_rows import DeploymentRow
from headrace_services.storage.deployment_codec import declared
from headrace_services.storage.deployment_commands import (
    Applied,
    ApplyDeployment,
    Declaration,
    DeleteDeployment,
    Repeat,
    Schedules,
    SetDeploymentPaused,
)
from headrace_services.storage.deployment_runs import CreateDeploymentRun

__all__ = ["DeploymentService"]

_TRIES: Final = 10
_TAGS_MAX: Final = 50


class DeploymentService:
    """Deployments: declared as a whole, kept in versions, run by workers."""

    def __init__(self, database: Database) -> None:
        self._writer = database.writer
        self._reader = database.reader.deployments
        self._pools = database.reader.work_pools

    async def ApplyDeployment(
        self, request: pb.ApplyDeploymentRequest, call: Call
    ) -> pb.ApplyDeploymentResponse:
        paths = list(request.update_mask.paths)
        asked = request.deployment
        key = pb.DeploymentKey(name=f"{asked.flow_name}/{asked.name}")
        for _ in range(_TRIES):
            row = await self._reader.find(key)
            _check_etag(row, asked.etag)
            wanted = merged(None if row is None else declared(row), asked, paths)
            await self._check(wanted)
            declaration = Declaration(
                wanted=wanted,
                base_version=None if row is None else row.version,
                schedules=Schedules.KEPT if paths and "schedules" not in paths else Schedules.DECLARED,
                actor=call.principal,
                dry_run=request.dry_run,
            )
            applied = await self._writer.do(ApplyDeployment(declaration))
            if applied is not None:
                return pb.ApplyDeploymentResponse(
                    deployment=await self._shown(applied, request.dry_run),
                    created=applied.created,
                    changes=applied.changes,
                )
        raise _contended()

    async def _shown(self, applied: Applied, dry_run: bool = False) -> Deployment:
        """The deployment with what storage alone does not know of it."""
        if dry_run:
            return applied.deployment
        return await self._reader.get(pb.DeploymentKey(id=applied.deployment.id))

    async def _check(self, wanted: Deployment) -> None:
        """Make sure that the deployment makes sense.

        Raises:
            ObjectNotFound: there is no such work pool.
            FieldsInvalid: it does not; every problem has its path.
        """
        template = await self._template(wanted.work_pool)
        violations = list(deployment_violations(wanted, template))
        if violations:
            raise invalid(violations)

    async def _template(self, work_pool: str) -> Mapping[str, Any] | None:
        if not work_pool:
            return None
        template: Mapping[str, Any] = json.loads(await self._pools.template(work_pool))
        return template

    async def GetDeployment(self, request: pb.GetDeploymentRequest, call: Call) -> pb.GetDeploymentResponse:
        return pb.GetDeploymentResponse(deployment=await self._reader.get(request.deployment))

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, call: Call
    ) -> pb.ListDeploymentsResponse:
        found, token = await self._reader.page(request.filter, request.page_size, request.page_token)
        return pb.ListDeploymentsResponse(deployments=found, next_page_token=token)

    async def ListDeploymentVersions(
        self, request: pb.ListDeploymentVersionsRequest, call: Call
    ) -> pb.ListDeploymentVersionsResponse:
        row = await self._reader.row(request.deployment)
        versions, token = await self._reader.versions(row.id, request.page_size, request.page_token)
        return pb.ListDeploymentVersionsResponse(versions=versions, next_page_token=token)

    async def RollbackDeployment(
        self, request: pb.RollbackDeploymentRequest, call: Call
    ) -> pb.RollbackDeploymentResponse:
        repeat = Repeat.of(
            "RollbackDeployment", request.request_id, request.SerializeToString(deterministic=True)
        )
        for _ in range(_TRIES):
            row = await self._reader.row(request.deployment)
            wanted = await self._earlier(row, request.number)
            declaration = Declaration(
                wanted=wanted,
                base_version=row.version,
                schedules=Schedules.EXACT,
                actor=call.principal,
            )
            applied = await self._writer.do(ApplyDeployment(declaration, repeat))
            if applied is not None:
                return pb.RollbackDeploymentResponse(
                    deployment=await self._shown(applied), changes=applied.changes
                )
        raise _contended()

    async def _earlier(self, row: DeploymentRow, number: int) -> Deployment:
        """What the deployment was in its version, paused or not as it is now."""
        number = number or row.version_number - 1
        if number < 1:
            raise PreconditionFailed("The deployment has one version only: there is none to go back to.")
        wanted = Deployment()
        wanted.CopyFrom((await self._reader.version(row.id, number)).deployment)
        wanted.paused = row.is_paused
        await self._check(wanted)
        return wanted

    async def PauseDeployment(
        self, request: pb.PauseDeploymentRequest, call: Call
    ) -> pb.PauseDeploymentResponse:
        return pb.PauseDeploymentResponse(
            deployment=await self._set_paused(request.deployment, True, call.principal)
        )

    async def ResumeDeployment(
        self, request: pb.ResumeDeploymentRequest, call: Call
    ) -> pb.ResumeDeploymentResponse:
        return pb.ResumeDeploymentResponse(
            deployment=await self._set_paused(request.deployment, False, call.principal)
        )

    async def _set_paused(self, key: pb.DeploymentKey, paused: bool, actor: str) -> Deployment:
        id = await self._writer.do(SetDeploymentPaused(key, paused, actor))
        return await self._reader.get(pb.DeploymentKey(id=id))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, call: Call
    ) -> pb.DeleteDeploymentResponse:
        deleted = await self._writer.do(DeleteDeployment(request.deployment))
        return pb.DeleteDeploymentResponse(deleted_runs=deleted)

    # Runs

    async def CreateDeploymentRun(
        self, request: pb.CreateDeploymentRunRequest, call: Call
    ) -> pb.CreateDeploymentRunResponse:
        created_by = call.principal
        for _ in range(_TRIES):
            row = await self._reader.row(request.deployment)
            parameters = await self._checked_parameters(request, row)
            command = CreateDeploymentRun(request, row, parameters, created_by)
            run, existed = await self._writer.do(command)
            if not command.has_moved:
                return pb.CreateDeploymentRunResponse(run=run, existed=existed)
        raise _contended()

    async def _checked_parameters(
        self, request: pb.CreateDeploymentRunRequest, row: DeploymentRow
    ) -> dict[str, Any]:
        """All of the run's parameters.

        Raises:
            ParametersInvalid: they do not fit the deployment's schema; every problem has its path.
            FieldsInvalid: something else of the request does not fit the deployment or its work pool.
            ObjectNotFound: there is no such work pool.
        """
        said = declared(row)
        given = json_object(request.parameters, "parameters")
        defaults = json_object(said.parameters, "parameters")
        parameters: dict[str, Any] = hydrated({**defaults, **given}, "parameters")
        skips = said.skip_parameter_check
        if request.HasField("skip_parameter_check"):
            skips = request.skip_parameter_check
        if not skips:
            wrong = parameter_violations(parameters, said.parameter_schema, complete=True)
            if wrong:
                raise invalid(wrong, parameters=True)
        await self._check_for_pool(request, said)
        if len({*said.tags, *request.tags}) > _TAGS_MAX:
            raise FieldsInvalid.of("tags", f"and the deployment's are more than {_TAGS_MAX} together")
        return parameters

    async def _check_for_pool(self, request: pb.CreateDeploymentRunRequest, said: Deployment) -> None:
        own = job_variables_of(request)
        if not said.work_pool:
            if own:
                raise FieldsInvalid.of("job_variables", "are of no use: the deployment has no work pool")
            if request.work_queue:
                raise FieldsInvalid.of("work_queue", "is of no use: the deployment has no work pool")
            return
        if "/" in request.work_queue or "%" in request.work_queue:
            raise FieldsInvalid.of("work_queue", "must not contain '/' or '%'")
        try:
            template = await self._template(said.work_pool)
        except ObjectNotFound:
            if own or request.work_queue:
                raise
            return  # the run waits until there is a pool of the name
        assert template is not None
        wrong = job_variable_violations(template, [job_variables_of(said), own], complete=True)
        if wrong:
            raise invalid(wrong)


def _check_etag(row: DeploymentRow | None, etag: str) -> None:
    if etag and (row is None or etag != str(row.version)):
        raise EtagMismatch(facts={} if row is None else {"etag": str(row.version)})


def _contended() -> EtagMismatch:
    return EtagMismatch("Others change the deployment all the time: nothing was written. Try again.")
