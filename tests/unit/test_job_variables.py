"""From a template and layers of job variables to a job."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from headrace.core.job_templates import COMMON_VARIABLES, TEMPLATE_TYPES, base_job_template
from headrace.core.job_variables import (
    expand_dotted_keys,
    job_configuration,
    merge_job_variables,
    template_defaults,
    template_problems,
)
from headrace.core.templating import TemplateError

CONTEXT = {
    "flow": {"name": "etl"},
    "flow_run": {"name": "brisk-otter", "id": "1234"},
    "deployment": {"tags": ["a", "b"]},
}


def a_template(job: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return {"job_configuration": job, "variables": {"type": "object", "properties": variables}}


def job_of(template: dict[str, Any], *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    more = {"context": CONTEXT, "default_command": "run it"} | more
    return job_configuration(template, *layers, **more)


# Dotted keys

LAYERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"image": "a"}, {"image": "a"}),
    ({"env.A": 1}, {"env": {"A": 1}}),
    ({"env.A.B": 1}, {"env": {"A.B": 1}}),
    ({"resources.limits.cpu": 1}, {"resources": {"limits": {"cpu": 1}}}),
    ({"a.b": 1, "a.c": 2}, {"a": {"b": 1, "c": 2}}),
    ({"a.b": 1, "a.b.c": 2}, {"a": {"b": {"c": 2}}}),
    # Within one layer what is nested wins, whatever the order.
    ({"env.A": 1, "env": {"A": 2, "B": 3}}, {"env": {"A": 2, "B": 3}}),
    ({"env": {"A": 2}, "env.A": 1, "env.B": 3}, {"env": {"A": 2, "B": 3}}),
    ({"a": "text", "a.b": 1}, {"a": "text"}),
    # No dots but those between names.
    ({".a": 1, "b.": 2, "c..d": 3}, {".a": 1, "b.": 2, "c..d": 3}),
]


@pytest.mark.parametrize(("layer", "expanded"), LAYERS)
def test_dotted_keys_of_a_layer(layer: dict[str, Any], expanded: dict[str, Any]) -> None:
    before = copy.deepcopy(layer)
    assert expand_dotted_keys(layer) == expanded
    assert layer == before


MERGES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([{"image": "a"}, {"image": "b"}], {"image": "b"}),
    ([{"image": "a"}, {"image": None}], {"image": None}),
    # A value wins as a whole,
    ([{"volumes": ["a"]}, {"volumes": ["b"]}], {"volumes": ["b"]}),
    ([{"limits": {"cpu": 1, "memory": 2}}, {"limits": {"cpu": 3}}], {"limits": {"cpu": 3}}),
    # but the environment is merged,
    ([{"env": {"A": 1, "B": 1}}, {"env": {"A": 2, "C": 2}}], {"env": {"A": 2, "B": 1, "C": 2}}),
    # and a dotted key is about one part, in whichever layer it stands.
    ([{"limits": {"cpu": 1, "memory": 2}}, {"limits.cpu": 3}], {"limits": {"cpu": 3, "memory": 2}}),
    ([{"env": {"A": 1}}, {"env.A": 2}], {"env": {"A": 2}}),
    ([{"env.A": 1}, {"env": {"A": 2}}], {"env": {"A": 2}}),
    ([{"env.A": 1}, {"env.B": 2}], {"env": {"A": 1, "B": 2}}),
    ([{"limits": "none"}, {"limits.cpu": 3}], {"limits": {"cpu": 3}}),
    ([{"env": {"A": {"x": 1}}}, {"env": {"A": {"y": 2}}}], {"env": {"A": {"y": 2}}}),
]


@pytest.mark.parametrize(("layers", "merged"), MERGES)
def test_layers_become_one(layers: list[dict[str, Any]], merged: dict[str, Any]) -> None:
    before = copy.deepcopy(layers)
    assert merge_job_variables(*layers) == merged
    assert layers == before


# Environment: five sources, each of which says something, takes it away, or is silent.

SET, NULL, ABSENT = "set", "null", "absent"


@pytest.mark.parametrize("literal", [SET, NULL, ABSENT])
@pytest.mark.parametrize("default", [SET, NULL, ABSENT])
@pytest.mark.parametrize("deployment", [SET, NULL, ABSENT])
@pytest.mark.parametrize("run", [SET, NULL, ABSENT])
def test_the_environment_of_five_sources(literal: str, default: str, deployment: str, run: str) -> None:
    def said(source: str, what: str) -> dict[str, Any]:
        return {} if what == ABSENT else {"A": source if what == SET else None, source: 1}

    sources = {"literal": literal, "default": default, "deployment": deployment, "run": run}
    template = a_template(
        {"env": said("literal", literal)}, env={"type": "object", "default": said("default", default)}
    )
    job = job_of(
        template,
        {"env": said("deployment", deployment)},
        {"env": said("run", run)},
        base_env={"A": "base", "B": "base"},
    )
    expected = {"B": "base"} | {source: "1" for source, what in sources.items() if what != ABSENT}
    speaking = ["base", *(source for source, what in sources.items() if what != ABSENT)]
    if sources.get(speaking[-1], SET) == SET:
        expected["A"] = speaking[-1]
    assert job["env"] == expected


def test_what_is_no_text_becomes_text_in_the_environment() -> None:
    template = base_job_template("process")
    job = job_of(template, {"env": {"INT": 3, "FLOAT": 0.5, "BOOL": True, "TEXT": "x"}})
    assert job["env"] == {"INT": "3", "FLOAT": "0.5", "BOOL": "True", "TEXT": "x"}


# Placeholders

FILLED: list[tuple[Any, Any]] = [
    ("{{ count }}", 3),
    ("{{count}}", 3),
    ("  {{ count }} ", 3),
    ("{{ items }}", ["x", {"y": 1}]),
    ("{{ items[1].y }}", 1),
    ("{{ items[7] }}", None),
    ("n={{ count }};", "n=3;"),
    ("{{ count }}{{ count }}", "33"),
    ("a{{ nothing }}b", "ab"),
    ("{{ nothing }}", None),
    (["{{ nothing }}", "{{ count }}"], [3]),
    ({"deep": {"er": "{{ count }}", "gone": "{{ nothing }}"}}, {"deep": {"er": 3}}),
    ("{{ ctx.flow.name }}", "etl"),
    ("{{ ctx.flow.name }}-{{ ctx.flow_run.id }}", "etl-1234"),
    ("{{ ctx.deployment.tags[1] }}", "b"),
    ("{{ ctx.nobody.name }}", None),
    (7, 7),
    (None, "null"),
]


@pytest.mark.parametrize(("value", "filled"), FILLED)
def test_placeholders(value: Any, filled: Any) -> None:
    template = a_template(
        {"field": value}, count={"default": 3}, items={"default": ["x", {"y": 1}]}, nothing={}
    )
    job = job_of(template)
    if filled is None:
        assert "field" not in job
    else:
        assert job["field"] == (None if filled == "null" else filled)


def test_a_filled_value_belongs_to_the_job_alone() -> None:
    template = a_template({"first": "{{ items }}"}, items={"default": ["x"]})
    before = copy.deepcopy(template)
    job_of(template)["first"].append("y")
    assert template == before


def test_text_takes_no_lists_and_nothing_stored() -> None:
    template = a_template({"field": "a {{ items }}"}, items={"default": ["x"]})
    with pytest.raises(TemplateError, match=r"items .* cannot stand within text"):
        job_of(template)
    with pytest.raises(TemplateError, match=r"headrace\.variables\.x"):
        job_of(a_template({"field": "{{ headrace.variables.x }}"}))


def test_values_name_the_run_and_keep_what_else_is_in_braces() -> None:
    template = base_job_template("docker")
    job = job_of(template, {"image": "{{ ctx.flow.name }}:1", "env": {"T": "{{ not_ours }}"}})
    assert job["image"] == "etl:1"
    assert job["env"] == {"T": "{{ not_ours }}"}


def test_name_command_and_labels() -> None:
    template = base_job_template("process")
    job = job_of(template, base_labels={"run": "1", "team": "base"})
    assert (job["name"], job["command"]) == ("brisk-otter", "run it")
    assert job["labels"] == {"run": "1", "team": "base"}
    layer = {"name": "job-{{ ctx.flow_run.name }}", "command": "mine", "labels": {"team": "a"}}
    job = job_of(template, layer, base_labels={"run": "1", "team": "base"})
    assert (job["name"], job["command"]) == ("job-brisk-otter", "mine")
    assert job["labels"] == {"run": "1", "team": "a"}
    assert "name" not in job_of(template, context={})


# Templates


@pytest.mark.parametrize("type", [*TEMPLATE_TYPES, "somebody-elses"])
def test_our_templates_are_sound(type: str) -> None:
    template = base_job_template(type)
    assert template_problems(template) == []
    assert set(COMMON_VARIABLES) <= set(template["variables"]["properties"])
    assert None not in template_defaults(template).values()
    job = job_of(template)
    assert job["env"] == {} and job["labels"] == {}
    assert "{{" not in str(job)
    template["variables"].clear()
    assert base_job_template(type)["variables"]


def test_what_the_types_start_with() -> None:
    assert job_of(base_job_template("process")) == {
        "name": "brisk-otter",
        "command": "run it",
        "env": {},
        "labels": {},
        "stream_output": True,
    }
    kubernetes = job_of(base_job_template("kubernetes"), {"image": "i", "cpu_limit": "2", "env.A": 1})
    spec = kubernetes["job_manifest"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 0)
    assert "ttlSecondsAfterFinished" not in spec
    assert container["resources"] == {"requests": {}, "limits": {"cpu": "2"}}
    assert (container["image"], container["env"]) == ("i", {"A": "1"})


BAD_TEMPLATES: list[tuple[Any, str, str]] = [
    ([], "", "must be an object"),
    ({}, "job_configuration", "must be an object"),
    ({"job_configuration": {}, "variables": []}, "variables", "must be an object"),
    ({"job_configuration": {}, "variables": {}, "more": 1}, "more", "no part of a template"),
    ({"job_configuration": {}, "variables": {"properties": 3}}, "variables.properties", "must be an object"),
    (a_template({"a": {"b": ["{{ c }}"]}}), "job_configuration.a.b[0]", "uses 'c'"),
    (a_template({"a": "x-{{ c.d }}"}, d={}), "job_configuration.a", "uses 'c'"),
]


@pytest.mark.parametrize(("template", "path", "reason"), BAD_TEMPLATES)
def test_templates_that_are_none(template: Any, path: str, reason: str) -> None:
    problem = template_problems(template)[0]
    assert problem.path == path
    assert reason in problem.reason
