"""The HTTP side of the cluster: the requests that a worker makes, answered as kube-apiserver answers them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import yaml
from aiohttp import web

from tests.support.kubernetes.jobs import JobController, suffix
from tests.support.kubernetes.kubelet import Kubelet
from tests.support.kubernetes.schema import check_job
from tests.support.kubernetes.store import ApiError, Object, Store, Watcher

__all__ = ["ApiServer", "Rule", "read_rules"]

Rule = dict[str, list[str]]
_GROUPS = {"jobs": "batch"}
_KINDS = {"jobs": "Job", "pods": "Pod", "events": "Event"}
_VERSIONS = {"jobs": "batch/v1", "pods": "v1", "events": "v1"}


def read_rules(path: pathlib.Path, kind: str = "Role") -> list[Rule]:
    """The rules of the roles of one kind in a file of manifests."""
    documents: list[Object] = [d for d in yaml.safe_load_all(path.read_text()) if d]
    return [rule for document in documents if document["kind"] == kind for rule in document["rules"]]


class ApiServer:
    """Answers for the namespaced resources `jobs`, `pods`, `pods/log` and `events`.

    Attributes:
        rules: what the worker's account may do in every namespace of `namespaces`.
        cluster_rules: what it may do in all namespaces at once.
        failing: status code that every request is answered with; None: none is.
        lose_answers: so many requests to create are carried out, and their answers are lost.
        requests: what was asked, as `VERB path`.
    """

    def __init__(
        self, store: Store, kubelet: Kubelet, jobs: JobController, rules: list[Rule], token: str
    ) -> None:
        self.rules = rules
        self.cluster_rules: list[Rule] = []
        self.namespaces = {"default"}
        self.failing: int | None = None
        self.lose_answers = 0
        self.requests: list[str] = []
        self._store, self._kubelet, self._jobs, self._token = store, kubelet, jobs, token

    def app(self) -> web.Application:
        """What serves."""
        app = web.Application(middlewares=[self._guard])
        for resource, base in (("jobs", "/apis/batch/v1"), ("pods", "/api/v1"), ("events", "/api/v1")):
            one = f"{base}/namespaces/{{namespace}}/{{resource:{resource}}}"
            app.router.add_get(f"{base}/{{resource:{resource}}}", self._list)
            app.router.add_get(one, self._list)
            app.router.add_get(one + "/{name}", self._get)
            app.router.add_delete(one + "/{name}", self._delete)
            app.router.add_patch(one + "/{name}", self._patch)
        app.router.add_post("/apis/batch/v1/namespaces/{namespace}/{resource:jobs}", self._create)
        app.router.add_get("/api/v1/namespaces/{namespace}/{resource:pods}/{name}/log", self._log)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        try:
            if self.failing is not None:
                words = "the server is currently unable to handle the request"
                raise ApiError(self.failing, "ServiceUnavailable", words)
            self._authorise(request)
            answer: web.StreamResponse = await handler(request)
            return answer
        except ApiError as error:
            return web.json_response(error.status, status=error.code)
        except web.HTTPNotFound:
            status = ApiError(404, "NotFound", "the server could not find the requested resource").status
            return web.json_response(status, status=404)

    def _authorise(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            raise ApiError(401, "Unauthorized", "Unauthorized")
        found = request.match_info
        resource = found.get("resource")
        if resource is None:
            return
        if request.path.endswith("/log"):
            resource += "/log"
        reads = "get" if "name" in found else "list"
        verb = {"POST": "create", "DELETE": "delete", "PATCH": "patch"}.get(request.method, reads)
        if request.query.get("watch") == "true":
            verb = "watch"
        namespace, group = found.get("namespace", ""), _GROUPS.get(resource, "")
        rules = self.rules if namespace in self.namespaces else self.cluster_rules
        if not any(
            verb in rule["verbs"] and resource in rule["resources"] and group in rule["apiGroups"]
            for rule in rules
        ):
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            words = (
                f'{resource}{"." + group if group else ""} is forbidden: User "system:serviceaccount:default:'
                f'headrace-worker" cannot {verb} resource "{resource}" in API group "{group}" {where}'
            )
            raise ApiError(403, "Forbidden", words, group=group, kind=resource)

    # Jobs are made, everything is read and deleted.

    async def _create(self, request: web.Request) -> web.StreamResponse:
        job: Object = json.loads(await request.read())
        metadata = job.setdefault("metadata", {})
        metadata.setdefault("namespace", request.match_info["namespace"])
        if metadata["namespace"] != request.match_info["namespace"]:
            raise ApiError(
                400, "BadRequest", "the namespace of the provided object does not match the request"
            )
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"][:58] + suffix()
        check_job(job, strict=request.query.get("fieldValidation") == "Strict")
        name = metadata["name"]
        if self._store.find("jobs", metadata["namespace"], name) is not None:
            words = f'jobs.batch "{name}" already exists'
            raise ApiError(409, "AlreadyExists", words, name=name, group="batch", kind="jobs")
        job["status"] = {}
        made = self._store.add("jobs", job)
        if self.lose_answers:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(made, status=201)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        resource, found = request.match_info["resource"], request.match_info
        item = self._store.get(resource, found["namespace"], found["name"], _GROUPS.get(resource, ""))
        return web.json_response(self._typed(resource, item))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        resource, found = request.match_info["resource"], request.match_info
        item = self._store.get(resource, found["namespace"], found["name"], _GROUPS.get(resource, ""))
        body = await request.read()
        options: Object = json.loads(body) if body else {}
        wanted = (options.get("preconditions") or {}).get("uid")
        uid = item["metadata"]["uid"]
        if wanted and wanted != uid:
            words = f"the UID in the precondition ({wanted}) does not match the UID in record ({uid})"
            raise ApiError(409, "Conflict", words)
        if resource == "jobs":
            self._jobs.delete(item, options.get("propagationPolicy", "Background"))
        elif resource == "pods":
            self._kubelet.delete(item, options.get("gracePeriodSeconds"))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        resource, found = request.match_info["resource"], request.match_info
        if request.content_type != "application/merge-patch+json":
            raise ApiError(415, "UnsupportedMediaType", f"not known here: {request.content_type}")
        item = self._store.get(resource, found["namespace"], found["name"], _GROUPS.get(resource, ""))
        _merge(item, json.loads(await request.read()))
        self._store.changed(resource, item)
        return web.json_response(self._typed(resource, item))

    @staticmethod
    def _typed(resource: str, item: Object) -> Object:
        return {"kind": _KINDS[resource], "apiVersion": _VERSIONS[resource], **copy.deepcopy(item)}

    async def _list(self, request: web.Request) -> web.StreamResponse:
        resource, query = request.match_info["resource"], request.query
        namespace, selector = request.match_info.get("namespace", ""), query.get("labelSelector", "")
        if query.get("watch") == "true":
            return await self._watch(request, Watcher(resource, namespace, selector))
        items = [
            i
            for i in self._store.all(resource, namespace, selector)
            if _fields(query.get("fieldSelector", ""), i)
        ]
        version, start = self._store.version, 0
        if token := query.get("continue"):
            version, start = json.loads(base64.b64decode(token))
            if version < self._store.oldest:
                words = "The provided continue parameter is too old to display a consistent list result."
                raise ApiError(410, "Expired", words)
        limit = int(query.get("limit", "0")) or len(items) or 1
        metadata: Object = {"resourceVersion": str(version)}
        if start + limit < len(items):
            metadata["continue"] = base64.b64encode(json.dumps([version, start + limit]).encode()).decode()
        kind = f"{_KINDS[resource]}List"
        page = items[start : start + limit]
        return web.json_response(
            {"kind": kind, "apiVersion": _VERSIONS[resource], "metadata": metadata, "items": page}
        )

    async def _watch(self, request: web.Request, watcher: Watcher) -> web.StreamResponse:
        query = request.query
        self._store.watch(watcher, int(query.get("resourceVersion") or self._store.version))
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds", "1800"))):
                while (event := await watcher.events.get()) is not None:
                    if event["type"] == "BOOKMARK" and query.get("allowWatchBookmarks") != "true":
                        continue
                    await answer.write(json.dumps(event).encode() + b"\n")
        except TimeoutError:
            pass
        except ConnectionError:
            return answer
        finally:
            self._store.watchers.discard(watcher)
        with contextlib.suppress(ConnectionError):
            await answer.write_eof()
        return answer

    async def _log(self, request: web.Request) -> web.StreamResponse:
        found, query = request.match_info, request.query
        pod = self._store.get("pods", found["namespace"], found["name"])
        container = query.get("container") or pod["spec"]["containers"][0]["name"]
        if container not in [one["name"] for one in pod["spec"]["containers"]]:
            raise ApiError(400, "BadRequest", f"container {container} is not valid for pod {found['name']}")
        log = self._kubelet.logs.get(pod["metadata"]["uid"])
        if log is None:
            words = f'container "{container}" in pod "{found["name"]}" is waiting to start: ContainerCreating'
            raise ApiError(400, "BadRequest", words)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        try:
            async for time, line in _lines(log, query.get("follow") == "true"):
                # The API takes whole seconds here: what is older within the second comes again.
                if time[:19] >= query.get("sinceTime", "")[:19]:
                    prefix = f"{time} " if query.get("timestamps") == "true" else ""
                    await answer.write(f"{prefix}{line}\n".encode())
        except ConnectionError:
            return answer
        with contextlib.suppress(ConnectionError):
            await answer.write_eof()
        return answer


async def _lines(log: Any, follow: bool) -> AsyncIterator[tuple[str, str]]:
    seen = 0
    while True:
        for line in log.lines[seen:]:
            seen += 1
            yield line
        if (log.is_over and seen == len(log.lines)) or not follow:
            return
        if seen == len(log.lines):
            await log.more()


def _merge(place: Object, patch: Object) -> None:
    for key, value in patch.items():
        if value is None:
            place.pop(key, None)
        elif isinstance(value, dict):
            _merge(place.setdefault(key, {}), value)
        else:
            place[key] = value


def _fields(selector: str, item: Object) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, value = term.partition("=")
        if path not in ("metadata.name", "involvedObject.uid"):
            raise ApiError(400, "BadRequest", f"field label not supported: {path}")
        place: Any = item
        for part in path.split("."):
            place = place[part]
        if place != value:
            return False
    return True
