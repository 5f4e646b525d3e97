"""What etcd and the watch cache are to an API server: objects, versions, and what has changed since."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

__all__ = ["ApiError", "Store", "Watcher", "now", "selects"]

Object = dict[str, Any]


def now() -> str:
    """This instant as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ApiError(Exception):
    """An answer that is a `Status`."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        }


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels.

    Raises:
        ApiError: it is of a kind that is not known here.
    """
    for term in filter(None, (part.strip() for part in selector.split(","))):
        if " " in term:
            raise ApiError(400, "BadRequest", f"unable to parse requirement: {term}")
        if "!=" in term:
            key, _, value = term.partition("!=")
            matches = labels.get(key) != value
        elif "=" in term:
            key, _, value = term.replace("==", "=").partition("=")
            matches = labels.get(key) == value
        else:
            matches = (term in labels) if not term.startswith("!") else term[1:] not in labels
        if not matches:
            return False
    return True


class Watcher:
    """One open watch."""

    def __init__(self, kind: str, namespace: str, selector: str) -> None:
        self.kind, self.namespace, self.selector = kind, namespace, selector
        self.events: asyncio.Queue[Object | None] = asyncio.Queue()

    def wants(self, kind: str, item: Object) -> bool:
        metadata = item["metadata"]
        return (
            kind == self.kind
            and self.namespace in ("", metadata["namespace"])
            and selects(self.selector, metadata.get("labels") or {})
        )

    def consider(self, type: str, kind: str, before: Object | None, item: Object) -> None:
        """Tell of a change; what comes to fit the selector is added, what does not any more is deleted."""
        had, has = before is not None and self.wants(kind, before), self.wants(kind, item)
        if has and type != "ADDED":
            self.tell(type if had or type == "DELETED" else "ADDED", item)
        elif has or had:
            self.tell("ADDED" if has else "DELETED", item)

    def tell(self, type: str, item: Object) -> None:
        self.events.put_nowait({"type": type, "object": item})


class Store:
    """Objects by kind, namespace and name.

    Attributes:
        version: of the newest change.
        watchers: open watches.
        listeners: told of every change, before it is answered.
    """

    def __init__(self) -> None:
        self.version = 1000
        self.watchers: set[Watcher] = set()
        self.listeners: list[Callable[[str, str, Object], None]] = []
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._last: dict[str, Object] = {}
        self._history: list[tuple[int, str, str, Object | None, Object]] = []
        self.oldest = self.version

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects.get((kind, namespace, name))

    def get(self, kind: str, namespace: str, name: str, group: str = "") -> Object:
        """The object itself.

        Raises:
            ApiError: there is none.
        """
        found = self.find(kind, namespace, name)
        if found is None:
            words = f'{kind}{"." + group if group else ""} "{name}" not found'
            raise ApiError(404, "NotFound", words, name=name, kind=kind, group=group)
        return found

    def all(self, kind: str, namespace: str = "", selector: str = "") -> Iterator[Object]:
        for (of, at, _), item in sorted(self._objects.items()):
            labels = item["metadata"].get("labels") or {}
            if of == kind and namespace in ("", at) and selects(selector, labels):
                yield item

    def add(self, kind: str, item: Object) -> Object:
        metadata = item["metadata"]
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = now()
        self._objects[kind, metadata["namespace"], metadata["name"]] = item
        self._changed("ADDED", kind, item)
        return item

    def changed(self, kind: str, item: Object) -> None:
        """An object has been changed in place; one that is gone stays gone."""
        metadata = item["metadata"]
        if self.find(kind, metadata["namespace"], metadata["name"]) is item:
            self._changed("MODIFIED", kind, item)

    def remove(self, kind: str, item: Object) -> None:
        metadata = item["metadata"]
        if self.find(kind, metadata["namespace"], metadata["name"]) is item:
            del self._objects[kind, metadata["namespace"], metadata["name"]]
            self._changed("DELETED", kind, item)

    def _changed(self, type: str, kind: str, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        snapshot = copy.deepcopy(item)
        before = self._last.get(item["metadata"]["uid"])
        self._last[item["metadata"]["uid"]] = snapshot
        self._history.append((self.version, type, kind, before, snapshot))
        for watcher in self.watchers:
            watcher.consider(type, kind, before, snapshot)
        for listener in self.listeners:
            listener(type, kind, item)

    def watch(self, watcher: Watcher, since: int) -> None:
        """Tell a watcher everything from after that version on.

        Raises:
            ApiError: that is too long ago.
        """
        if since < self.oldest:
            raise self.expired(since)
        for version, type, kind, before, item in self._history:
            if version > since:
                watcher.consider(type, kind, before, item)
        self.watchers.add(watcher)

    def expired(self, since: int) -> ApiError:
        return ApiError(410, "Expired", f"too old resource version: {since} ({self.version})")

    def compact(self) -> None:
        """Forget what was; who watches is sent away."""
        self.version += 1
        self._history.clear()
        self.oldest = self.version
        for watcher in self.watchers:
            watcher.tell("ERROR", self.expired(0).status)
            watcher.events.put_nowait(None)
