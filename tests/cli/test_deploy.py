"""deploy: what the file says is what the server has, and nothing changes twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.client import get_client
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.work_pool_pb2 import WorkPool
from tests.cli.conftest import Cli, forget_settings
from tests.support.servers import ServerProcess
from tests.support.terminals import on_a_terminal

FILE = """
name: shop
build:
  - run_shell_script: {id: image, script: echo shop:7, stream_output: false}
pull:
  - git_clone: {repository: "https://example.org/shop.git", access_token: "{{ $GIT_TOKEN }}"}
  - set_working_directory: {directory: "{{ directory }}/{{ image.stdout }}"}
environments:
  prod: {work_pool: {name: prod}, "+tags": [prod]}
deployments:
  - name: nightly
    entrypoint: flows.py:orders
    tags: [etl]
    parameters: {region: north}
    concurrency_limit: 2
    fairness_key: "tenant {{ parameters.region }}"
    schedules: [{slug: night, cron: "0 2 * * *", timezone: Europe/Oslo}]
    work_pool:
      name: main
      work_queue_name: etl
      job_variables: {env: {IMAGE: "{{ image.stdout }}", HOME_OF: "{{ $WHOSE }}"}}
  - name: weekly
    entrypoint: flows.py:reports
    work_pool: main
    pull: []
"""
FLOWS = '''
from headrace import flow

@flow
def orders(region: str, day: int = 1) -> str:
    """Orders of a region."""
    return f"{region} {day}"

@flow
def reports() -> None: ...
'''


@pytest.fixture(scope="module")
def its_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all of these tests: each begins without deployments."""
    with ServerProcess(tmp_path_factory.mktemp("deploy") / "server") as server:
        yield server


