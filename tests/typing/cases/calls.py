"""Calls check their arguments, and know what they return."""

from typing import reveal_type

from headrace import State, flow, task


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def total(rows: list[int]) -> int:
    return sum(rows)


@flow
async def crawl(url: str) -> bytes:
    return await fetch(url)


reveal_type(add(1))  # R: int
reveal_type(add(1, y=2))  # R: int
reveal_type(add(1, return_state=True))  # R: State[int]
reveal_type(add(1, wait_for=[add(1)]))  # R: int
reveal_type(add(1, return_state=True).result())  # R: int
reveal_type(total([1]))  # R: int
reveal_type(total([1], return_state=True))  # R: State[int]

add("1")  # E: the wrong type
add()  # E: too few
add(1, 2, 3)  # E: too many
add(1, z=2)  # E: no such parameter
total(["1"])  # E: the wrong type
wrong: str = add(1)  # E: an int


async def use() -> None:
    reveal_type(await fetch("u"))  # R: bytes
    reveal_type(await fetch("u", return_state=True))  # R: State[bytes]
    reveal_type(await crawl("u"))  # R: bytes
    reveal_type(await crawl("u", return_state=True))  # R: State[bytes]
    reveal_type(await (await fetch("u", return_state=True)).aresult())  # R: bytes
    await fetch(1)  # E: the wrong type
    content: bytes = fetch("u")  # E: has to be awaited
    print(content)


def inspect(state: State[int]) -> None:
    reveal_type(state.is_completed())  # R: bool
    reveal_type(state.result())  # R: int
    reveal_type(state.result(raise_on_failure=False))  # R: int | BaseException
    reveal_type(state.message)  # R: str | None
    state.result(raise_on_failure="no")  # E: not a bool
