"""Flows and tasks in the bodies of Celery tasks, run by a real worker over Celery's in-memory broker."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, json, warnings
from celery import Celery
from celery.contrib.testing.worker import start_worker

from headrace import flow, task
from headrace.runtime import flow_run, task_run

app = Celery("shop", broker="memory://", backend="cache+memory://")
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)

@task
def double(number):
    return number * 2, task_run.name is not None

@flow
def plain(number):
    inside = [future.result() for future in double.map([number, number + 1])]
    return [inside, flow_run.flow_name]

@flow
async def suspending(number):
    return [double(number), flow_run.flow_name]

@task
def fails():
    raise ValueError("no stock")

# Ours below theirs, by calling and by stacking.
@app.task(name="calls")
def calls(number):
    return plain(number)

@app.task(name="awaits")
def awaits(number):
    return asyncio.run(suspending(number))

@app.task(name="fails")
def fails_there():
    return fails()

stacked = app.task(name="stacked")(plain)

with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False, loglevel="ERROR"):
    results = [calls.delay(number) for number in range(4)]
    found = {
        "calls": [result.get(timeout=60) for result in results],
        "awaits": awaits.delay(1).get(timeout=60),
        "stacked": stacked.delay(5).get(timeout=60),
    }
    try:
        fails_there.delay().get(timeout=60)
    except Exception as error:
        found["fails"] = [type(error).__name__, str(error)]
    found["outside"] = flow_run.id
print("FOUND", json.dumps(found))
"""


@pytest.mark.timeout(180)
def test_a_celery_worker_runs_flows_and_tasks(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("celery")
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**kept, "HEADRACE_HOME": str(tmp_path / "home"), "HEADRACE_API_URL": "off"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert json.loads(line.removeprefix("FOUND ")) == {
        "calls": [[[[n * 2, True], [(n + 1) * 2, True]], "plain"] for n in range(4)],
        "awaits": [[2, True], "suspending"],
        "stacked": [[[10, True], [12, True]], "plain"],
        "fails": ["ValueError", "no stock"],
        "outside": None,
    }