@pytest.fixture
def project(cli: Cli, its_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_API_URL", its_server.address)
    monkeypatch.setenv("WHOSE", "ada")
    monkeypatch.setenv("GIT_TOKEN", "s3cret")
    forget_settings(monkeypatch)
    with get_client(sync_client=True) as client:
        for pool in ("main", "prod"):
            client.create_work_pool(WorkPool(name=pool, type="process"), return_existing=True)
        for deployment in client.iter_deployments():
            client.delete_deployment(deployment.id)
    Path("headrace.yaml").write_text(FILE)
    Path("flows.py").write_text(FLOWS)
    return Path.cwd()


def kept(name: str) -> Deployment:
    with get_client(sync_client=True) as client:
        return client.get_deployment(name)


def test_a_file_is_deployed_and_deployed_again(cli: Cli, project: Path) -> None:
    first = cli("deploy", "--all")
    assert first.code == 0, first.err
    assert first.out.splitlines() == ["orders/nightly: created", "reports/weekly: created"]
    nightly = kept("orders/nightly")
    assert nightly.description == "Orders of a region."
    assert json.loads(nightly.parameters) == {"region": "north"}
    assert json.loads(nightly.parameter_schema)["required"] == ["region"]
    assert (nightly.work_pool, nightly.work_queue, nightly.concurrency.limit) == ("main", "etl", 2)
    assert (
        nightly.job_variables["env"]["IMAGE"] == "shop:7" and nightly.job_variables["env"]["HOME_OF"] == "ada"
    )
    assert nightly.fairness_key == "tenant {{ parameters.region }}"
    assert [schedule.slug for schedule in nightly.schedules] == ["night"]
    assert nightly.version_info["type"] == "headrace:simple"
    assert list(kept("reports/weekly").pull_steps.steps) == []
    assert kept("reports/weekly").HasField("pull_steps")

    again = cli("deploy", "--all")
    assert again.out.splitlines() == [
        "orders/nightly: unchanged, version 1",
        "reports/weekly: unchanged, version 1",
    ]


def test_secrets_of_pull_steps_stay_where_they_are(cli: Cli, project: Path) -> None:
    assert cli("deploy", "-n", "nightly").code == 0
    clone, folder = kept("orders/nightly").pull_steps.steps
    assert clone["git_clone"]["access_token"] == "{{ $GIT_TOKEN }}"
    assert folder["set_working_directory"]["directory"] == "{{ directory }}/shop:7"
    assert "s3cret" not in str(kept("orders/nightly"))


def test_what_changes_is_shown_before_and_after(cli: Cli, project: Path) -> None:
    cli("deploy", "--all")
    text = FILE.replace("region: north", "region: south")
    Path("headrace.yaml").write_text(text)
    dry = cli("deploy", "-n", "night*", "--dry-run")
    assert dry.code == 0 and "orders/nightly: would change" in dry.out and "parameters" in dry.out
    assert json.loads(kept("orders/nightly").parameters) == {"region": "north"}
    done = json.loads(cli("deploy", "-n", "orders/nightly", "-o", "json").out)
    assert [change["path"] for change in done[0]["changes"]] == ["parameters.region"] or done[0]["changes"]
    assert json.loads(kept("orders/nightly").parameters) == {"region": "south"}


def test_an_environment(cli: Cli, project: Path) -> None:
    assert cli("deploy", "-n", "weekly", "--env", "prod").code == 0
    weekly = kept("reports/weekly")
    assert weekly.work_pool == "prod" and list(weekly.tags) == ["prod"]


def test_a_protected_environment_is_deployed_only_by_who_says_its_name(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("headrace.yaml").write_text(FILE.replace("prod: {", "prod: {protected: true, name_suffix: -prod, "))
    refused = cli("deploy", "-n", "weekly-prod", "--env", "prod")
    assert refused.code == 2 and "Say --yes-to prod." in refused.err
    assert cli("diff", "-n", "weekly-prod", "--env", "prod").out == "reports/weekly-prod: would be created\n"
    assert cli("deploy", "-n", "weekly-prod", "--env", "prod", "--yes-to", "prd").code == 2
    assert cli("deploy", "-n", "weekly", "--yes-to", "prod").code == 2, "another is deployed than is meant"
    monkeypatch.setenv("HEADRACE_DEPLOY_ENVIRONMENT", "prod")
    assert cli("deploy", "-n", "weekly-prod", "--yes-to", "prod").code == 0
    assert list(kept("reports/weekly-prod").tags) == ["prod"]


def test_what_was_deployed_differs_in_nothing_from_the_file(cli: Cli, project: Path) -> None:
    before = cli("diff", "-n", "weekly", "--exit-code", "-o", "json")
    assert before.code == 1 and json.loads(before.out)[0]["created"]
    for environment in ([], ["--env", "prod"]):
        assert cli("deploy", "-n", "weekly", *environment).code == 0
        same = cli("diff", "-n", "weekly", "--exit-code", *environment)
        assert (same.code, "unchanged" in same.out) == (0, True), same
    other = cli("diff", "-n", "weekly", "--exit-code")
    assert other.code == 1 and "work_pool" in other.out
    assert kept("reports/weekly").work_pool == "prod", "nothing was changed"
    assert cli("diff", "-n", "weekli").code == 1
    Path("headrace.yaml").unlink()
    assert "headrace init" in cli("diff").err


def test_the_command_line_stands_over_the_file(cli: Cli, project: Path) -> None:
    words = ["--cron", "0 3 * * *", "--timezone", "UTC", "-p", "prod", "-t", "x", "--param", "region=west"]
    assert (
        cli(
            "deploy",
            "-n",
            "nightly",
            *words,
            "--job-variable",
            "working_dir=other",
            "--fairness-key",
            "{{ tags[0] }}",
        ).code
        == 0
    )
    nightly = kept("orders/nightly")
    assert nightly.work_pool == "prod" and list(nightly.tags) == ["x"]
    assert json.loads(nightly.parameters) == {"region": "west"}
    assert nightly.job_variables["working_dir"] == "other"
    assert nightly.fairness_key == "{{ tags[0] }}"
    assert nightly.job_variables["env"]["IMAGE"] == "shop:7"
    assert [schedule.cron.cron for schedule in nightly.schedules] == ["0 3 * * *"]


def test_parameters_may_go_unchecked(cli: Cli, project: Path) -> None:
    assert cli("deploy", "-n", "nightly", "--no-enforce-parameter-schema").code == 0
    assert kept("orders/nightly").skip_parameter_check
    assert cli("deploy", "-n", "nightly", "--enforce-parameter-schema").code == 0
    assert not kept("orders/nightly").skip_parameter_check


def test_one_that_fails_does_not_keep_the_others(cli: Cli, project: Path) -> None:
    Path("headrace.yaml").write_text(FILE.replace("name: main\n", "name: absent\n"))
    done = cli("deploy", "--all")
    assert done.code == 1
    assert "nightly: failed" in done.out and "absent" in done.out and "reports/weekly: created" in done.out


def test_code_that_cannot_be_loaded_does_not_keep_the_others(cli: Cli, project: Path) -> None:
    Path("broken.py").write_text("import shop_is_not_there\n")
    Path("headrace.yaml").write_text(FILE.replace("flows.py:orders", "broken.py:orders"))
    done = cli("deploy", "--all")
    assert done.code == 1, done.err
    assert "nightly: failed: broken.py cannot be loaded" in done.out and "reports/weekly: created" in done.out
    assert 'broken.py", line 1' in done.out, "where it is broken"
    alone = cli("deploy", "-n", "nightly")
    assert alone.code == 1 and "broken.py cannot be loaded" in alone.err


def test_ctrl_c_ends_a_question(project: Path, its_server: ServerProcess) -> None:
    words = [sys.executable, "-m", "headrace", "deploy"]
    after = "Which deployment? [1-2]"
    shown = on_a_terminal(words, its_server.environment, project, after=after, is_interrupted=True)
    assert shown.code == 130 and "Traceback" not in shown
    chosen = on_a_terminal(
        words, its_server.environment, project, typed="2\n", after="Which deployment? [1-2]"
    )
    assert chosen.code == 0 and "reports/weekly: created" in chosen


def test_a_step_that_fails_deploys_nothing(cli: Cli, project: Path) -> None:
    Path("headrace.yaml").write_text(FILE.replace("script: echo shop:7", "script: sh -c 'exit 3'"))
    done = cli("deploy", "-n", "nightly", "-o", "json")
    assert done.code == 1 and "ended with code 3" in json.loads(done.out)[0]["error"]


def test_without_a_file(cli: Cli, project: Path) -> None:
    Path("headrace.yaml").unlink()
    assert cli("deploy").code == 2
    done = cli("deploy", "flows.py:orders", "-n", "by-hand", "-p", "main", "--interval", "3600")
    assert done.code == 0, done.err
    by_hand = kept("orders/by-hand")
    assert by_hand.entrypoint == "flows.py:orders" and by_hand.schedules[0].interval.interval.seconds == 3600
    [step] = by_hand.pull_steps.steps
    assert step["headrace.deployments.steps.set_working_directory"]["directory"] == str(project)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--all", "-n", "nightly"], 2, "exclude each other"),
        ([], 2, "Say which by --name, or --all."),
        (["-n", "nightli"], 1, "Did you mean nightly?"),
        (["--all", "--env", "prd"], 2, "Did you mean prod?"),
        (["-n", "nightly", "--anchor-date", "2026-01-01"], 2, "--anchor-date goes with --interval"),
        (["flows.py:orders"], 0, ""),
        (["flows.py:reports", "-n", "a", "-n", "b"], 2, "one name"),
        (["-n", "nightly", "--timezone", "UTC"], 2, "--timezone goes with --cron"),
        (["-n", "nightly", "--interval", "abc"], 2, "nightly: schedules[0].interval: "),
        (
            ["-n", "weekly", "--collision-strategy", "CANCEL_NEW"],
            2,
            "concurrency_limit.limit: Field",
        ),
        (["flows.py:reports", "-n", "other/x", "-p", "main"], 2, "another flow than flows.py:reports"),
        (["flows.py:reports", "-n", "reports/x"], 0, "reports/x has no work pool"),
        (["-n", "nightly", "--cron", "61 * * * *"], 1, "cron"),
        (["flows.py:absent", "-n", "x"], 3, "absent"),
    ],
    ids=[
        *(
            "all and name",
            "none",
            "near name",
            "near environment",
            "anchor",
            "known",
            "names",
            "zone",
            "interval",
        ),
        *("limit", "other flow", "no pool", "cron", "flow"),
    ],
)
def test_mistakes(cli: Cli, project: Path, words: list[str], code: int, message: str) -> None:
    done = cli("deploy", *words)
    assert done.code == code, done
    assert message in done.err + done.out
    assert "Traceback" not in done.err


