"""`headrace schedule` against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from headrace.client import get_client
from headrace.core.ids import new_id
from headrace.settings import temporary_settings
from headrace.v1.deployment_pb2 import Deployment
from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess

Run = Callable[..., Answer]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def deployment(server: ServerProcess) -> str:
    """A deployment, by its name."""
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        applied = client.apply_deployment(Deployment(flow_name="etl", name=f"d-{new_id()}"))
        return f"etl/{applied.deployment.name}"


@pytest.fixture
def run(server: ServerProcess, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command that succeeds."""
    monkeypatch.setenv("HEADRACE_API_URL", server.address)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> Answer:
        done = cli("schedule", *words)
        assert done.code == 0, done.err
        return done

    return command


def test_the_life_of_a_schedule(run: Run, deployment: str) -> None:
    said = run(
        "create", deployment, "--cron", "0 9 * * *", "--slug", "nine", "-p", "n=1", "--overlap", "queue(2)"
    )
    assert "Schedule nine fires next" in said.err
    name = f"{deployment}/nine"
    found = json.loads(run("inspect", name, "-o", "json").out)
    assert found["cron"]["cron"] == "0 9 * * *" and json.loads(found["parameters"]) == {"n": 1}
    assert found["overlap"]["mode"] == "QUEUE" and len(found["next_fires"]) == 5
    shown = run("inspect", found["id"][:30]).out
    assert "0 9 * * *" in shown and "queue" in shown
    assert deployment in shown, "by its name"
    assert json.loads(run("inspect", deployment, "-o", "json").out) == found, "its only one"
    listed = run("ls", "-d", deployment).out
    assert deployment in listed and "nine" in listed
    assert run("ls", "-d", deployment, "-q").out.strip() == found["id"]
    assert "is paused" in run("pause", name).err
    assert "paused" in run("ls", "-d", deployment).out
    assert run("ls", "-d", deployment, "--active", "-o", "jsonl").out == ""
    assert json.loads(run("resume", name, "-o", "json").out)[0]["next_fire_time"]
    assert "Deleted schedule nine" in run("delete", name, "--yes").err
    assert json.loads(run("ls", "-d", deployment, "-o", "json").out) == []


def test_runs_at_will_and_of_the_past(run: Run, deployment: str) -> None:
    run(
        "create",
        deployment,
        "--interval",
        "PT1H",
        "--anchor-date",
        "2026-01-01T00:30",
        "--slug",
        "hourly",
        "--paused",
    )
    name = f"{deployment}/hourly"
    assert json.loads(run("trigger", name, "-o", "json").out)["state"]["name"] == "Scheduled"
    window = ("--from", "2026-03-01T00:00", "--to", "2026-03-01T03:00", "-p", "at={{ scheduled_time }}")
    planned = run("backfill", name, *window, "--dry-run", "--order", "newest").out
    assert planned.count("would be made") == 3 and planned.index("02:30") < planned.index("00:30")
    made = json.loads(run("backfill", name, *window, "-o", "jsonl").out)
    assert made["state"] == "RUNNING" and made["counts"]["made"] == 3
    again = run("backfill", name, *window, "--watch")
    assert "makes the runs of 3 instants" in again.err and "completed" in again.out


def test_a_preview_of_what_exists(run: Run, deployment: str) -> None:
    run("create", deployment, "--rrule", "FREQ=DAILY;BYHOUR=9", "--timezone", "Asia/Tokyo", "--slug", "tokyo")
    fires = json.loads(run("preview", "tokyo", "--after", "2026-01-01T00:00Z", "-n", "2", "-o", "json").out)
    assert [fire["fire_time"] for fire in fires] == ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
    assert fires[0]["local_time"] == "Thu 2026-01-01 09:00:00 JST"


