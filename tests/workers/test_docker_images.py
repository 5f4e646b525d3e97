"""Images of flows: built and pushed by `flow.deploy`, pulled from a registry that asks who one is."""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from headrace import flow
from headrace.client import get_client
from headrace.core.errors import ConfigurationError
from headrace.deployments import run_deployment
from headrace.docker import DockerImage
from headrace.docker.context import default_dockerfile, pack
from headrace.docker.engine import registry_auth
from headrace.docker.images import ImageFailed
from headrace.settings import temporary_settings
from headrace.v1.work_pool_pb2 import WorkPool
from tests.support.engine import IMAGE, ContainerEngine, python_volumes
from tests.support.registry import PASSWORD, USERNAME, ImageRegistry
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess

pytestmark = pytest.mark.xdist_group("containers")

CODE = """
import pathlib
from headrace import flow
from headrace.docker import DockerImage

@flow
def hello(folder: str) -> None:
    pathlib.Path(folder, "came from").write_text(__file__)

if __name__ == "__main__":
    import json, sys
    reference, variables, folder = json.loads(sys.argv[1])
    hello.deploy(
        "boxed",
        "boxes",
        image=DockerImage(reference, dockerfile="Dockerfile"),
        job_variables=variables,
        parameters={"folder": folder},
    )
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


def log_in(folder: pathlib.Path, registry: str) -> None:
    """As `docker login` notes it."""
    folder.mkdir()
    token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": token}}}))


def test_an_image_is_built_pushed_pulled_and_run(
    server: ServerProcess, engine: ContainerEngine, registry: ImageRegistry, tmp_path: pathlib.Path
) -> None:
    project, journal = tmp_path / "project", tmp_path / "journal"
    journal.mkdir()
    (project / "flows").mkdir(parents=True)
    (project / "flows" / "hello.py").write_text(CODE)
    (project / "Dockerfile").write_text(f"FROM {IMAGE}\nWORKDIR /code\nCOPY . /code/\n")
    log_in(tmp_path / "docker", registry.address)
    environment = {
        **server.environment,
        "HEADRACE_API_URL": server.address,
        "DOCKER_HOST": engine.address,
        "DOCKER_CONFIG": str(tmp_path / "docker"),
    }
    reference = f"{registry.address}/team/hello:1"
    variables = {
        "network_mode": "host",
        "volumes": [*python_volumes(), f"{journal}:{journal}"],
        "env": {"PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"},
        "registry_credentials": {"username": USERNAME, "password": PASSWORD},
        "image_pull_policy": "Always",
    }
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        client.create_work_pool(WorkPool(name="boxes", type="docker"))
        words = json.dumps([reference, variables, str(journal)])
        done = subprocess.run(
            [sys.executable, "flows/hello.py", words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "team/hello:1" in registry.manifests
        deployment = client.get_deployment("hello/boxed")
        assert (deployment.path, deployment.entrypoint) == ("", "flows/hello.py:hello")
        engine.podman("rmi", "--force", reference)
        words_of_worker = ("worker", "start", "--pool", "boxes")
        with WorkerProcess(environment, tmp_path, words_of_worker) as worker:
            run = run_deployment("hello/boxed", timeout=60)
            worker.says(f"Pulling the image {reference}")
    assert run.state is not None
    assert run.state.is_completed(), run.state.message
    assert (journal / "came from").read_text() == "/code/flows/hello.py"


def test_what_the_engine_cannot_do_is_said_in_its_words(
    engine: ContainerEngine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nNOTHING\n")
    image = DockerImage("localhost/broken", tag="1", dockerfile="Dockerfile")
    with pytest.raises(ImageFailed, match=r"localhost/broken:1 cannot be built: .*NOTHING"):
        image.build()
    with pytest.raises(ImageFailed, match="localhost/broken:1 cannot be pushed: "):
        image.push()
    with pytest.raises(FileNotFoundError, match="no Dockerfile elsewhere"):
        DockerImage("x", dockerfile="elsewhere").build()


def test_without_an_engine_nothing_is_built(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="The container engine does not answer"):
        DockerImage("x").build()


@pytest.mark.parametrize(
    ("name", "tag", "reference"),
    [("shop", "7", "shop:7"), ("shop:7", None, "shop:7"), ("host:5000/shop", "7", "host:5000/shop:7")],
)
def test_names_and_tags(name: str, tag: str | None, reference: str) -> None:
    assert DockerImage(name, tag).reference == reference


def test_a_tag_is_the_time_unless_somebody_says_one_and_never_two() -> None:
    assert DockerImage("host:5000/shop").reference.startswith("host:5000/shop:20")
    with pytest.raises(ValueError, match="two tags: '7' in its name, and '8'"):
        DockerImage("shop:7", "8")


def test_what_is_sent_to_the_engine(tmp_path: pathlib.Path) -> None:
    for name in ("flows/a.py", "flows/a.pyc", "flows/keep.pyc", "data/big", "notes.md", "deep/er/x.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".dockerignore").write_text(
        "# not these\n**/*.pyc\n!flows/keep.pyc\n/data\n*.md\ndeep/**/x.log\n"
    )
    (tmp_path / "requirements.txt").touch()
    text = default_dockerfile(tmp_path, "base:1")
    assert text.startswith(f"FROM base:1\nWORKDIR /opt/headrace/{tmp_path.name}/\nCOPY requirements.txt")
    with pack(tmp_path, text) as packed, tarfile.open(fileobj=packed) as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {
        *(".dockerignore", "Dockerfile.headrace", "requirements.txt"),
        *("flows/a.py", "flows/keep.pyc"),
    }


def test_logins_are_those_of_docker(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert registry_auth("host:5000/x") is None
    log_in(tmp_path / "docker", "host:5000")
    said = {"username": USERNAME, "password": PASSWORD, "serveraddress": "host:5000"}
    assert registry_auth("host:5000/x") == said
    assert registry_auth("x") is None


@flow
def here() -> None:
    pass


def test_an_image_is_refused_where_runs_are_not_started_in_images(
    server: ServerProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as client,
    ):
        client.create_work_pool(WorkPool(name="plain", type="process"))
        client.create_work_pool(WorkPool(name="images", type="docker"))
        with pytest.raises(ValueError, match="of type process, are not started in images"):
            here.deploy("x", "plain", image="shop:7", build=False)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="deploy it from the folder of its project"):
            here.deploy("x", "images", image="shop:7", build=False)
        monkeypatch.chdir(pathlib.Path(__file__).parent)
        here.deploy("x", "images", image="shop:7", build=False, print_next_steps=False)
        made = client.get_deployment("here/x")
    assert made.job_variables["image"] == "shop:7"
    assert made.entrypoint == "test_docker_images.py:here"
