"""`headrace deployment backfill` and `headrace backfill` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.cli.backfill_views import is_well
from headrace.client import get_client
from headrace.client.sync_client import SyncHeadraceClient
from headrace.core.ids import new_id
from headrace.core.states import StateType
from headrace.settings import temporary_settings
from headrace.v1.backfill_pb2 import BACKFILL_STATE_CANCELLED, BACKFILL_STATE_COMPLETED, Backfill
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import RunFilter
from headrace.v1.run_service_pb2 import ProposeStateRequest
from headrace.v1.schedule_pb2 import Schedule
from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess

Run = Callable[..., Answer]
RANGE = ("--from", "2026-03-01T00:00", "--to", "2026-03-01T03:00")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[SyncHeadraceClient]:
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def deployment(client: SyncHeadraceClient) -> str:
    """A deployment with an hourly schedule that is paused, by its name."""
    schema = '{"type": "object", "properties": {"at": {"type": "string"}, "n": {"type": "integer"}}}'
    said = Deployment(flow_name="etl", name=f"d-{new_id()}", parameter_schema=schema)
    hourly = said.schedules.add(slug="hourly", paused=True)
    hourly.cron.cron = "30 * * * *"
    client.apply_deployment(said)
    return f"etl/{said.name}"


@pytest.fixture
def headrace(server: ServerProcess, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    monkeypatch.setenv("COLUMNS", "250")
    return cli


@pytest.fixture
def run(headrace: Run) -> Run:
    """A command that succeeds."""

    def command(*words: str) -> Answer:
        done = headrace(*words)
        assert done.code == 0, done.err
        return done

    return command


def begun(run: Run, deployment: str, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        run("deployment", "backfill", deployment, *RANGE, *words, "-o", "json").out
    )
    return found


def end_runs(client: SyncHeadraceClient, deployment: str, how: StateType = StateType.COMPLETED) -> None:
    deployment_id = client.get_deployment(deployment).id
    for found in client.iter_runs(RunFilter(deployment_ids=[deployment_id])):
        for type in (StateType.PENDING, StateType.RUNNING, how):
            request = ProposeStateRequest(run_id=found.id)
            request.state.id, request.state.type = new_id(), type.number  # type: ignore[assignment]
            request.state.event_time.GetCurrentTime()
            client.propose_state(request)


def test_a_backfill_from_beginning_to_end(run: Run, deployment: str, client: SyncHeadraceClient) -> None:
    planned = run("deployment", "backfill", deployment, *RANGE, "--dry-run", "-o", "jsonl").out
    fires = [json.loads(line) for line in planned.splitlines()]
    assert [fire["fire_time"][11:16] for fire in fires] == ["00:30", "01:30", "02:30"]
    assert {fire["action"] for fire in fires} == {"MAKE"}
    made = begun(
        run,
        deployment,
        "--limit",
        "3",
        "--priority",
        "2",
        "-p",
        "at={{ scheduled_time }}",
        "--order",
        "newest",
    )
    assert (made["limit"], made["priority"], made["order"]) == (3, 2, "NEWEST")
    assert json.loads(made["parameters"]) == {"at": "{{ scheduled_time }}"}
    runs = run("backfill", "runs", made["id"], "-q").out.split()
    assert runs == [fire["run_id"] for fire in fires]
    assert json.loads(client.get_run(runs[0]).parameters.inline) == {"at": "2026-03-01T00:30:00Z"}
    end_runs(client, deployment)
    watched = run("deployment", "backfill", deployment, *RANGE, "--watch")
    assert "completed" in watched.out
    assert client.get_backfill(made["id"]).counts.made == 3
    listed = run("backfill", "ls", "-d", deployment).out
    assert deployment in listed and "hourly" in listed and "2026-03-01 00:00 to 2026-03-01 03:00" in listed
    shown = run("backfill", "inspect", made["id"][:30]).out
    assert "newest first" in shown and "Instants" in shown
    assert "made" in run("backfill", "runs", made["id"]).out


def test_what_has_failed_runs_again(run: Run, deployment: str, client: SyncHeadraceClient) -> None:
    begun(run, deployment)
    end_runs(client, deployment, StateType.FAILED)
    again = begun(run, deployment, "--rerun", "failed")
    assert again["rerun"] == "FAILED" and again["counts"]["rerun"] == 3
    assert run("backfill", "runs", again["id"]).out.count("run again") == 3


def test_only_what_has_gone_well_is_success() -> None:
    ended = Backfill(state=BACKFILL_STATE_COMPLETED)
    ended.counts.completed = ended.counts.existed = 3
    assert is_well(ended)
    ended.counts.failed = 1
    assert not is_well(ended)
    assert not is_well(Backfill(state=BACKFILL_STATE_CANCELLED))


def test_pausing_going_on_and_cancelling(headrace: Run, run: Run, deployment: str) -> None:
    id = begun(run, deployment, "--limit", "1")["id"]
    assert f"Backfill {id} is paused: 0 of 3 done, 1 unfinished." in run("backfill", "pause", id).err
    assert id in run("backfill", "ls", "-d", deployment, "--state", "paused", "-q").out
    assert run("backfill", "ls", "-d", deployment, "--state", "completed", "-q").out == ""
    assert json.loads(run("backfill", "resume", id, "-o", "json").out)[0]["state"] == "RUNNING"
    assert "is cancelling" in run("backfill", "cancel", id).err
    late = headrace("backfill", "pause", id)
    assert late.code == 1 and "cannot be paused" in late.err


def test_several_schedules_and_none(headrace: Run, client: SyncHeadraceClient, deployment: str) -> None:
    found = client.get_deployment(deployment)
    daily = Schedule(deployment_id=found.id, slug="daily", paused=True)
    daily.cron.cron = "@daily"
    client.create_schedule(daily)
    several = headrace("deployment", "backfill", deployment, *RANGE)
    assert several.code == 2 and "has several schedules: hourly, daily" in several.err
    wrong = headrace("deployment", "backfill", deployment, *RANGE, "--schedule", "hourli")
    assert wrong.code == 3 and "hourly" in wrong.err
    named = headrace("deployment", "backfill", deployment, *RANGE, "--schedule", "daily", "-o", "json")
    assert json.loads(named.out)["counts"]["total"] == 1
    bare = client.apply_deployment(Deployment(flow_name="etl", name=f"bare-{new_id()}")).deployment
    none = headrace("deployment", "backfill", bare.id, *RANGE)
    assert none.code == 2 and "has no schedule" in none.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--from", "2026-03-02", "--to", "2026-03-01"], 2, "backfill.until: must come after `from`"),
        ([*RANGE, "-p", "n=x"], 2, "backfill.parameters.n: "),
        (["--from", "now", "--to", "2026-01-01"], 2, "'now' is not a time for --from."),
        ([*RANGE, "--limit", "0"], 2, "--limit"),
    ],
)
def test_what_is_refused(headrace: Run, deployment: str, words: list[str], code: int, said: str) -> None:
    answer = headrace("deployment", "backfill", deployment, *words)
    assert answer.code == code and said in answer.err, answer.err


def test_one_that_is_not_there(headrace: Run) -> None:
    answer = headrace("backfill", "inspect", "0123abcd")
    assert answer.code == 3 and answer.err.startswith("Error: There is no backfill '0123abcd'.")
