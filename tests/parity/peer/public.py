"""Run in Prefect's environment: `public.py OUT` writes which names, keywords and members there are."""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import sys

MODULES = [
    *("prefect", "prefect.assets", "prefect.cache_policies", "prefect.context", "prefect.exceptions"),
    *("prefect.flow_runs", "prefect.flows", "prefect.futures", "prefect.input", "prefect.locking.filesystem"),
    *("prefect.locking.memory", "prefect.logging", "prefect.runtime", "prefect.runtime.deployment"),
    *("prefect.runtime.flow_run", "prefect.runtime.task_run", "prefect.schedules", "prefect.serializers"),
    *("prefect.states", "prefect.task_runners", "prefect.task_worker", "prefect.tasks"),
    *("prefect.testing.utilities", "prefect.transactions", "prefect.utilities.annotations"),
]
CLASSES = {
    "prefect.assets": ["Asset", "AssetProperties"],
    "prefect.cache_policies": ["CachePolicy"],
    "prefect.context": ["FlowRunContext", "TaskRunContext", "TagsContext"],
    "prefect.flows": ["Flow"],
    "prefect.futures": ["PrefectFuture", "PrefectFutureList", "PrefectDistributedFuture"],
    "prefect.input": ["RunInput"],
    "prefect.results": ["ResultStore"],
    "prefect.states": ["State", "StateGroup"],
    "prefect.task_runners": ["TaskRunner", "ThreadPoolTaskRunner", "ProcessPoolTaskRunner"],
    "prefect.tasks": ["Task", "MaterializingTask"],
    "prefect.transactions": ["Transaction", "AsyncTransaction"],
}
MADE_BY_THE_ENGINE = {
    *("prefect.context.FlowRunContext", "prefect.context.TaskRunContext", "prefect.futures.PrefectFuture"),
    *("prefect.transactions.Transaction", "prefect.transactions.AsyncTransaction"),
}
OF_PYDANTIC = set(dir(importlib.import_module("pydantic").BaseModel)) | {"model_computed_fields"}


def names_of(module: object, name: str) -> list[str]:
    """What is meant for others: `__all__`, and what was written in that file."""
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
    listed = {*getattr(module, "__all__", []), *own}
    return sorted(one for one in listed if not one.startswith("_") and len(one) > 1)


def keywords_of(value: object) -> dict[str, object]:
    """The parameters of a function, or of making an instance, and their defaults where JSON can say them."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return {}
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return {one.name.lstrip("_"): default_of(one) for one in named if one.name not in ("self", "cls")}


def default_of(parameter: inspect.Parameter) -> object:
    default = parameter.default
    return default if default is None or isinstance(default, (bool, int, float, str)) else "?"


def members_of(cls: type) -> list[str]:
    found = {name for name in dir(cls) if not name.startswith("_")}
    return sorted((found | set(getattr(cls, "model_fields", {}))) - OF_PYDANTIC - set(dir(list)))


def main(out: pathlib.Path) -> None:
    names, keywords, members = {}, {}, {}
    for name in MODULES:
        module = importlib.import_module(name)
        names[name] = names_of(module, name)
        for one in names[name]:
            value = getattr(module, one, None)
            if inspect.isfunction(value) and one in getattr(module, "__all__", names[name]):
                keywords[f"{name}.{one}"] = keywords_of(value)
    for name, classes in CLASSES.items():
        for one in classes:
            cls = getattr(importlib.import_module(name), one)
            members[f"{name}.{one}"] = members_of(cls)
            if f"{name}.{one}" not in MADE_BY_THE_ENGINE:
                keywords[f"{name}.{one}"] = keywords_of(cls)
            for member in members[f"{name}.{one}"]:
                if inspect.isfunction(getattr(cls, member, None)):
                    keywords[f"{name}.{one}.{member}"] = keywords_of(getattr(cls, member))
    keywords["prefect.flow"] = keywords_of(importlib.import_module("prefect").Flow)
    out.write_text(json.dumps({"names": names, "keywords": keywords, "members": members}))


main(pathlib.Path(sys.argv[1]))
