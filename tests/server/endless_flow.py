"""A flow whose second task never ends; says the flow run's id and waits to be killed."""

from __future__ import annotations

import time

from headrace import flow, runtime, task


@task
def quick(number: int) -> int:
    return number + 1


@task
def endless() -> None:
    print(runtime.flow_run.id, flush=True)
    time.sleep(600)


@flow
def stuck() -> None:
    for number in range(20):
        quick(number)
    endless()


stuck()
