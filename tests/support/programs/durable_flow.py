"""A durable flow of every kind of step, that can be killed at any of them and taken up again.

`durable_flow.py` runs it; `durable_flow.py RUN_ID` takes the run over. Each body that is entered leaves a
line in the file JOURNAL; the process kills itself in the KILL_AT-th body. VERSION=2: the flow was edited.
"""

import asyncio
import json
import os
import pathlib
import random
import signal
import sys
import threading

from headrace import flow, runtime, task
from headrace.client import get_client
from headrace.execution.attempts import run_flow_attempt
from headrace.recorder import get_recorder
from headrace.transactions import transaction

VERSION = int(os.environ.get("VERSION", "1"))
KILL_AT = int(os.environ.get("KILL_AT", "0"))
JOURNAL = pathlib.Path(os.environ["JOURNAL"])
_lock = threading.Lock()
_entered = 0


def enter(step: str, *inputs: object) -> None:
    """A body is entered."""
    global _entered
    with _lock:
        _entered += 1
        if _entered == KILL_AT:
            # What has completed is to be on record: a kill does not lose what the spool has, but the test
            # wants to know what the server knows.
            get_recorder().flush(20)
        with JOURNAL.open("a") as journal:
            line = json.dumps([runtime.flow_run.run_count, step, *map(str, inputs)])
            journal.write(line + "\n")
        if _entered == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


@task
def double(x: int) -> int:
    enter("double", x)
    return 2 * x


@task
def total(values: list[int]) -> int:
    enter("total", values)
    return sum(values)


@task
async def fetch(x: int) -> int:
    await asyncio.sleep(random.random() / 100)
    enter("fetch", x)
    return x + 1


@task(retries=1)
def flaky(x: int) -> int:
    enter("flaky", x)
    if runtime.task_run.run_count == 1:
        raise ValueError("the first try")
    return x


@task
def large(size: int) -> bytes:
    enter("large", size)
    return b"x" * size


@task
def write(x: int) -> int:
    enter("write", x)
    return x


@write.on_commit
def committed(txn: object) -> None:
    with JOURNAL.with_suffix(".commits").open("a") as journal:
        journal.write("commit\n")


@write.on_rollback
def rolled_back(txn: object) -> None:
    with JOURNAL.with_suffix(".commits").open("a") as journal:
        journal.write("rollback\n")


@flow
def inner(n: int) -> list[int]:
    enter("inner", n)
    return [double(n), double(n + 1)]


@flow
async def gathered(n: int) -> list[int]:
    enter("gathered", n)
    order = list(range(n))
    random.shuffle(order)
    found = dict(zip(order, await asyncio.gather(*[fetch(x) for x in order]), strict=True))
    return [found[x] for x in range(n)]


@flow(name="durable", durable=True)
def everything(n: int = 3) -> dict[str, object]:
    if VERSION == 2:
        double(1000)  # a step that was not there
    loop = [double(1) for _ in range(n)]  # equal calls, told apart by their number
    mapped = double.map(range(10, 10 + n))
    summed = total.submit(mapped)  # waits for the mapped ones
    summed.wait()  # from here on the order of the bodies is certain, but for the gathered ones
    with transaction():
        written = [write(x) for x in range(2)]
        if "ROLL_BACK" in os.environ:
            raise ValueError("undo")
    return {
        "loop": loop,
        "summed": summed.result(),
        "inner": inner(n),
        "gathered": asyncio.run(gathered(n + 1)),
        "flaky": flaky(5),
        "large": len(large(100_000)),
        "written": written,
        "last": double.submit(summed).result(),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with get_client(sync_client=True) as client:
            run = client.take_over_run(sys.argv[1])
        state = run_flow_attempt(everything, run.id, run.attempt, run.fence)
        print(json.dumps(state.result(_sync=True), sort_keys=True) if state.is_completed() else state.name)
    else:
        print(json.dumps(everything(), sort_keys=True))
