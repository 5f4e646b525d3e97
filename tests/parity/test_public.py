"""What Prefect offers to those who write flows is here under the same name, or is listed with the reason.

`make parity` asks Prefect anew (`public.json`).
"""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import pytest

from headrace import flow, task
from headrace.assets import Asset, AssetProperties, materialize
from headrace.cache_policies import INPUTS
from headrace.context import FlowRunContext, TagsContext, TaskRunContext
from headrace.futures import HeadraceDistributedFuture, HeadraceFutureList
from headrace.input import RunInput
from headrace.results import ResultStore
from headrace.states import Completed, StateGroup
from headrace.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from headrace.transactions import atransaction, transaction
from tests.parity.absent import ABSENT, OTHER_DEFAULTS
from tests.support.recorders import MemoryRecorder

PUBLIC: dict[str, dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "public.json").read_text())


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> MemoryRecorder:
    from headrace.recorder import process

    memory = MemoryRecorder()
    monkeypatch.setattr(process, "current", lambda: memory)
    return memory


def missing(kind: str, subject: str, offered: Iterable[str], found: Iterable[str]) -> dict[str, list[str]]:
    """What is neither there nor listed, and what is listed although it is there."""
    listed = set(ABSENT.get(f"{kind} {subject}", {}))
    lacking = set(offered) - set(found)
    return {"neither here nor listed": sorted(lacking - listed), "listed": sorted(listed - lacking)}


NOTHING: dict[str, list[str]] = {"neither here nor listed": [], "listed": []}


@pytest.mark.parametrize("module", PUBLIC["names"])
def test_names(module: str) -> None:
    loaded = importlib.import_module(module)
    offered = PUBLIC["names"][module]
    found = [name for name in offered if hasattr(loaded, name)]
    assert missing("names of", module, offered, found) == NOTHING


def called(path: str) -> Any:
    """The function of that path: of a module, or of a class in it."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found
    return None


def test_keywords() -> None:
    """Of functions, methods and constructors; those that take all keywords hand them on to one of these."""
    wrong: dict[str, Any] = {}
    for path, offered in PUBLIC["keywords"].items():
        function = called(path)
        if function is None:
            continue
        if inspect.isclass(function):
            function = function.__init__
        parameters = inspect.signature(function).parameters.values()
        if any(one.kind is one.VAR_KEYWORD for one in parameters) and not path.endswith((".map", ".submit")):
            continue
        lacks = missing("keywords of", path, offered, [one.name for one in parameters])
        if lacks != NOTHING:
            wrong[path] = lacks
    assert wrong == {}


def test_defaults() -> None:
    """Of keywords that are here and there, where both are plain values."""
    found: dict[str, list[Any]] = {}
    for path, offered in PUBLIC["keywords"].items():
        function = called(path)
        if function is None:
            continue
        ours = inspect.signature(function.__init__ if inspect.isclass(function) else function).parameters
        for name, theirs in offered.items():
            default = ours[name].default if name in ours else inspect.Parameter.empty
            is_plain = default is None or isinstance(default, (bool, int, float, str))
            if theirs != "?" and is_plain and (default, type(default)) != (theirs, type(theirs)):
                found[f"{path} {name}"] = [theirs, default]
    assert found == OTHER_DEFAULTS


def test_members(recorder: MemoryRecorder) -> None:
    """Of objects as programs meet them."""
    contexts: dict[str, Any] = {}

    @task
    def inside() -> None:
        contexts["headrace.context.TaskRunContext"] = TaskRunContext.get()

    @flow
    def around() -> None:
        contexts["headrace.context.FlowRunContext"] = FlowRunContext.get()
        contexts["headrace.futures.HeadraceFuture"] = inside.submit()

    around()
    objects: dict[str, Any] = {
        **contexts,
        "headrace.assets.Asset": Asset(key="s3://a"),
        "headrace.assets.AssetProperties": AssetProperties(),
        "headrace.cache_policies.CachePolicy": INPUTS,
        "headrace.context.TagsContext": TagsContext(),
        "headrace.flows.Flow": around,
        "headrace.futures.HeadraceFutureList": HeadraceFutureList(),
        "headrace.futures.HeadraceDistributedFuture": HeadraceDistributedFuture("0"),
        "headrace.input.RunInput": RunInput,
        "headrace.results.ResultStore": ResultStore(),
        "headrace.states.State": Completed(),
        "headrace.states.StateGroup": StateGroup([]),
        "headrace.task_runners.TaskRunner": ThreadPoolTaskRunner(),
        "headrace.task_runners.ThreadPoolTaskRunner": ThreadPoolTaskRunner(),
        "headrace.task_runners.ProcessPoolTaskRunner": ProcessPoolTaskRunner(),
        "headrace.tasks.Task": inside,
        "headrace.tasks.MaterializingTask": materialize("s3://a")(lambda: None),
        "headrace.transactions.Transaction": transaction(),
        "headrace.transactions.AsyncTransaction": atransaction(),
    }
    wrong = {
        path: lacks
        for path, offered in PUBLIC["members"].items()
        if (lacks := missing("members of", path, offered, dir(objects[path]))) != NOTHING
    }
    assert wrong == {}


def test_every_reason_is_about_something() -> None:
    kinds = {"names": "names of", "keywords": "keywords of", "members": "members of"}
    subjects = {f"{kinds[kind]} {subject}" for kind, found in PUBLIC.items() for subject in found}
    assert set(ABSENT) <= subjects
    assert all(reason for reasons in ABSENT.values() for reason in reasons.values())
