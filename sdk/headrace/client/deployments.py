"""Calls of `DeploymentService`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from headrace.client.service_calls import ServiceCalls
from headrace.core.ids import is_id, new_id
from headrace.core.limits import PAGE_SIZE_DEFAULT
from headrace.v1 import deployment_service_pb2 as deployments
from headrace.v1.deployment_pb2 import Deployment, DeploymentVersion

__all__ = ["DeploymentCalls", "deployment_key"]


def deployment_key(deployment: str) -> deployments.DeploymentKey:
    """Which deployment is meant by its id, or by `flow-name/deployment-name`."""
    if is_id(deployment):
        return deployments.DeploymentKey(id=deployment)
    return deployments.DeploymentKey(name=deployment)


class DeploymentCalls(ServiceCalls):
    """Deployments, their versions, and runs of them. A deployment is named by its id or `flow-name/name`."""

    async def apply_deployment(
        self,
        deployment: Deployment,
        paths: Sequence[str] = (),
        *,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> deployments.ApplyDeploymentResponse:
        """Make a deployment what the message says; applying the same again changes nothing.

        Args:
            deployment: `flow_name`, `name`, the fields in `paths`, and an `etag` if it must still be that.
            paths: the fields that count; none: all of them.
            dry_run: only say what would change.
            timeout: seconds for this call.

        Raises:
            FieldsInvalid: it makes no sense; every problem has its path.
            ObjectNotFound: there is no such work pool.
            EtagMismatch: it has changed.
        """
        request = deployments.ApplyDeploymentRequest(
            deployment=deployment, update_mask=FieldMask(paths=paths), dry_run=dry_run
        )
        answer = deployments.ApplyDeploymentResponse.FromString
        return await self._call("DeploymentService/ApplyDeployment", request, answer, timeout)

    async def get_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """The deployment."""
        request = deployments.GetDeploymentRequest(deployment=deployment_key(deployment))
        answer = deployments.GetDeploymentResponse.FromString
        return (await self._call("DeploymentService/GetDeployment", request, answer, timeout)).deployment

    async def list_deployments(
        self, request: deployments.ListDeploymentsRequest, *, timeout: float | None = None
    ) -> deployments.ListDeploymentsResponse:
        """One page of deployments, by flow and name."""
        answer = deployments.ListDeploymentsResponse.FromString
        return await self._call("DeploymentService/ListDeployments", request, answer, timeout)

    async def iter_deployments(
        self, filter: deployments.DeploymentFilter | None = None, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[Deployment]:
        """Every deployment that passes `filter`, by flow and name."""
        request = deployments.ListDeploymentsRequest(filter=filter, page_size=page_size)
        while True:
            page = await self.list_deployments(request)
            for deployment in page.deployments:
                yield deployment
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_deployment_versions(
        self, request: deployments.ListDeploymentVersionsRequest, *, timeout: float | None = None
    ) -> deployments.ListDeploymentVersionsResponse:
        """One page of a deployment's versions, newest first."""
        answer = deployments.ListDeploymentVersionsResponse.FromString
        return await self._call("DeploymentService/ListDeploymentVersions", request, answer, timeout)

    async def iter_deployment_versions(
        self, deployment: str, *, page_size: int = PAGE_SIZE_DEFAULT
    ) -> AsyncIterator[DeploymentVersion]:
        """Every version of a deployment, newest first."""
        request = deployments.ListDeploymentVersionsRequest(
            deployment=deployment_key(deployment), page_size=page_size
        )
        while True:
            page = await self.list_deployment_versions(request)
            for version in page.versions:
                yield version
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def rollback_deployment(
        self, deployment: str, number: int = 0, *, timeout: float | None = None
    ) -> deployments.RollbackDeploymentResponse:
        """Make a new version that equals an older one; 0: the one before the current.

        Raises:
            ObjectNotFound: there is no such version.
            PreconditionFailed: there is only one.
        """
        request = deployments.RollbackDeploymentRequest(
            deployment=deployment_key(deployment), number=number, request_id=new_id()
        )
        answer = deployments.RollbackDeploymentResponse.FromString
        return await self._call("DeploymentService/RollbackDeployment", request, answer, timeout)

    async def pause_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Let no schedule make a run; runs made by hand still start."""
        request = deployments.PauseDeploymentRequest(deployment=deployment_key(deployment))
        answer = deployments.PauseDeploymentResponse.FromString
        return (await self._call("DeploymentService/PauseDeployment", request, answer, timeout)).deployment

    async def resume_deployment(self, deployment: str, *, timeout: float | None = None) -> Deployment:
        """Let the schedules make runs again."""
        request = deployments.ResumeDeploymentRequest(deployment=deployment_key(deployment))
        answer = deployments.ResumeDeploymentResponse.FromString
        return (await self._call("DeploymentService/ResumeDeployment", request, answer, timeout)).deployment

    async def delete_deployment(
        self, deployment: str, *, timeout: float | None = None
    ) -> deployments.DeleteDeploymentResponse:
        """Delete a deployment with its schedules, versions, and every run that never started."""
        request = deployments.DeleteDeploymentRequest(deployment=deployment_key(deployment))
        answer = deployments.DeleteDeploymentResponse.FromString
        return await self._call("DeploymentService/DeleteDeployment", request, answer, timeout)

    async def create_deployment_run(
        self, request: deployments.CreateDeploymentRunRequest, *, timeout: float | None = None
    ) -> deployments.CreateDeploymentRunResponse:
        """Ask for one run, once per run id and per idempotency key.

        Raises:
            ParametersInvalid: the parameters do not fit the deployment's schema; every problem has its path.
            ObjectNotFound: there is no such deployment.
        """
        answer = deployments.CreateDeploymentRunResponse.FromString
        return await self._call("DeploymentService/CreateDeploymentRun", request, answer, timeout)
