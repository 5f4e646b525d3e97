"""Following a branch of a real repository, told over real HTTP: what is applied, and when.

What applying comes to is in tests/e2e/test_git_sync.py; here it is noted only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from headrace_workers.git_sync.applying import Applier, ApplyOptions
from headrace_workers.git_sync.store import Attempt, StateStore, SyncBusy, Target, stored_states
from headrace_workers.git_sync.sync import GitSync, SyncOptions
from headrace_workers.git_sync.web import MAX_BODY_BYTES, SyncServer
from tests.support.git_repositories import PushedRepository
from tests.support.webhooks import HOSTS, SECRET, ZEROS, post, push_request

WAIT_SECONDS = 60.0


class Noting(Applier):
    """Notes what is to be applied, in the place of applying it.

    Attributes:
        commits: in the order they were begun.
        gate: shut, what is begun does not end.
        failures: how many attempts fail from now on.
    """

    def __init__(self, repository: PushedRepository, folder: Path) -> None:
        super().__init__(Target(repository.url, "main"), folder, ApplyOptions(), {}, lambda _: None)
        self.commits: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.begun: asyncio.Queue[str] = asyncio.Queue()

    async def apply(self, commit: str) -> Attempt:
        self.commits.append(commit)
        self.begun.put_nowait(commit)
        await self.gate.wait()
        self.failures -= 1
        return Attempt(commit, "now", self.failures < 0, "planned")

    async def next(self) -> str:
        """The next one that is begun."""
        return await asyncio.wait_for(self.begun.get(), WAIT_SECONDS)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - it looks from outside, as files are looked at
            await asyncio.sleep(0.005)


class Running:
    """A sync, its repository and its server."""

    def __init__(self, folder: Path, options: SyncOptions) -> None:
        self.repository = PushedRepository(folder)
        self.first = self.repository.pushed({"a": "1"})
        self.store = StateStore(folder / "home", Target(self.repository.url, "main"))
        self.store.folder.mkdir(parents=True)
        self.noting = Noting(self.repository, self.store.folder)
        self.told: list[str] = []
        self.sync = GitSync(self.noting, self.store, options, self.told.append)
        self.server = SyncServer("127.0.0.1", 0, self.sync, SECRET)

    async def send(self, *words: str, host: str = "github", **more: str) -> tuple[int, str]:
        """A genuine notice of these commits; see `push_request`."""
        return await asyncio.to_thread(post, self.server.port, *push_request(host, *words, **more))

    async def applied(self, commit: str) -> None:
        """Until this commit is kept as the last one that was applied."""
        await until(lambda: self.store.load().applied_commit == commit)


@contextlib.asynccontextmanager
async def running(folder: Path, options: SyncOptions | None = None) -> AsyncGenerator[Running]:
    """A sync that has applied what was there, and listens."""
    it = Running(folder, options or SyncOptions(first_retry_seconds=0.01, lag_seconds=0.01))
    async with it.server:
        task = asyncio.ensure_future(it.sync.run())
        try:
            assert await it.noting.next() == it.first
            await it.applied(it.first)
            yield it
        finally:
            it.noting.gate.set()
            it.sync.leave()
            await asyncio.wait_for(task, WAIT_SECONDS)


async def test_every_host_is_understood_and_what_was_pushed_is_applied(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        before = it.first
        for number, host in enumerate(HOSTS):
            commit = it.repository.pushed({"a": f"{number}"})
            status, said = await it.send(commit, before, host=host)
            assert (status, commit in said) == (202, True)
            assert await it.noting.next() == commit
            before = commit


async def test_of_pushes_that_come_while_one_is_applied_the_newest_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        it.noting.gate.clear()
        second = it.repository.pushed({"a": "2"})
        await it.send(second, it.first)
        assert await it.noting.next() == second
        third = it.repository.pushed({"a": "3"})
        await it.send(third, second)
        fourth = it.repository.pushed({"a": "4"})
        await it.send(fourth, third)
        it.noting.gate.set()
        await it.applied(fourth)
        # One that was sent before and comes only now brings nothing back.
        assert (await it.send(second, it.first))[0] == 202
        fifth = it.repository.pushed({"a": "5"})
        await it.send(fifth, fourth)
        await it.applied(fifth)
        assert it.noting.commits == [it.first, second, fourth, fifth]


async def test_a_delivery_that_is_repeated_is_applied_once(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        second = it.repository.pushed({"a": "2"})
        await it.send(second, it.first, delivery_id="again")
        await it.applied(second)
        assert await it.send(second, it.first, delivery_id="again") == (
            200,
            "Ignored: what this delivery told of was applied.",
        )
        assert it.noting.commits == [it.first, second]
    assert it.store.load().deliveries == ["again"], "a restart knows it too"


async def test_what_is_no_push_to_the_branch_is_answered_and_left(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        for words, ref, reason in (
            (("a" * 40,), "refs/heads/main2", "refs/heads/main2 was pushed, and this follows branch main"),
            (("a" * 40,), "refs/tags/main", "refs/tags/main was pushed"),
            ((ZEROS, it.first), "refs/heads/main", "branch main was deleted"),
        ):
            status, said = await it.send(*words, ref=ref)
            assert (status, reason in said) == (200, True), said
        headers, body = push_request("github", it.first)
        status, said = await asyncio.to_thread(
            post, it.server.port, {**headers, "X-GitHub-Event": "ping"}, body
        )
        assert status == 200 and it.repository.url in said
        assert it.noting.commits == [it.first]


async def test_who_does_not_know_the_secret_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        second = it.repository.pushed({"a": "2"})
        for host in HOSTS:
            status, said = await it.send(second, it.first, host=host, secret="guessed")
            assert status == 401 and "secret" in said
        headers, body = push_request("github", second, it.first)
        bare = {"X-GitHub-Event": "push"}
        assert (await asyncio.to_thread(post, it.server.port, bare, body))[0] == 401
        large = body + b" " * MAX_BODY_BYTES
        assert (await asyncio.to_thread(post, it.server.port, headers, large))[0] == 413
        assert (await asyncio.to_thread(post, it.server.port, headers, body, "/health"))[0] == 405
        assert (await asyncio.to_thread(post, it.server.port, headers, body, "/"))[0] == 404
        assert it.noting.commits == [it.first]


async def test_a_client_that_dawdles_holds_no_notice_up(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        _, slow = await asyncio.open_connection("127.0.0.1", it.server.port)
        slow.write(b"POST /webhook HTTP/1.1\r\nX-Hub-Signature-256: x\r\nContent-Length: 1000\r\n\r\n{")
        await slow.drain()
        second = it.repository.pushed({"a": "2"})
        assert (await it.send(second, it.first))[0] == 202
        assert await it.noting.next() == second
        slow.close()


async def test_what_fails_is_told_and_tried_again_until_there_is_something_newer(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        it.noting.failures = 3
        second = it.repository.pushed({"a": "2"})
        await it.send(second, it.first)
        await it.applied(second)
        assert it.noting.commits == [it.first] + [second] * 4
        assert sum(f"{second[:12]} was not applied: planned" in line for line in it.told) == 3
    async with running(tmp_path / "slow", SyncOptions(first_retry_seconds=10_000)) as it:
        it.noting.failures = 1
        second = it.repository.pushed({"a": "2"})
        await it.send(second, it.first)
        assert await it.noting.next() == second
        third = it.repository.pushed({"a": "3"})
        await it.send(third, second)
        await it.applied(third)
        assert it.sync.status()["trouble"] == ""


async def test_a_repository_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        second = it.repository.pushed({"a": "2"})
        it.repository.bare.rename(tmp_path / "away")
        await it.send(second, it.first)
        await until(lambda: "ls-remote" in it.sync.status()["trouble"])
        (tmp_path / "away").rename(it.repository.bare)
        await it.applied(second)


async def test_a_notice_may_be_ahead_of_what_the_host_answers(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        second = it.repository.commit({"a": "2"})
        await it.send(second, it.first)
        it.repository.push()
        await it.applied(second)


async def test_without_notices_it_looks(tmp_path: Path) -> None:
    async with running(tmp_path, SyncOptions(poll_seconds=0.02)) as it:
        second = it.repository.pushed({"a": "2"})
        assert await it.noting.next() == second
        # Taken back by force it is what the branch is at, and so what is meant.
        it.repository.git("reset", "--quiet", "--hard", it.first)
        it.repository.push()
        assert await it.noting.next() == it.first


async def test_a_restart_does_nothing_again_unless_it_is_to_be_done_otherwise(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        pass
    for way, count in (("", 0), ("another server", 1)):
        store = StateStore(tmp_path / "home", it.store.target, way)
        noting = Noting(it.repository, store.folder)
        assert await GitSync(noting, store, SyncOptions(), it.told.append).look()
        assert len(noting.commits) == count
    (store.folder / "state.json").write_text("{")
    noting = Noting(it.repository, store.folder)
    assert await GitSync(noting, store, SyncOptions(), it.told.append).look() and noting.commits
    assert [state.applied_commit for state in stored_states(tmp_path / "home")] == [it.first]


def test_two_processes_do_not_follow_the_same(tmp_path: Path) -> None:
    target = Target("https://example.org/shop.git", "main")
    with StateStore(tmp_path, target).held():
        with (
            pytest.raises(SyncBusy, match=r"main of https://example\.org/shop\.git"),
            StateStore(tmp_path, target).held(),
        ):
            pass
        with StateStore(tmp_path, Target(target.repository, "other")).held():
            pass
    with StateStore(tmp_path, target).held():
        pass


async def test_told_to_leave_it_finishes_and_told_again_it_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        it.noting.gate.clear()
        second = it.repository.pushed({"a": "2"})
        await it.send(second, it.first)
        await it.noting.next()
        it.sync.leave()
        assert (await it.send(second, it.first))[0] == 503
        assert it.sync.status()["applying_commit"] == second
        it.noting.gate.set()
        await it.applied(second)
    async with running(tmp_path / "again") as it:
        it.noting.gate.clear()
        await it.send(it.repository.pushed({"a": "2"}), it.first)
        await it.noting.next()
        it.sync.leave()
        it.sync.leave()
        await until(lambda: not it.sync.status()["applying_commit"])
    assert it.store.load().applied_commit == it.first


async def test_whoever_asks_is_told_how_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.server.port)
        writer.write(b"GET /status HTTP/1.1\r\n\r\n")
        said = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
    assert said["applied_commit"] == it.first and said["last_attempt"]["message"] == "planned"
    assert (said["branch"], said["failures"], said["next_try_at"]) == ("main", 0, None)
