"""Notices of pushes: which are genuine, and what they say."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from headrace_workers.git_sync.notices import NoticeInvalid, Push, has_proof, is_genuine, read_notice
from tests.support.webhooks import HOSTS, SECRET, ZEROS, push_request

COMMIT, BEFORE = "a" * 40, "b" * 40


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.mark.parametrize("host", HOSTS)
def test_a_push(host: str) -> None:
    headers, body = push_request(host, COMMIT, BEFORE, delivery_id="d1")
    headers = lower(headers)
    assert is_genuine(headers, body, SECRET)
    notice = read_notice(headers, body)
    assert notice.pushes == (Push("refs/heads/main", COMMIT, BEFORE),) and notice.delivery_id == "d1"
    assert notice.pushes[0].branch == "main" and not notice.is_ping


@pytest.mark.parametrize("host", HOSTS)
def test_a_wrong_secret_a_changed_body_and_no_proof(host: str) -> None:
    headers, body = push_request(host, COMMIT)
    headers = lower(headers)
    assert not is_genuine(headers, body, "another")
    assert not is_genuine(headers, body, SECRET + "x")
    if host != "gitlab":  # which signs nothing
        assert not is_genuine(headers, body.replace(b"a", b"c"), SECRET)
    bare = {name: value for name, value in headers.items() if "signature" not in name and "token" not in name}
    assert has_proof(headers) and not has_proof(bare) and not is_genuine(bare, body, SECRET)


def test_a_signature_that_is_out_of_date_or_no_text_proves_nothing() -> None:
    headers, body = push_request("github", COMMIT)
    headers = lower(headers)
    del headers["x-hub-signature-256"]
    assert not is_genuine(headers, body, SECRET), "by SHA-1 alone"
    assert not is_genuine({"x-gitlab-token": "\xff\xfe"}, body, SECRET)
    assert is_genuine({"x-gitlab-token": "clé".encode().decode("latin-1")}, body, "clé")


@pytest.mark.parametrize("host", HOSTS)
def test_tags_and_what_was_deleted(host: str) -> None:
    headers, body = push_request(host, COMMIT, ref="refs/tags/v1/x")
    [push] = read_notice(lower(headers), body).pushes
    assert (push.ref, push.branch, push.before) == ("refs/tags/v1/x", "", "")
    headers, body = push_request(host, ZEROS, BEFORE, ref="refs/heads/team/etl")
    [push] = read_notice(lower(headers), body).pushes
    assert (push.branch, push.commit, push.before) == ("team/etl", "", BEFORE)


def test_pings_other_events_and_forms() -> None:
    for event in ({"x-github-event": "ping"}, {"x-event-key": "diagnostics:ping"}):
        assert read_notice(event, b"{}").is_ping
    other = read_notice({"x-github-event": "issues"}, b"not read")
    assert (other.event, other.pushes, other.is_ping) == ("issues", (), False)
    headers, body = push_request("github", COMMIT)
    form = urlencode({"payload": body.decode()}).encode()
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    assert read_notice(lower(headers), form).pushes[0].commit == COMMIT
    system = {"x-gitlab-event": "System Hook"}
    assert read_notice(system, b'{"event_name": "user_create"}').pushes == ()
    _, body = push_request("gitlab", COMMIT)
    assert read_notice(system, json.dumps({**json.loads(body), "event_name": "push"}).encode()).pushes


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"x-github-event": "push"}, b"no json"),
        ({"x-github-event": "push"}, b"[]"),
        ({"x-github-event": "push"}, b"{}"),
        ({"x-github-event": "push"}, b'{"ref": 1, "after": "' + b"a" * 40 + b'"}'),
        ({"x-github-event": "push"}, b'{"ref": "refs/heads/main", "after": "--upload-pack=x"}'),
        ({"x-github-event": "push"}, b'{"ref": "refs/heads/a\\nb", "after": "' + b"a" * 40 + b'"}'),
        ({"x-event-key": "repo:push"}, b'{"push": {"changes": [{"new": null, "old": null}]}}'),
        ({"x-event-key": "repo:push"}, b'{"push": []}'),
        ({"x-github-event": "push"}, b"[" * 100_000),
        ({"x-github-event": "push", "content-type": "application/x-www-form-urlencoded"}, b"payload"),
    ],
    ids=["event", "text", "list", "empty", "number", "option", "lines", "nulls", "shape", "deep", "form"],
)
def test_what_no_host_sends(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(NoticeInvalid):
        read_notice(headers, body)
