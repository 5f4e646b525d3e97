"""What the hosts of repositories send when something was pushed: whether it is genuine, and what it says.

Each host proves in its own way that it knows the secret: GitHub, Gitea and Forgejo by an HMAC of the body in
`X-Hub-Signature-256`, Bitbucket by one in `X-Hub-Signature`, GitLab by the secret itself in `X-Gitlab-Token`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qs

__all__ = ["Notice", "NoticeInvalid", "Push", "has_proof", "is_genuine", "read_notice"]

_SIGNATURES: Final = ("x-hub-signature-256", "x-gitea-signature", "x-forgejo-signature", "x-hub-signature")
_TOKEN: Final = "x-gitlab-token"
_PINGS: Final = ("ping", "diagnostics:ping")
_PUSHES: Final = ("push", "push hook", "system hook", "repo:push", "repo:refs_changed")
_EVENTS: Final = ("x-github-event", "x-gitea-event", "x-forgejo-event", "x-gitlab-event", "x-event-key")
# That which stays the same when a delivery is repeated.
_DELIVERIES: Final = (
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "idempotency-key",
    "x-request-uuid",
    "x-request-id",
)
_BRANCH: Final = "refs/heads/"
_HASH: Final = re.compile("[0-9a-f]{7,64}")


class NoticeInvalid(ValueError):
    """The request is not what any of the hosts sends."""


@dataclass(frozen=True, slots=True)
class Push:
    """One thing that was pushed.

    Attributes:
        ref: in full, such as `refs/heads/main` or `refs/tags/v1`.
        commit: that it is at now; empty: it was deleted.
        before: that it was at before; empty: it is new.
    """

    ref: str
    commit: str
    before: str

    @property
    def branch(self) -> str:
        """Its name; empty: it is no branch."""
        return self.ref.removeprefix(_BRANCH) if self.ref.startswith(_BRANCH) else ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice.

    Attributes:
        event: as the host calls it.
        delivery_id: the same when it is sent again; empty: the host has none.
        is_ping: it only asks whether somebody is there.
        pushes: what was pushed.
    """

    event: str
    delivery_id: str
    is_ping: bool = False
    pushes: tuple[Push, ...] = ()


def has_proof(headers: Mapping[str, str]) -> bool:
    """Whether there is anything that could prove that the sender knows the secret."""
    return any(name in headers for name in (*_SIGNATURES, _TOKEN))


def is_genuine(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether the sender knows the secret: the first proof that is there counts, compared in constant time.

    Args:
        headers: by name in lower case.
        body: as it was sent.
        secret: that was agreed with the host.
    """
    for name in _SIGNATURES:
        if name in headers:
            expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            given = headers[name].removeprefix("sha256=")
            return hmac.compare_digest(given.encode("latin-1"), expected.encode())
    return hmac.compare_digest(headers.get(_TOKEN, "").encode("latin-1"), secret.encode())


def read_notice(headers: Mapping[str, str], body: bytes) -> Notice:
    """What a request says.

    Args:
        headers: by name in lower case.
        body: JSON, or a form whose field `payload` is.

    Raises:
        NoticeInvalid: it names no event, or its body is not what belongs to the event.
    """
    event = next((headers[name] for name in _EVENTS if headers.get(name)), "")
    if not event:
        raise NoticeInvalid("No header names an event, such as X-GitHub-Event: push.")
    delivery = next((headers[name] for name in _DELIVERIES if headers.get(name)), "")
    kind = event.lower()
    if kind in _PINGS or kind not in _PUSHES:
        return Notice(event, delivery, is_ping=kind in _PINGS)
    payload = _payload(headers, body)
    if kind == "system hook" and payload.get("event_name") != "push":
        return Notice(str(payload.get("event_name") or event), delivery)
    try:
        pushes = _of_bitbucket(payload) if kind.startswith("repo:") else [_of_git(payload)]
    except (KeyError, TypeError, AttributeError):
        raise NoticeInvalid(f"The body is not that of an event {event}.") from None
    return Notice(event, delivery, pushes=tuple(pushes))


def _payload(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    try:
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = parse_qs(body.decode("ascii"), max_num_fields=16)["payload"][0].encode()
        read: object = json.loads(body)
    except (ValueError, KeyError, RecursionError):
        raise NoticeInvalid("The body is no JSON.") from None
    if not isinstance(read, dict):
        raise NoticeInvalid("The body is no JSON object.")
    return cast("dict[str, Any]", read)


def _of_git(payload: dict[str, Any]) -> Push:
    """A push as GitHub, GitLab and Gitea write it."""
    return Push(_ref(payload["ref"]), _commit(payload["after"]), _commit(payload.get("before")))


def _of_bitbucket(payload: dict[str, Any]) -> list[Push]:
    """The pushes of Bitbucket: Cloud has them in `push`, Data Center at the top."""
    changes: list[dict[str, Any]] = payload["push"]["changes"] if "push" in payload else payload["changes"]
    pushes: list[Push] = []
    for change in changes:
        if "ref" in change:
            pushes.append(
                Push(_ref(change["ref"]["id"]), _commit(change["toHash"]), _commit(change["fromHash"]))
            )
            continue
        new, old = change["new"], change["old"]
        prefix = "refs/tags/" if (new or old)["type"] == "tag" else _BRANCH
        commits = [_commit(side["target"]["hash"]) if side else "" for side in (new, old)]
        pushes.append(Push(prefix + _ref((new or old)["name"]), *commits))
    return pushes


def _ref(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError
    return value


def _commit(value: object) -> str:
    """A commit's hash; zeros stand for none."""
    if value is not None and not (isinstance(value, str) and _HASH.fullmatch(value)):
        raise TypeError
    return value if value and value.strip("0") else ""