def test_an_instant_is_skipped(run: Run, cli: Cli, deployment: str) -> None:
    run("create", deployment, "--cron", "0 9 * * *", "--timezone", "Asia/Tokyo", "--slug", "nine")
    name = f"{deployment}/nine"
    first, second = json.loads(run("preview", name, "-n", "2", "-o", "json").out)
    wall = second["local_time"][4:20].replace(" ", "T")  # in the schedule's own zone
    assert "No run is made for" in run("skip", name, wall).err
    found = json.loads(run("skip", name, first["fire_time"], "-o", "json").out)
    assert len(found["skipped_times"]) == 2
    fires = json.loads(run("preview", name, "-n", "3", "-o", "json").out)
    assert [fire["skipped"] for fire in fires] == [True, True, False]
    listed = json.loads(run("upcoming", "-d", deployment, "-n", "3", "-o", "json").out)
    assert [(fire["run_id"], fire["skipped"]) for fire in listed] == [
        (fire["run_id"], fire["skipped"]) for fire in fires
    ]
    assert run("upcoming", "-d", deployment, "-n", "3").out.count("skipped") == 2
    inspected = run("inspect", name)
    assert "Skipped" in inspected.out and second["local_time"] in inspected.out
    assert len(json.loads(run("inspect", name, "-o", "json").out)["next_fires"]) == 5
    assert "is not skipped" in run("unskip", name, wall, first["fire_time"]).err
    assert "skipped" not in run("preview", name).out
    refused = cli("schedule", "skip", name, "2030-01-01T09:30")
    assert refused.code != 0 and "is none of the instants of the schedule" in refused.err


def test_the_next_runs_of_all_schedules(run: Run, server: ServerProcess, deployment: str) -> None:
    anchor = ("--anchor-date", "2026-01-01T00:00")
    run("create", deployment, "--interval", "PT2H", *anchor, "--slug", "even")
    run("create", deployment, "--interval", "PT3H", *anchor, "--slug", "third")
    run("create", deployment, "--interval", "PT1H", *anchor, "--slug", "paused", "--paused")
    found = json.loads(run("upcoming", "-d", deployment, "-n", "6", "-o", "json").out)
    times = [fire["fire_time"] for fire in found]
    assert len(times) == 6 and times == sorted(times)
    hours = [(int(fire["fire_time"][11:13]), fire["slug"]) for fire in found]
    assert all(hour % (2 if slug == "even" else 3) == 0 for hour, slug in hours)
    assert {slug for _, slug in hours} == {"even", "third"}
    shown = run("upcoming", "-d", deployment, "-n", "2").out
    assert shown.split()[:4] == ["TIME", "IN", "DEPLOYMENT", "SCHEDULE"] and deployment in shown
    with temporary_settings({"api_url": server.address}), get_client(sync_client=True) as client:
        client.pause_deployment(deployment)
    assert "No schedule is going to make a run" in run("upcoming", "-d", deployment).err


def test_a_preview_needs_no_server(cli: Cli) -> None:
    answer = cli(
        "schedule", "preview", "--cron", "0 9 * * MON", "--after", "2026-01-01", "-n", "2", "-o", "jsonl"
    )
    assert answer.code == 0, answer.err
    fires = [json.loads(line)["fire_time"] for line in answer.out.splitlines()]
    assert fires == ["2026-01-05T09:00:00+00:00", "2026-01-12T09:00:00+00:00"]
    shown = cli("schedule", "preview", "--interval", "90", "--anchor-date", "2026-01-01T00:00")
    assert len(shown.out.splitlines()) == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("preview", "Give one of --cron, --interval and --rrule."),
        ("preview --cron @daily --rrule FREQ=DAILY", "Give one of --cron, --interval and --rrule."),
        ("preview --cron @daily --anchor-date 2026-01-01", "--anchor-date goes with --interval."),
        ("preview --interval 60 --day-and", "--day-and goes with --cron."),
        ("preview --cron @dayly", "there is no '@dayly'"),
        ("preview --cron @daily --timezone Europe/Olso", "did you mean 'Europe/Oslo'?"),
        ("preview --interval soon", "'soon' is no interval"),
        ("preview --rrule FREQ=DAILY;COUNT=100000", "COUNT must be"),
        ("preview --cron @daily --after tomorrow", "'tomorrow' is not a time for --after."),
        ("create etl/x --cron @daily --overlap sometimes", "none of allow, skip"),
        ("create etl/x --cron @daily --catch-up all(0)", "between 1 and 1000"),
        ("skip x tomorrow", "'tomorrow' is not a time for TIME."),
        ("backfill x --from never --to 2026-01-01", "'never' is not a time for --from."),
    ],
)
def test_a_mistake_is_told_in_one_line(words: str, said: str, cli: Cli) -> None:
    answer = cli("schedule", *words.split())
    assert answer.code == 2, answer.err
    assert said in answer.err and answer.err.startswith("Error: ") and answer.err.count("\n") == 1


def test_a_schedule_that_is_not_there(run: Run, cli: Cli, deployment: str) -> None:
    run("create", deployment, "--cron", "@daily", "--slug", "midnight")
    done = cli("schedule", "inspect", f"{deployment}/midnite")
    assert done.code == 3
    assert "Did you mean 'midnight'?" in done.err