def test_messages_of_the_api_are_applied(cli: Cli, project: Path) -> None:
    Path("api.yaml").write_text(
        "- {flow_name: a, name: b, work_pool: main, entrypoint: 'rust:x', parameters: {n: 1}}\n"
        "- {flow_name: a, name: c, work_pool: absent}\n"
    )
    done = cli("deployment", "apply", "api.yaml")
    assert done.code == 1 and "a/b: created" in done.out and "a/c: failed" in done.out
    assert json.loads(kept("a/b").parameters) == {"n": 1}
    Path("api.yaml").write_text("{flow_name: a, name: b, tags: [x]}")
    assert "changed, now version 2" in cli("deployment", "apply", "api.yaml").out
    assert kept("a/b").entrypoint == "rust:x" and list(kept("a/b").tags) == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "holds no deployment"),
        ("{flow_name: a}", "needs flow_name and name"),
        ("{flow_name: a, name: b, pool: x}", 'no field named "pool"'),
        ("{a: [", "is no YAML"),
    ],
    ids=["number", "name", "field", "yaml"],
)
def test_mistakes_in_messages(cli: Cli, project: Path, text: str, message: str) -> None:
    Path("api.yaml").write_text(text)
    done = cli("deployment", "apply", "api.yaml")
    assert done.code == 2 and message in done.err, done
