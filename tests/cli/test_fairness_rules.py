"""`headrace fairness-rule` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.work_pool_pb2 import WorkPool
from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        with temporary_settings({"api_url": running.address}), get_client(sync_client=True) as client:
            client.create_work_pool(WorkPool(name="default", type="process"))
        yield running


@pytest.fixture
def headrace(server: ServerProcess, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """A command about rules."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: cli("fairness-rule", *words)


def test_the_life_of_a_rule(headrace: Callable[..., Answer]) -> None:
    made = headrace("set", "acme", "--pool", "default", "--weight", "2.5", "--limit", "3")
    assert made.err == "Key 'acme' has weight 2.5 and a limit of 3 in work pool 'default'.\n"
    (rule,) = json.loads(headrace("ls", "-p", "default", "-o", "json").out)
    assert (rule["fairness_key"], rule["weight"], rule["concurrency_limit"]) == ("acme", 2.5, 3)
    assert headrace("ls", "-q").out == "acme\n"
    assert headrace("ls").out.splitlines()[1].split() == ["default", "acme", "2.5", "3", "0", "0"]
    changed = json.loads(headrace("set", "acme", "-p", "default", "-o", "json").out)
    assert changed["weight"] == 1.0 and changed["concurrency_limit"] is None
    wrong = headrace("unset", "acmee", "-p", "default")
    assert wrong.code == 3 and "has no rule for key 'acmee'" in wrong.err and "acme" in wrong.err
    assert headrace("unset", "acme", "-p", "default").code == 0
    assert json.loads(headrace("ls", "-o", "json").out) == []


def test_what_is_refused(headrace: Callable[..., Answer]) -> None:
    none = headrace("set", "acme", "--pool", "defualt", "--weight", "2")
    assert none.code == 3 and "default" in none.err
    assert headrace("ls", "--pool", "nowhere").code == 3
    heavy = headrace("set", "acme", "--pool", "default", "--weight", "101")
    assert heavy.code == 2 and "--weight" in heavy.err
