"""`headrace dev`: server and worker in one command, stopping together."""

from __future__ import annotations

import json
import os
import pathlib
import signal

from headrace.client import get_client
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import Run, RunKind
from headrace.v1.run_service_pb2 import CreateRunRequest
from headrace.v1.state_pb2 import StateType
from tests.support.servers import run_headrace
from tests.support.worker_processes import WorkerProcess, is_running, until

FLOW = "from headrace import flow\n\n@flow\ndef hello():\n    pass\n"


def test_a_run_of_the_default_pool_completes_and_both_stop_together(tmp_path: pathlib.Path) -> None:
    (tmp_path / "flows.py").write_text(FLOW)
    home = tmp_path / "home"
    bare = {name: text for name, text in os.environ.items() if not name.startswith("HEADRACE_")}
    with WorkerProcess({**bare, "HEADRACE_HOME": str(home)}, tmp_path, ("dev", "--port", "0")) as dev:
        dev.says("Connected to the server")
        server = json.loads((home / "server.json").read_text())
        with (
            temporary_settings({"home": str(home), "api_url": server["address"]}),
            get_client(sync_client=True) as client,
        ):
            run = Run(id=new_id(), kind=RunKind.RUN_KIND_FLOW, flow_name="hello", work_pool="default")
            run.state.id, run.state.type = new_id(), StateType.STATE_TYPE_SCHEDULED
            run.state.event_time.GetCurrentTime()
            run.job_variables.update({"env": {"HEADRACE__ENTRYPOINT": f"{tmp_path}/flows.py:hello"}})
            client.create_run(CreateRunRequest(run=run))
            until(lambda: client.get_run(run.id).state.type == StateType.STATE_TYPE_COMPLETED, 60)
            worker_pid = next(w.sdk.pid for w in client.iter_workers("default"))
        second = run_headrace("dev", environment={**bare, "HEADRACE_HOME": str(home)})
        assert second.returncode == 1 and "headrace worker start" in second.stderr
        dev.send(signal.SIGINT)
        assert dev.leaves() == 0, dev.log
        assert not is_running(server["pid"])
        assert not is_running(worker_pid)
        assert "has left" in dev.log


def test_a_server_that_cannot_start_ends_it(tmp_path: pathlib.Path) -> None:
    bare = {name: text for name, text in os.environ.items() if not name.startswith("HEADRACE_")}
    environment = {**bare, "HEADRACE_HOME": str(tmp_path / "home"), "HEADRACE_API_URL": "off"}
    with WorkerProcess(environment, tmp_path, ("dev", "--port", "99999")) as dev:
        assert dev.leaves() in (1, 2)
        assert "Traceback" not in dev.log
