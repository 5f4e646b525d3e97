"""init: the file it writes is one that can be deployed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headrace.deployments.project import load_project
from headrace.deployments.recipes import RECIPES
from tests.cli.conftest import Cli

STEPS = "headrace.deployments.steps"
FIELDS: dict[str, list[str]] = {
    "local": [],
    "git": ["repository=https://example.org/shop.git", "branch=main"],
    "s3": ["bucket=code"],
    "gcs": ["bucket=code", "folder=etl/flows"],
    "azure": ["bucket=code"],
    "docker": ["image_name=registry.example/shop"],
    "docker-git": ["image_name=shop", "repository=https://example.org/shop.git", "branch=main"],
    "docker-s3": ["image_name=shop", "bucket=code"],
    "docker-gcs": ["image_name=shop", "bucket=code"],
    "docker-azure": ["image_name=shop", "bucket=code"],
}


def test_every_recipe_is_tried() -> None:
    assert FIELDS.keys() == RECIPES.keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_a_file_that_is_understood(cli: Cli, recipe: str) -> None:
    words = [word for field in FIELDS[recipe] for word in ("--field", field)]
    done = cli("init", "--recipe", recipe, "--name", 'a "name"', *words)
    assert done.code == 0, done.err
    project = load_project(Path("headrace.yaml"))
    assert project.name == 'a "name"'
    [entry] = project.deployments
    steps = {kind: entry.steps(kind, project) for kind in ("build", "push", "pull")}
    for field in FIELDS[recipe]:
        assert field.partition("=")[2] in str(steps)
    if recipe.startswith("docker"):
        assert [list(step) for step in steps["build"] or []] == [[f"{STEPS}.build_docker_image"]]
        assert [list(step) for step in steps["push"] or []] == [[f"{STEPS}.push_docker_image"]]
        assert entry.work_pool.job_variables == {"image": "{{ build-image.image }}"}
    assert len(steps["pull"] or []) == (0 if recipe == "docker" else 1)


def test_what_is_known_is_filled_in(cli: Cli) -> None:
    Path("flows").mkdir()
    Path("flows/broken.py").write_text("def (:")
    Path("flows/orders.py").write_text("import headrace\n@headrace.flow(name='x')\nasync def orders(): ...\n")
    subprocess.run(["git", "init", "-q", "-b", "trunk"], check=True)
    subprocess.run(["git", "remote", "add", "origin", "https://t0ken@example.org/shop.git"], check=True)
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert cli("init").code == 0
    text = Path("headrace.yaml").read_text()
    assert "t0ken" not in text
    project = load_project(Path("headrace.yaml"))
    assert project.deployments[0].entrypoint == "flows/orders.py:orders"
    assert project.pull == [
        {
            "headrace.deployments.steps.git_clone": {
                "repository": "https://example.org/shop.git",
                "branch": "trunk",
            }
        }
    ]


def test_a_file_that_is_there_is_left_alone(cli: Cli) -> None:
    Path("prefect.yaml").write_text("mine")
    done = cli("init")
    assert done.code == 1 and "prefect.yaml already" in done.err
    assert [path.name for path in Path.cwd().iterdir()] == ["prefect.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "gits"], "Did you mean 'git'?"),
        (["--recipe", "s3"], "Name of an S3 bucket? Say --field bucket="),
        (["--recipe", "s3", "--field", "buckt=x"], "Did you mean 'bucket'?"),
        (["--recipe", "s3", "--field", "bucket"], "each as KEY=VALUE"),
    ],
    ids=["recipe", "missing field", "unknown field", "no value"],
)
def test_what_is_wrong_is_said_and_nothing_written(cli: Cli, words: list[str], message: str) -> None:
    done = cli("init", *words)
    assert done.code == 2 and message in done.err
    assert list(Path.cwd().iterdir()) == []
