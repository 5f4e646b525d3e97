"""The project file: what it may say, what becomes of it, and what is said of mistakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.deployments.project import ProjectError, find_project, load_project, merge

WHOLE = """
prefect-version: 3.0.0
name: shop
definitions:
  nightly: &nightly
    cron: "0 2 * * *"
    timezone: Europe/Oslo
    slug: nightly
build:
  run_shell_script:
    script: make image
pull:
  - git_clone: {repository: "https://example.org/shop.git"}
environments:
  dev:
    work_pool: {name: dev}
    "+tags": [try-out]
    schedules: []
  prod:
    work_pool: {job_variables: {env: {MODE: prod}}}
deployments:
  - name: orders
    entrypoint: flows/orders.py:orders
    tags: [etl]
    concurrency_limit: 3
    schedules:
      - *nightly
      - {interval: 3600, anchor_date: 2026-01-01T09:00:00, catch_up: all, overlap: cancel-old}
    work_pool: {name: main, job_variables: {image: shop, env: {A: "1"}}}
    env: {LOG: debug}
  - name: reports
    entrypoint: flows/reports.py:reports
    schedule: {rrule: "FREQ=DAILY;COUNT=3"}
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    pull: null
    push: {run_shell_script: {script: make push}}
    work_pool: small
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace.yaml"
    path.write_text(WHOLE)
    return path


def test_a_whole_file(file: Path) -> None:
    project = load_project(file)
    orders, reports = project.deployments
    assert project.build == [{"run_shell_script": {"script": "make image"}}]
    nightly, hourly = orders.schedules or []
    assert (nightly.cron, nightly.timezone, nightly.slug) == ("0 2 * * *", "Europe/Oslo", "nightly")
    assert hourly.interval == timedelta(hours=1) and hourly.anchor_date == "2026-01-01T09:00:00"
    assert hourly.catch_up is not None and hourly.catch_up.mode == "all"
    assert hourly.overlap is not None and hourly.overlap.mode == "cancel_old"
    assert orders.concurrency_limit is not None and orders.concurrency_limit.limit == 3
    assert orders.environment == {"LOG": "debug"}
    assert orders.work_pool.job_variables["env"] == {"A": "1"}
    assert reports.schedules is not None and reports.schedules[0].rrule == "FREQ=DAILY;COUNT=3"
    assert reports.work_pool.name == "small"


def test_an_environment_may_name_its_deployments_and_be_protected(file: Path) -> None:
    text = WHOLE.replace(
        "  prod:\n", "  prod:\n    protected: true\n    name_suffix: -prod\n    '+tags': [etl, prod]\n"
    )
    file.write_text(text)
    project = load_project(file, "prod")
    assert [entry.name for entry in project.deployments] == ["orders-prod", "reports-prod"]
    assert project.deployments[0].tags == ["etl", "prod"], "appended once"
    assert (project.environment, project.is_protected) == ("prod", True)
    dev = load_project(file, None, usual_environment="dev")
    assert (dev.environment, dev.is_protected, dev.deployments[0].name) == ("dev", False, "orders")
    assert load_project(file).environment is None
    file.write_text("deployments: []")
    assert load_project(file, usual_environment="dev").environment is None, "there are none to choose from"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("protected: maybe", "true or false"),
        ("name_suffix: 3", "is a text"),
        ("", ""),
        ("[a]", "keys and values"),
    ],
)
def test_an_environment_that_makes_no_sense(file: Path, said: str, reason: str) -> None:
    file.write_text(f"environments:\n  prod:\n    {said}\ndeployments: []\n")
    if not reason:
        assert load_project(file, "prod").environment == "prod", "an empty one is one"
        return
    with pytest.raises(ProjectError, match=reason):
        load_project(file, "prod")


def test_steps_are_inherited_unless_named(file: Path) -> None:
    project = load_project(file)
    orders, reports = project.deployments
    assert orders.steps("pull", project) == project.pull
    assert reports.steps("pull", project) == [], "null means none"
    assert reports.steps("push", project) == [{"run_shell_script": {"script": "make push"}}]
    assert orders.steps("push", project) is None


def test_an_environment_is_merged_over_every_deployment(file: Path) -> None:
    dev_orders, dev_reports = load_project(file, "dev").deployments
    assert (dev_orders.work_pool.name, dev_orders.tags) == ("dev", ["etl", "try-out"])
    assert dev_orders.work_pool.job_variables["image"] == "shop"
    assert dev_orders.schedules == [] and dev_reports.tags == ["try-out"]
    [prod, _] = load_project(file, "prod").deployments
    assert prod.work_pool.job_variables == {"image": "shop", "env": {"A": "1", "MODE": "prod"}}
    with pytest.raises(ProjectError, match=r"has no environment prd\. Did you mean prod"):
        load_project(file, "prd")


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": [1]}, {"+a": [2]}, {"a": [1, 2]}),
        ({}, {"+a": [2]}, {"a": [2]}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
    ],
    ids=str,
)
def test_merging(base: Any, over: Any, merged: Any) -> None:
    assert merge(base, over) == merged


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "deployments:\n- name: a\n  entrypont: x",
            r":3: deployments\[0\].*Did you mean entrypoint",
            id="key",
        ),
        pytest.param("deploymnts: []", r":1: deploymnts: .*Did you mean deployments", id="key of the file"),
        pytest.param(
            "deployments:\n- name: a\n  schedules:\n  - crone: '* * * * *'",
            r":4: deployments\[0\].schedules\[0\].*",
            id="key of a schedule",
        ),
        pytest.param(
            "deployments:\n- schedules: [{cron: '* * * * *', interval: 5}]",
            "exactly one of cron, interval and rrule; it has cron and interval",
            id="two timings",
        ),
        pytest.param("deployments:\n- schedules: [{slug: a}]", "it has none", id="no timing"),
        pytest.param("deployments:\n- concurrency_limit: 0", "greater than or equal to 1", id="limit"),
        pytest.param("deployments:\n- priority: 10", "less than or equal to 9", id="priority"),
        pytest.param("deployments:\n- triggers: [{}]", "no automations yet", id="triggers"),
        pytest.param("deployments: {a: b}", "valid list", id="no list"),
        pytest.param("- a", "must hold keys and values", id="a list"),
        pytest.param("a: [", "is no YAML", id="no YAML"),
        pytest.param(
            "deployments:\n- {schedule: {cron: '@daily'}, schedules: []}", "exclude each other", id="both"
        ),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text(text)
    with pytest.raises(ProjectError, match=message):
        load_project(path)


def test_every_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "headrace.yaml"
    path.write_text("names: shop\ndeployments:\n- tag: [a]\n- priority: high\n")
    with pytest.raises(ProjectError) as refused:
        load_project(path)
    assert [line.split(":")[1] for line in str(refused.value).splitlines()] == ["3", "4", "1"]


def test_an_empty_file_and_none(tmp_path: Path) -> None:
    assert find_project(tmp_path) is None
    (tmp_path / "prefect.yaml").write_text("")
    assert find_project(tmp_path) == tmp_path / "prefect.yaml"
    assert load_project(tmp_path / "prefect.yaml").deployments == []
    (tmp_path / "headrace.yaml").write_text("deployments:\n")
    assert find_project(tmp_path) == tmp_path / "headrace.yaml"
    assert load_project(tmp_path / "headrace.yaml").deployments == []
    with pytest.raises(ProjectError, match="cannot be read"):
        load_project(tmp_path / "absent.yaml")
