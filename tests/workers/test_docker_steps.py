"""Steps that build and push images, with a real engine and a registry that asks who one is."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from headrace.client import get_client
from headrace.deployments.steps import StepExecutionError, run_step, run_steps
from headrace.docker import DockerImage
from headrace.docker.names import default_image
from headrace.settings import temporary_settings
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.engine import IMAGE, ContainerEngine
from tests.support.registry import PASSWORD, USERNAME, ImageRegistry
from tests.support.servers import ServerProcess, run_headrace

pytestmark = pytest.mark.xdist_group("containers")

FILE = """
build:
  - prefect_docker.deployments.steps.build_docker_image:
      id: build-image
      requires: prefect-docker
      image_name: {registry}/team/shop
      additional_tags: [newest]
push:
  - prefect_docker.deployments.steps.push_docker_image:
      requires: prefect-docker
      image_name: "{{{{ build-image.image_name }}}}"
      tag: "{{{{ build-image.tag }}}}"
      additional_tags: "{{{{ build-image.additional_tags }}}}"
      credentials: {{username: {username}, password: {password}, registry_url: {registry}}}
pull: []
deployments:
  - name: first
    entrypoint: shop.py:shop
    work_pool: &boxes
      name: boxes
      job_variables: {{image: "{{{{ build-image.image }}}}"}}
  - name: second
    entrypoint: shop.py:shop
    work_pool: *boxes
