"""Notices of pushes as the hosts of repositories send them: their headers, their bodies, their signatures."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["HOSTS", "SECRET", "ZEROS", "post", "push_request"]

SECRET: Final = "s3cret of the webhook"
ZEROS: Final = "0" * 40
HOSTS: Final = ("github", "gitlab", "gitea", "bitbucket", "bitbucket-data-center")


def push_request(
    host: str,
    commit: str,
    before: str = ZEROS,
    ref: str = "refs/heads/main",
    *,
    secret: str = SECRET,
    delivery_id: str = "",
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a genuine notice.

    Args:
        host: one of HOSTS.
        commit: that the ref is at; zeros: it was deleted.
        before: that it was at; zeros: it is new.
        ref: in full.
        secret: that it is signed with.
        delivery_id: its id; empty: a new one.
    """
    delivery = delivery_id or str(uuid.uuid4())
    body = json.dumps(_payload(host, commit, before, ref)).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    own = {
        "github": {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest(),
            "X-Hub-Signature-256": f"sha256={signature}",
        },
        "gitlab": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret, "Idempotency-Key": delivery},
        "gitea": {"X-Gitea-Event": "push", "X-Gitea-Delivery": delivery, "X-Gitea-Signature": signature},
        "bitbucket": {
            "X-Event-Key": "repo:push",
            "X-Request-UUID": delivery,
            "X-Hub-Signature": f"sha256={signature}",
        },
        "bitbucket-data-center": {
            "X-Event-Key": "repo:refs_changed",
            "X-Request-Id": delivery,
            "X-Hub-Signature": f"sha256={signature}",
        },
    }
    return {"Content-Type": "application/json", **own[host]}, body


def _payload(host: str, commit: str, before: str, ref: str) -> dict[str, Any]:
    if not host.startswith("bitbucket"):
        return {"ref": ref, "before": before, "after": commit, "deleted": commit == ZEROS, "commits": []}
    kind, name = ref.split("/", 2)[1:]
    if host == "bitbucket-data-center":
        about = {"id": ref, "displayId": name, "type": "TAG" if kind == "tags" else "BRANCH"}
        changes = [{"ref": about, "refId": ref, "fromHash": before, "toHash": commit, "type": "UPDATE"}]
        return {"eventKey": "repo:refs_changed", "changes": changes}
    sides = [
        None
        if one == ZEROS
        else {"type": "tag" if kind == "tags" else "branch", "name": name, "target": {"hash": one}}
        for one in (commit, before)
    ]
    return {"push": {"changes": [{"new": sides[0], "old": sides[1], "closed": sides[0] is None}]}}


def post(port: int, headers: Mapping[str, str], body: bytes, path: str = "/webhook") -> tuple[int, str]:
    """Send it to this machine.

    Returns:
        The status, and the sentence of the answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, body, dict(headers))
    answer = connection.getresponse()
    text = json.loads(answer.read())["message"]
    connection.close()
    return answer.status, text
