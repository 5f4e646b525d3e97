"""Runs in containers of a real engine: how they are made and end, and that they outlive their worker."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.log_pb2 import LogFilter
from headrace.v1.run_pb2 import LostAttemptPolicy, Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import State, StateType
from tests.support.engine import IMAGE, ContainerEngine, python_volumes, require_podman
from tests.support.servers import ServerProcess
from tests.support.worker_processes import WorkerProcess, until

pytestmark = pytest.mark.xdist_group("containers")

FLOWS = """
import os, pathlib, sys, time
from headrace import flow, get_run_logger

@flow
def wait(folder):
    get_run_logger().info("to the log")
    print("before")
    print("a warning", file=sys.stderr)
    pathlib.Path(folder, "began").write_text(os.environ["HEADRACE__FLOW_RUN_ID"])
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.02)
    print("after")
"""
FINAL = (
    StateType.STATE_TYPE_COMPLETED,
    StateType.STATE_TYPE_FAILED,
    StateType.STATE_TYPE_CANCELLED,
    StateType.STATE_TYPE_CRASHED,
)


class Place:
    """A server, an engine, a folder that containers see, and a pool."""

    def __init__(
        self,
        server: ServerProcess,
        engine: ContainerEngine,
        client: SyncHeadraceClient,
        folder: pathlib.Path,
    ) -> None:
        self.client = client
        self.engine = engine
        self.folder = folder
        self.pool = f"pool-{new_id()}"
        self.environment = {
            **server.environment,
            "HEADRACE_API_URL": server.address,
            "DOCKER_HOST": engine.address,
        }
        (folder / "flows.py").write_text(FLOWS)

    def worker(self, *words: str) -> WorkerProcess:
        command = ("worker", "start", "--pool", self.pool, "--type", "docker", *words)
        worker = WorkerProcess(self.environment, self.folder, command)
        worker.says("Connected")
        return worker

    def queue(self, flow: str, name: str = "box", *, may_move: bool = False, **variables: Any) -> str:
        run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, name=name, flow_name=flow, work_pool=self.pool)
        run.state.CopyFrom(State(id=new_id(), type=StateType.STATE_TYPE_SCHEDULED, name="Scheduled"))
        run.state.event_time.GetCurrentTime()
        run.parameters.encoding = "json"
        run.parameters.inline = json.dumps({"folder": str(self.folder)}).encode()
        if may_move:
            run.retry_policy.on_lost = LostAttemptPolicy.LOST_ATTEMPT_POLICY_RESCHEDULE
        run.job_variables.update(
            {
                "image": IMAGE,
                "network_mode": "host",
                "volumes": [*python_volumes(), f"{self.folder}:{self.folder}"],
                "env": {
                    "HEADRACE__ENTRYPOINT": f"{self.folder}/flows.py:{flow}",
                    "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
                    "PYTHONUNBUFFERED": "1",
                },
                **variables,
            }
        )
        self.client.create_run(CreateRunRequest(run=run))
        return run.id

    def begun(self) -> str:
        """The run that is in the body of `wait`."""
        began = self.folder / "began"
        return until(lambda: began.exists() and began.read_text(), 60, "a body to begin")

    def go(self) -> None:
        (self.folder / "go").touch()

    def ended(self, run_id: str) -> Run:
        until(lambda: self.client.get_run(run_id).state.type in FINAL, 60, "the end of the run")
        return self.client.get_run(run_id)

    def printed(self, run_id: str) -> list[tuple[str, str]]:
        wanted = LogFilter(run_ids=[run_id], loggers=["stdout", "stderr"])
        return [(entry.logger, entry.message) for entry in self.client.iter_logs(wanted)]

    def containers(self, run_id: str) -> list[dict[str, Any]]:
        """What the engine says of the containers of a run."""
        ids = self.engine.podman(
            "ps", "-aq", "--no-trunc", "--filter", f"label=headrace.dev/flow-run-id={run_id}"
        )
        return json.loads(self.engine.podman("inspect", *ids.split())) if ids.split() else []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    require_podman()
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with (
        temporary_settings({"home": str(server.home), "api_url": server.address}),
        get_client(sync_client=True) as opened,
    ):
        yield opened


@pytest.fixture
def place(
    server: ServerProcess, engine: ContainerEngine, client: SyncHeadraceClient, tmp_path: pathlib.Path
) -> Place:
    """A pool without a worker."""
    return Place(server, engine, client, tmp_path)


@pytest.fixture(scope="module")
def served(
    server: ServerProcess,
    engine: ContainerEngine,
    client: SyncHeadraceClient,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """A pool with a worker, for runs whose command is not headrace's: they are the quicker."""
    place = Place(server, engine, client, tmp_path_factory.mktemp("served"))
    with place.worker():
        yield place