"""


@pytest.fixture
def project(engine: ContainerEngine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder to be put into images: the working one of this process, which knows the engine."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "shop.py").write_text("from headrace import flow\n\n@flow\ndef shop() -> None: ...\n")
    (folder / "Dockerfile").write_text(
        f"FROM {IMAGE} AS base\nARG COLOUR\nLABEL colour=$COLOUR\n"
        f"FROM base AS small\nCOPY shop.py /code/\nFROM base\nCOPY . /code/\n"
    )
    return folder


def inspected(engine: ContainerEngine, reference: str) -> dict[str, Any]:
    [found] = json.loads(engine.podman("image", "inspect", reference))
    return found


async def put_out(name: str, **arguments: Any) -> dict[str, Any]:
    return await run_step({name: arguments})


def test_deployments_of_a_file_share_the_image_that_is_built_and_pushed(
    project: pathlib.Path, engine: ContainerEngine, registry: ImageRegistry, tmp_path: pathlib.Path
) -> None:
    text = FILE.format(registry=registry.address, username=USERNAME, password=PASSWORD)
    (project / "prefect.yaml").write_text(text)
    with (
        ServerProcess(tmp_path / "server") as server,
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        client.create_work_pool(WorkPool(name="boxes", type="docker"))
        environment = {
            **server.environment,
            "HEADRACE_API_URL": server.address,
            "DOCKER_HOST": engine.address,
        }
        done = run_headrace("deploy", "--all", environment=environment, cwd=project)
        assert done.returncode == 0, done.stderr
        images = [
            client.get_deployment(f"shop/{name}").job_variables["image"] for name in ("first", "second")
        ]
    assert images[0] == images[1]
    name, _, tag = images[0].rpartition(":")
    assert name == f"{registry.address}/team/shop"
    assert {f"team/shop:{tag}", "team/shop:newest"} <= registry.manifests.keys()
    assert PASSWORD not in done.stdout + done.stderr


async def test_what_is_said_of_a_build_reaches_the_engine(
    project: pathlib.Path, engine: ContainerEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "image_name": "localhost/said",
        "tag": "1",
        "additional_tags": ["2", "3"],
        "buildargs": {"COLOUR": "green"},
        "labels": {"owner": "otter"},
        "target": "small",
        "nocache": True,
    }
    done = await put_out("build_docker_image", **said)
    image = inspected(engine, "localhost/said:3")
    assert done == {
        "image_name": "localhost/said",
        "tag": "1",
        "image": "localhost/said:1",
        "image_id": f"sha256:{image['Id']}",
        "additional_tags": ["2", "3"],
    }
    labels = image["Labels"]
    assert (labels["colour"], labels["owner"]) == ("green", "otter")
    shown = capsys.readouterr().err
    assert "COPY shop.py" in shown and "COPY . " not in shown
    (project / "Dockerfile").write_text(f"FROM {IMAGE}\nLABEL colour=blue\n")
    assert await put_out("build_docker_image", **said) == done, "the same step is taken once"
    assert inspected(engine, "localhost/said:1")["Labels"]["colour"] == "green"
    with pytest.raises(StepExecutionError, match="small"):
        await put_out("build_docker_image", **said, ignore_cache=True)


async def test_a_dockerfile_that_is_made_up_can_be_kept(
    project: pathlib.Path, engine: ContainerEngine
) -> None:
    engine.podman("tag", IMAGE, f"docker.io/{default_image()}")
    with temporary_settings({"default_docker_build_namespace": "localhost/team/"}):
        done = await put_out(
            "build_docker_image",
            image_name="made",
            tag="1",
            dockerfile="auto",
            persist_dockerfile=True,
            dockerfile_output_path="Dockerfile.kept",
        )
    assert done["image"] == "localhost/team/made:1"
    kept = (project / "Dockerfile.kept").read_text()
    assert kept.startswith(f"FROM {default_image()}\n")
    assert inspected(engine, "localhost/team/made:1")["Config"]["WorkingDir"] == "/opt/headrace/project/"
    assert not (project / "Dockerfile.headrace").exists()


async def test_buildx_is_a_program(
    project: pathlib.Path, engine: ContainerEngine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman has the command too, under its own name."""
    with pytest.raises(StepExecutionError, match="There is no program 'docker'"):
        monkeypatch.setenv("PATH", str(tmp_path))
        await put_out("build_docker_image", image_name="localhost/x", build_backend="buildx")
    monkeypatch.undo()
    monkeypatch.chdir(project)
    programs = tmp_path / "bin"
    programs.mkdir()
    words = " ".join(engine.command())
    (programs / "docker").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (programs / "docker").chmod(0o755)
    for name, value in {**engine.environment, "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}.items():
        monkeypatch.setenv(name, value)
    said = {"image_name": "localhost/by-buildx", "tag": "1", "build_backend": "buildx"}
    (tmp_path / "secret").write_text("x")
    done = await put_out(
        "build_docker_image",
        **said,
        additional_tags=["2"],
        buildargs={"COLOUR": "red"},
        labels={"owner": "otter"},
        platforms=["linux/amd64"],
        secrets=[f"id=token,src={tmp_path}/secret"],
        target="small",
    )
    image = inspected(engine, "localhost/by-buildx:2")
    assert done["image_id"].removeprefix("sha256:") == image["Id"]
    assert (image["Labels"]["colour"], image["Labels"]["owner"]) == ("red", "otter")
    with pytest.raises(StepExecutionError, match=r"localhost/by-buildx:1 cannot be built: (?s:.)*nowhere"):
        await put_out("build_docker_image", **said, target="nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targt": "x"}, "no option 'targt'. Did you mean 'target'?"),
        ({"image_name": "a b"}, "'a b' is no name of an image"),
        ({"image_name": "x:1", "tag": "2"}, "two tags"),
        ({"secrets": ["id=a"]}, "'secrets' is for buildx"),
        ({"build_backend": "kaniko"}, "by 'engine' or by 'buildx', not by 'kaniko'"),
        ({"persist_dockerfile": True}, "keeps what `dockerfile: auto` makes"),
        ({"dockerfile": "absent"}, "no Dockerfile absent"),
        ({"path": "absent"}, "no folder"),
    ],
)
async def test_what_cannot_be_built(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Mapping[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StepExecutionError) as raised:
        await put_out("build_docker_image", **{"image_name": "x", **arguments})
    assert message in str(raised.value)


async def test_what_cannot_be_pushed(project: pathlib.Path, registry: ImageRegistry) -> None:
    name = f"{registry.address}/team/kept"
    await DockerImage(name, "latest", "Dockerfile").abuild()
    steps = [{"push_docker_image": {"image_name": name, "credentials": {"username": "otter"}}}]
    with pytest.raises(StepExecutionError, match="have no password"):
        await run_steps(steps)
    with pytest.raises(StepExecutionError, match=r"team/kept:latest cannot be pushed"):
        await put_out("push_docker_image", image_name=name)
    assert "team/kept:latest" not in registry.manifests
    login = {"username": USERNAME, "password": PASSWORD}
    done = await put_out("push_docker_image", image_name=name, credentials=login)
    assert done == {"image_name": name, "tag": "latest", "image": f"{name}:latest", "additional_tags": []}
    assert "team/kept:latest" in registry.manifests
