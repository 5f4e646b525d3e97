"""Decorators keep what type checkers know about a function."""

from typing import reveal_type

from headrace import flow, task


@task
def bare(x: int, y: str = "") -> float:
    return x


@task(name="named", retries=2, retry_delay_seconds=[1, 2.5], tags=["a"])
def with_options(x: int) -> list[int]:
    return [x]


@task()
async def coroutine(x: int) -> str:
    return str(x)


@flow
def bare_flow(x: int) -> dict[str, int]:
    return {"x": x}


@flow(name="named", timeout_seconds=5, log_prints=True)
async def coroutine_flow(x: int) -> bytes:
    return b""


def plain(x: int) -> str:
    return ""


reveal_type(bare(1))  # R: float
reveal_type(with_options(1))  # R: list[int]
unawaited = reveal_type(coroutine(1))  # R: Coroutine[Any, Any, str]
reveal_type(bare_flow(1))  # R: dict[str, int]
unawaited_flow = reveal_type(coroutine_flow(1))  # R: Coroutine[Any, Any, bytes]
reveal_type(bare.fn(1))  # R: float
reveal_type(bare_flow.fn(1))  # R: dict[str, int]
reveal_type(task(plain)(1))  # R: str
reveal_type(bare.name)  # R: str


async def use() -> None:
    reveal_type(await coroutine(1))  # R: str
    reveal_type(await coroutine_flow(1))  # R: bytes


task("name")  # E: a name is not a function
task(retries="3")  # E: not a number
task(retries=-1, retry_deadline_seconds=60)
flow(retry_deadline_seconds=[1])  # E: not a number
flow(retries=[1])  # E: not a number
flow(unknown=1)  # E: no such option


@task(no_such_option=True)  # E: no such option
def wrong_option() -> None: ...


class Report:
    @task
    def render(self, title: str) -> bytes:
        return title.encode()

    @staticmethod
    @task
    def count(rows: list[int]) -> int:
        return len(rows)


reveal_type(Report.count([1]))  # R: int