def test_a_run_goes_on_in_its_container_when_the_worker_is_killed(place: Place) -> None:
    with place.worker() as first:
        run_id = place.queue("wait", mem_limit="512m", auto_remove=True)
        assert place.begun() == run_id
        until(lambda: len(place.printed(run_id)) == 2, 30, "what it prints")
        [container] = place.containers(run_id)
        labels = container["Config"]["Labels"]
        assert (labels["headrace.dev/attempt"], labels["headrace.dev/work-pool-name"]) == ("1", place.pool)
        assert container["HostConfig"]["Memory"] == 512 * 1024**2
        assert container["Name"] == "box"
        first.process.kill()
        first.leaves()
    with place.worker() as second:
        second.says("goes on in")
        place.go()
        run = place.ended(run_id)
        assert (run.state.type, run.attempt) == (StateType.STATE_TYPE_COMPLETED, 1)
        second.says("has ended with exit code 0")
        until(lambda: not place.containers(run_id), 30, "the container to be removed")
    # Each line once, though two workers have read them; its own log lines are on record by itself.
    assert sorted(place.printed(run_id)) == [
        ("stderr", "a warning"),
        ("stdout", "after"),
        ("stdout", "before"),
    ]


def test_what_hangs_is_torn_down_by_the_next_worker_when_the_server_has_cancelled_it(place: Place) -> None:
    with place.worker() as first:
        run_id = place.queue("wait", name="hung")
        place.begun()
        [container] = place.containers(run_id)
        first.process.kill()
        first.leaves()
    os.kill(container["State"]["Pid"], signal.SIGSTOP)
    place.client.cancel_run(run_id, grace_seconds=1)
    run = place.ended(run_id)
    assert run.state.type == StateType.STATE_TYPE_CANCELLED
    assert place.containers(run_id)[0]["State"]["Running"]
    with place.worker():
        until(lambda: not place.containers(run_id)[0]["State"]["Running"], 60, "the end of the container")
    assert place.ended(run_id).state.id == run.state.id


def test_a_container_that_is_stopped_gives_its_run_to_another_one(served: Place) -> None:
    """By SIGTERM to its first process, as when its machine is taken away."""
    run_id = served.queue("wait", may_move=True)
    assert served.begun() == run_id
    [first] = served.containers(run_id)
    served.engine.podman("stop", "--time", "30", first["Id"])
    until(lambda: len(served.containers(run_id)) == 2, 60, "another container")
    served.go()
    run = served.ended(run_id)
    assert (run.state.type, run.attempt) == (StateType.STATE_TYPE_COMPLETED, 2)
    names = [state.name for state in served.client.iter_states(run_id)]
    assert names == ["Scheduled", "Pending", "Running", "AwaitingRetry", "Pending", "Running", "Completed"]


def test_an_exit_code_is_reported_with_the_last_words(served: Place) -> None:
    run_id = served.queue("none", command="sh -c 'echo the last words; exit 3'")
    state = served.ended(run_id).state
    assert (state.type, state.crashed.exit_code) == (StateType.STATE_TYPE_CRASHED, 3)
    assert "the last words" in state.message
    [container] = served.containers(run_id)
    assert container["State"]["Status"] == "exited", "it stays, for whoever wants to look at it"


def test_memory_that_is_used_up_is_named(served: Place) -> None:
    grow = "python3 -c 'import sys; sys.stdout.flush(); x = bytearray(10**9)'"
    run_id = served.queue("none", command=grow, mem_limit="64m", memswap_limit="64m")
    message = served.ended(run_id).state.message
    assert "memory limit of 64m" in message, message


def test_containers_of_one_name_are_numbered_and_options_reach_the_engine(served: Place) -> None:
    options = {"working_dir": "/tmp", "HostConfig": {"PidsLimit": 77}}
    more = {"container_create_kwargs": options, "user": "1:2"}
    runs = [served.queue("none", name="same one", command="sh -c 'pwd; id -u'", **more) for _ in range(2)]
    for run_id in runs:
        served.ended(run_id)
        until(lambda run_id=run_id: served.printed(run_id) == [("stdout", "/tmp"), ("stdout", "1")], 60)
    made = [served.containers(run_id)[0] for run_id in runs]
    assert sorted(container["Name"] for container in made) == ["same-one", "same-one-1"]
    assert {container["HostConfig"]["PidsLimit"] for container in made} == {77}


def test_an_image_that_is_not_there_crashes_the_run(served: Place) -> None:
    run_id = served.queue("none", image="localhost/missing:1", image_pull_policy="Never")
    state = served.ended(run_id).state
    assert state.type == StateType.STATE_TYPE_CRASHED
    assert "The image localhost/missing:1 is not there" in state.message


def test_a_command_that_is_not_there_crashes_the_run_and_leaves_no_container(served: Place) -> None:
    run_id = served.queue("none", command="no-such-command")
    assert "no-such-command" in served.ended(run_id).state.message
    assert served.containers(run_id) == []


def test_an_engine_that_is_started_again_ends_no_run(served: Place) -> None:
    wait = "echo began > began; while [ ! -e go ]; do sleep 0.05; done"
    options = {"working_dir": str(served.folder)}
    run_id = served.queue("none", command=f'sh -c "{wait}"', container_create_kwargs=options)
    served.begun()
    served.engine.stop()
    served.engine.start()
    served.go()
    assert served.ended(run_id).state.crashed.exit_code == 0
