"""One cluster's API: requests and streams of plain JSON, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
from kubernetes_asyncio import config as kubernetes_config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException

from headrace.core.errors import ConfigurationError
from headrace_workers.infrastructure.worker import EngineUnavailable
from headrace_workers.kubernetes.failures import Refused, explain_refusal
from headrace_workers.kubernetes.objects import Object, part

__all__ = ["Cluster", "connect"]

REQUEST_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 120
"""After this time a watch is ended by the server, and asked for again."""
SILENCE_SECONDS: Final = 30.0
"""How much longer than that nothing may be heard before the connection is given up."""
_log = logging.getLogger("headrace.worker")
_PAGE: Final = 500
_config: Any = kubernetes_config  # it has no types of its own
_GROUPS: Final = {"jobs": "batch"}
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """One cluster, as one account.

    Its methods raise `Refused` for what the cluster has refused, and EngineUnavailable when it does not
    answer, or is not able to.

    Args:
        client: knows address and credentials.
        namespace: that the account has for its own; empty: none is known.
        renew: gets the client new credentials, where they are of a kind that ends.
    """

    def __init__(
        self, client: ApiClient, namespace: str, renew: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._client: Any = client
        self._renew = renew
        self._renewing = asyncio.Lock()
        self.namespace = namespace

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def create_job(self, manifest: Mapping[str, Any]) -> Object:
        """Make a job. Fields that Kubernetes does not know are refused."""
        namespace = manifest["metadata"]["namespace"]
        return await self._json(
            "create", "jobs", namespace, query={"fieldValidation": "Strict"}, body=manifest
        )

    async def get_job(self, namespace: str, name: str) -> Object:
        return await self._json("get", "jobs", namespace, name)

    async def label_job(self, namespace: str, name: str, labels: Mapping[str, str]) -> None:
        """Put labels on a job, beside those that it has."""
        await self._json("patch", "jobs", namespace, name, body={"metadata": {"labels": dict(labels)}})

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Remove a job when its pods are gone; they are told to end."""
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        await self._json("delete", "jobs", namespace, name, body=options)

    async def delete_pod(self, namespace: str, name: str, uid: str, grace_seconds: int) -> None:
        options = {"gracePeriodSeconds": grace_seconds, "preconditions": {"uid": uid}}
        await self._json("delete", "pods", namespace, name, body=options)

    async def list_all(
        self, resource: str, namespace: str, *, labels: str = "", fields: str = "", limit: int = 0
    ) -> tuple[list[Object], str]:
        """All objects of a kind, and the version of that state.

        Args:
            resource: e.g. `pods`.
            namespace: where; empty: everywhere.
            labels: selector.
            fields: selector.
            limit: the first so many are enough; 0: all.
        """
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or _PAGE)}
        items: list[Object] = []
        while True:
            page = await self._json("list", resource, namespace, query=query)
            items += page.get("items") or []
            metadata: Object = page["metadata"]
            query["continue"] = metadata.get("continue") or ""
            if limit or not query["continue"]:
                return items, metadata["resourceVersion"]

    async def watch(
        self, resource: str, namespace: str, version: str, *, labels: str = ""
    ) -> AsyncGenerator[Object]:
        """What happens after a version, until the server ends the watch: events `{type, object}`.

        Raises:
            Refused: `is_expired` if the version is too old.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "labelSelector": labels,
        }
        silence = WATCH_SECONDS + SILENCE_SECONDS
        async with (
            self._answer("watch", resource, namespace, query=query, silence_seconds=silence) as answer,
            aclosing(_lines(answer)) as lines,
        ):
            async for some in lines:
                for line in some:
                    event: Object = json.loads(line)
                    if event["type"] == "ERROR":
                        status: Object = event["object"]
                        raise self._refused(
                            int(status.get("code") or 500), status, "watch", resource, namespace
                        )
                    yield event

    async def read_log(
        self, namespace: str, pod: str, container: str, since: str
    ) -> AsyncGenerator[list[bytes]]:
        """What a container prints, each line after its time, until it ends or the connection does.

        Args:
            namespace: of the pod.
            pod: its name.
            container: in it.
            since: instant of RFC 3339, taken by whole seconds; empty: from the beginning.
        """
        query = {"container": container, "follow": "true", "timestamps": "true", "sinceTime": since}
        async with (
            self._answer("get", "pods/log", namespace, pod, query=query, silence_seconds=300.0) as answer,
            aclosing(_lines(answer)) as lines,
        ):
            async for some in lines:
                yield some

    async def _json(self, verb: str, resource: str, namespace: str, name: str = "", **more: Any) -> Object:
        async with self._answer(verb, resource, namespace, name, **more) as answer:
            found: Object = json.loads(await answer.read())
            return found

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        resource: str,
        namespace: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        method = {"create": "POST", "delete": "DELETE", "patch": "PATCH"}.get(verb, "GET")
        total = REQUEST_SECONDS if silence_seconds is None else None
        patch = {"Content-Type": "application/merge-patch+json"} if verb == "patch" else {}

        async def ask() -> aiohttp.ClientResponse:
            answer: aiohttp.ClientResponse = await self._client.call_api(
                _path(resource, namespace, name),
                method,
                query_params=[(key, text) for key, text in (query or {}).items() if text],
                header_params={"Accept": "application/json, */*", **patch},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(
                    total=total, sock_connect=REQUEST_SECONDS, sock_read=silence_seconds
                ),
            )
            return answer

        try:
            token = self._token
            answer = await ask()
            if answer.status == 401 and await self._has_renewed(token):
                answer.release()
                answer = await ask()
            async with answer as response:
                if response.status >= 400:
                    status = _status(await response.read())
                    raise self._refused(response.status, status, verb, resource, namespace)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = str(error) or type(error).__name__
            host = self._client.configuration.host
            raise EngineUnavailable(f"The cluster at {host} does not answer: {words}.") from error

    @property
    def _token(self) -> object:
        return self._client.configuration.api_key.get("BearerToken")

    async def _has_renewed(self, refused: object) -> bool:
        """Whether there is another token by now than the one that was refused."""
        if self._renew is None:
            return False
        async with self._renewing:
            if self._token == refused:
                try:
                    await self._renew()
                except Exception as error:  # of whichever program gives credentials
                    _log.warning("The credentials cannot be renewed: %s", error)
        return self._token != refused

    def _refused(
        self, code: int, status: Object, verb: str, resource: str, namespace: str
    ) -> Refused | EngineUnavailable:
        words = explain_refusal(code, status, verb, resource, _GROUPS.get(resource, ""), namespace)
        if code == 429 or code >= 500:
            return EngineUnavailable(words)
        return Refused(words, code, str(status.get("reason") or ""))


def _path(resource: str, namespace: str, name: str) -> str:
    resource, _, part = resource.partition("/")
    base = f"/apis/{_GROUPS[resource]}/v1" if resource in _GROUPS else "/api/v1"
    return "/".join(
        [base, *(["namespaces", namespace] if namespace else []), *filter(None, (resource, name, part))]
    )


def _status(body: bytes) -> Object:
    try:
        found: object = json.loads(body)
    except ValueError:
        return {"message": body.decode(errors="replace")[:500]}
    return cast("Object", found) if isinstance(found, dict) else {}


async def _lines(answer: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes]]:
    """Lines as they come, without their ends; those that have come together together."""
    rest = b""
    async for data in answer.content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        if whole:
            yield whole
    if rest:
        yield [rest]


async def connect(kubeconfig: Mapping[str, Any] | None) -> Cluster:
    """Reach a cluster.

    Args:
        kubeconfig: an account and a cluster, as a kubeconfig; None: the cluster that this process runs in,
            else the kubeconfig that `KUBECONFIG` names, else `~/.kube/config`.

    Raises:
        ConfigurationError: nothing says which cluster, or it says it wrongly.
    """
    account = Configuration()
    # Each run whose output is followed has a connection.
    account.connection_pool_maxsize = 0
    try:
        if kubeconfig is not None:
            loader = await _config.load_kube_config_from_dict(dict(kubeconfig), client_configuration=account)
        elif os.environ.get(_IN_CLUSTER):
            _config.load_incluster_config(client_configuration=account)
            return Cluster(ApiClient(account), _NAMESPACE_FILE.read_text().strip())
        else:
            path = os.environ.get("KUBECONFIG") or "~/.kube/config"
            loader = await _config.load_kube_config(path, client_configuration=account, persist_config=False)
    except (ConfigException, OSError, TypeError, AttributeError, KeyError) as error:
        where = "cluster_config is no kubeconfig" if kubeconfig is not None else "No cluster is named"
        raise ConfigurationError(
            f"{where}: {error}. Run the worker in the cluster, set KUBECONFIG, or give a `cluster_config`."
        ) from error
    namespace = part(loader.current_context, "context").get("namespace")
    return Cluster(ApiClient(account), str(namespace or ""), lambda: loader.load_and_set(account))
