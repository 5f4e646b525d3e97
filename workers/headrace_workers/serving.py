"""What a process that serves deployments answers over HTTP, besides how it is: `/run_count`, `/shutdown` and
`/deployment/{id}/run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, Final

from headrace.client import get_client
from headrace.client.deployments import deployment_key
from headrace.core.errors import ServiceError
from headrace.v1.deployment_service_pb2 import CreateDeploymentRunRequest
from headrace_workers.health import Vitals
from headrace_workers.http import HttpError, Request, Response, json_response, message

__all__ = ["ServingRoutes"]

_PARAMETERS_BYTES: Final = 512 * 1024
_STATUS: Final = {
    "INVALID_ARGUMENT": 422,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "UNAUTHENTICATED": 502,
    "PERMISSION_DENIED": 502,
}


class ServingRoutes:
    """Answers for `HealthServer`.

    Args:
        deployment_ids: those that are served.
        leave: has the process take nothing new, and end when nothing runs.
    """

    def __init__(self, deployment_ids: Collection[str], leave: Callable[[], None]) -> None:
        self._deployment_ids = deployment_ids
        self._leave = leave

    async def __call__(self, request: Request, vitals: Vitals) -> Response | None:
        """The answer; None: the path is none of ours."""
        if request.path == "/run_count":
            _require(request, "GET")
            return json_response(vitals.running)
        if request.path == "/shutdown":
            _require(request, "POST")
            self._leave()
            return message(200, "OK")
        before, name, after = request.path.partition("/deployment/")
        if before or not name or not after.endswith("/run"):
            return None
        _require(request, "POST")
        return await self._run(after.removesuffix("/run").lower(), request)

    async def _run(self, deployment_id: str, request: Request) -> Response:
        if deployment_id not in self._deployment_ids:
            served = ", ".join(self._deployment_ids)
            return message(404, f"No deployment with the id {deployment_id} is served here, but {served}.")
        body = await request.read(_PARAMETERS_BYTES)
        parameters = _parameters(body)
        asked = CreateDeploymentRunRequest(deployment=deployment_key(deployment_id), parameters=parameters)
        try:
            async with get_client() as client:
                made = (await client.create_deployment_run(asked)).run
        except ServiceError as error:
            fields = [{"field": one.field, "description": one.description} for one in error.violations]
            answer: dict[str, Any] = {"message": error.message, **({"fields": fields} if fields else {})}
            return json_response(answer, _STATUS.get(error.code, 503))
        return json_response({"flow_run_id": made.id}, 201)


def _require(request: Request, method: str) -> None:
    """Refuse other methods, and pages of browsers, which reach this machine's own ports as well.

    Raises:
        HttpError: it is refused.
    """
    if request.method != method:
        raise HttpError(405, f"Only {method} is served here.", Allow=method)
    if method == "POST" and "origin" in request.headers:
        raise HttpError(403, "This is not for pages of a browser.")


def _parameters(body: bytes) -> str:
    """The parameters that a body names, as JSON text.

    Raises:
        HttpError: it is no JSON object.
    """
    if not body.strip():
        return ""
    try:
        read = json.loads(body)
    except ValueError as error:
        raise HttpError(400, f"The body is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise HttpError(400, 'The body is a JSON object of parameters, such as {"region": "north"}.')
    return json.dumps(read)
