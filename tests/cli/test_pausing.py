"""Resuming and suspending from the command line."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

import pytest

from headrace.client import get_client
from headrace.settings import temporary_settings
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.state_pb2 import STATE_TYPE_PAUSED
from tests.support.scripts import Script
from tests.support.servers import ServerProcess, run_headrace
from tests.support.terminals import on_a_terminal

PROGRAM = """
from typing import Literal
from pydantic import Field
from headrace import flow, pause_flow_run
from headrace.input import RunInput

class Approval(RunInput):
    amount: float = Field(ge=0, description="In euros")
    size: Literal["small", "large"] = "small"
    note: str = ""

@flow(name="pays")
def pays():
    form = Approval.with_initial_data(description="Shall we pay?")
    print(pause_flow_run(wait_for_input=form, timeout=60).model_dump_json(), flush=True)

pays()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def paused(server: ServerProcess, tmp_path: pathlib.Path) -> Iterator[tuple[Script, str]]:
    """A program whose flow is paused, and the id of the run."""
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        known = {run.id for run in client.iter_runs(RunFilter(flow_names=["pays"]))}
        with Script(tmp_path / "pays.py", PROGRAM, server.environment) as script:
            for event in client.watch_runs(RunFilter(flow_names=["pays"])):
                run = event.upsert
                if run.state.type == STATE_TYPE_PAUSED and run.id not in known:
                    yield script, run.id
                    break


def test_resuming_with_fields(paused: tuple[Script, str], server: ServerProcess) -> None:
    script, run_id = paused
    refused = run_headrace(
        "flow-run", "resume", run_id, "-p", "amount=-1", "-p", "size=huge", environment=server.environment
    )
    assert refused.returncode == 2
    assert "input.amount: must be at least 0" in refused.stderr
    assert "input.size: must be one of" in refused.stderr
    done = run_headrace(
        "flow-run", "resume", run_id, "-p", "amount=3", "-p", "note=7", "-o", "json", "--input",
        '{"size": "large", "note": "x"}', environment=server.environment,
    )  # fmt: skip
    # A note of 7 is a number, which the schema does not take for text.
    assert (done.returncode, "input.note: must be text" in done.stderr) == (2, True)
    done = run_headrace(
        *("flow-run", "resume", run_id, "-p", "amount=3", "-o", "json", "--input", '{"size": "large"}'),
        environment=server.environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"]["name"] == "Running"
    script.reached('{"amount":3.0,"size":"large","note":""}')


def test_a_person_is_asked_field_by_field(
    paused: tuple[Script, str], server: ServerProcess, tmp_path: pathlib.Path
) -> None:
    script, run_id = paused
    command = [sys.executable, "-m", "headrace", "flow-run", "resume", run_id]
    shown = on_a_terminal(
        command, server.environment, tmp_path, typed="\n12.5\n\n7\n", after="amount (number)"
    )
    assert shown.code == 0, shown
    for text in ("Shall we pay?", "In euros", "amount is required", 'size ("small", "large") ["small"]'):
        assert text in shown
    script.reached('{"amount":12.5,"size":"small","note":"7"}')


def test_what_cannot_be_resumed_or_suspended(paused: tuple[Script, str], server: ServerProcess) -> None:
    script, run_id = paused
    for wanted in ("suspend",):
        refused = run_headrace("flow-run", wanted, run_id, environment=server.environment)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "Only a running run can pause; this one is Paused" in refused.stderr
    done = run_headrace("flow-run", "resume", run_id, "-p", "amount=1", environment=server.environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith(" goes on.\n")
    script.reached('{"amount":1.0,"size":"small","note":""}')
    again = run_headrace("flow-run", "resume", run_id, environment=server.environment)
    assert again.returncode == 1
    assert "cannot be resumed: The run is not paused" in again.stderr
    missing = run_headrace("flow-run", "resume", "nobody", environment=server.environment)
    assert missing.returncode == 3
