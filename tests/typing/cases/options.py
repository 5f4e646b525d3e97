"""`with_options`, annotations, states and run loggers."""

from datetime import timedelta
from pathlib import Path
from typing import Any, reveal_type

from headrace import Flow, State, Task, allow_failure, flow, get_run_logger, quote, tags, task, unmapped
from headrace.cache_policies import INPUTS, TASK_SOURCE
from headrace.context import TaskRunContext
from headrace.runtime import flow_run, now, random, task_run
from headrace.states import Completed, Failed
from headrace.task_runners import ThreadPoolTaskRunner


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
def total(rows: list[int]) -> int:
    return sum(rows)


reveal_type(add.with_options(name="other", retries=3)(1))  # R: int
reveal_type(add.with_options(tags=["a"]).submit(1))  # R: HeadraceFuture[int]
reveal_type(total.with_options(retries=1)([1]))  # R: int
add.with_options(retries="3")  # E: not a number
reveal_type(add.with_options(retry_deadline_seconds=60)(1))  # R: int
reveal_type(total.with_options(retry_deadline_seconds=1.5)([1]))  # R: int
add.with_options(retry_deadline_seconds="60")  # E: not a number
add.with_options(no_such_option=1)  # E: no such option
add.with_options(retries=1)("1")  # E: the wrong type
total.with_options(task_runner=4)  # E: not a task runner
reveal_type(total.with_options(on_code_change="fail")([1]))  # R: int
total.with_options(on_code_change="ask")  # E: no such choice
reveal_type(add.with_options(idempotent=False)(1))  # R: int
reveal_type(now())  # R: datetime
reveal_type(random())  # R: float
reveal_type(total.deploy("nightly", "default", cron="0 2 * * *"))  # R: str
reveal_type(total.deploy("nightly", image="shop:7", build=False))  # R: str
total.deploy("nightly", image=7)  # E: a name, or a DockerImage
reveal_type(flow.from_source("https://example.org/shop.git", "flows.py:f").name)  # R: str
flow.from_source("flows")  # E: no entrypoint

reveal_type(unmapped([1]).value)  # R: list[int]
reveal_type(allow_failure(5).unwrap())  # R: int
reveal_type(quote("x").unquote())  # R: str

reveal_type(flow_run.name)  # R: str | None
reveal_type(flow_run.tags)  # R: list[str]
reveal_type(task_run.run_count)  # R: int

with tags("a", "b") as current:
    reveal_type(current)  # R: set[str]

get_run_logger().info("x", extra={"a": 1})
get_run_logger().shout("x")  # E: no such method


def on_failure(task: Task[..., Any], run: Any, state: State[Any]) -> None: ...


@task(on_failure=[on_failure])
def hooked() -> None: ...


@task(on_failure=on_failure)  # E: a list is wanted
def hooked_wrongly() -> None: ...


@add.on_completion
def remembered(task: Task[..., Any], run: Any, state: State[Any]) -> None: ...


def general(any_task: Task[..., Any], any_flow: Flow[..., Any]) -> None: ...


general(add, total)
general(total, add)  # E: the wrong way round

reveal_type(Completed(message="done").name)  # R: str
reveal_type(Failed().is_failed())  # R: bool


@task(
    cache_policy=INPUTS + TASK_SOURCE,
    cache_expiration=timedelta(hours=1),
    result_storage=Path("kept"),
    result_serializer="json",
)
def cached(x: int) -> str:
    return str(x)


reveal_type(cached(1))  # R: str
reveal_type(cached.with_options(cache_policy=None, refresh_cache=True)(1))  # R: str


def key_of(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    return None


@task(cache_key_fn=key_of, persist_result=True)
def keyed() -> None: ...


@task(cache_expiration=60)  # E: a timedelta is wanted
def expiring() -> None: ...


@task(cache_policy="INPUTS")  # E: a policy is wanted
def wrong_policy() -> None: ...


@flow(result_storage=5)  # E: no place
def placed() -> None: ...
