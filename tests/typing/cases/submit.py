"""Futures know what they will hold."""

from typing import reveal_type

from headrace import allow_failure, flow, task, unmapped
from headrace.futures import HeadraceFuture, HeadraceFutureList, as_completed, wait


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def run() -> None:
    future = add.submit(1)
    reveal_type(future)  # R: HeadraceFuture[int]
    reveal_type(future.result())  # R: int
    reveal_type(future.result(timeout=60))  # R: int
    reveal_type(future.result(raise_on_failure=False))  # R: int | BaseException
    reveal_type(future.state)  # R: State[int]
    reveal_type(future.wait(1))  # R: None
    reveal_type(fetch.submit("u"))  # R: HeadraceFuture[bytes]
    reveal_type(fetch.submit("u").result())  # R: bytes
    reveal_type(add.submit(1, return_state=True))  # R: State[int]
    reveal_type(fetch.submit("u", return_state=True))  # R: State[bytes]
    reveal_type(add.submit(1, wait_for=[future]))  # R: HeadraceFuture[int]
    reveal_type(fetch.submit("u", wait_for=[future]))  # R: HeadraceFuture[bytes]

    # Futures may stand in the place of values.
    reveal_type(add.submit(future, y=future))  # R: HeadraceFuture[int]
    reveal_type(fetch.submit(allow_failure(future)))  # R: HeadraceFuture[bytes]

    futures = add.map([1, 2], y=unmapped(3))
    reveal_type(futures)  # R: HeadraceFutureList[int]
    reveal_type(futures.result())  # R: list[int]
    reveal_type(futures.result(raise_on_failure=False))  # R: list[int | BaseException]
    reveal_type(futures[0])  # R: HeadraceFuture[int]
    reveal_type(fetch.map(["a", "b"]))  # R: HeadraceFutureList[bytes]
    reveal_type(fetch.map(["a", "b"]).result())  # R: list[bytes]
    reveal_type(add.map([1], return_state=True))  # R: list[State[int]]
    reveal_type(fetch.map(["a"], return_state=True))  # R: list[State[bytes]]

    reveal_type(add.map([1], deferred=True))  # R: HeadraceFutureList[int]
    reveal_type(add.delay(1))  # R: HeadraceDistributedFuture[int]
    reveal_type(add.delay(1).result())  # R: int
    reveal_type(fetch.delay("u").result(timeout=5))  # R: bytes
    reveal_type(add.apply_async([1], {"y": 2}, wait_for=[future]))  # R: HeadraceDistributedFuture[int]
    reveal_type(fetch.apply_async(kwargs={"url": "u"}))  # R: HeadraceDistributedFuture[bytes]

    for ended in as_completed(futures):
        reveal_type(ended.result())  # R: int
    reveal_type(wait(futures).done)  # R: set[HeadraceFuture[Any]]

    text: str = add.submit(1).result()  # E: an int
    texts: list[str] = add.map([1]).result()  # E: ints
    future.result(timeout="5")  # E: not a number
    add.apply_async(1)  # E: no list of arguments
    add.apply_async([1], ["y"])  # E: no mapping
    add.map([1], deferred="yes")  # E: not a bool
    late: str = add.delay(1).result()  # E: an int
    future.cancel()  # E: futures cannot do that
    add.submit(1, return_state="yes")  # E: not a bool
    add.map([1], return_state="yes")  # E: not a bool
    print(text, texts, late)


def takes(future: HeadraceFuture[float], futures: HeadraceFutureList[int]) -> None: ...


def give(future: HeadraceFuture[int], futures: HeadraceFutureList[int]) -> None:
    # The future of an int is one of a float: nothing is ever put into it.
    takes(future, futures)
    takes(futures, future)  # E: the wrong way round
