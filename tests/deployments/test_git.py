"""Code from git: real repositories, on disk and behind a server that asks for a login."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.deployments.git import GitError, GitRepository
from headrace.deployments.steps import StepExecutionError, run_step

TOKEN = "s3cr/t@%:token"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", f"{name}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An author, no settings of whoever runs the tests, and submodules on this disk allowed."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    settings = tmp_path / "gitconfig"
    settings.write_text('[protocol "file"]\n\tallow = always\n[init]\n\tdefaultBranch = main\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "shop.git"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "flows/orders.py", "one")
    commit(folder, "data/big.csv", "rows")
    return folder


async def test_the_newest_of_the_usual_branch(origin: Path) -> None:
    done = await run_step({"git_clone": {"repository": str(origin)}})
    assert done == {"directory": "shop", "commit_sha": git(origin, "rev-parse", "HEAD")}
    assert Path("shop/flows/orders.py").read_text() == "one"


async def test_a_second_pull_brings_the_same_clone_up_to_date(origin: Path) -> None:
    source = GitRepository(str(origin))
    await source.pull_code()
    Path("shop/flows/orders.py").write_text("changed here")
    Path("shop/left-over.txt").write_text("not in the repository")
    inode = Path("shop").stat().st_ino
    git(origin, "checkout", "-q", "--orphan", "anew")
    newest = commit(origin, "flows/orders.py", "two")
    git(origin, "branch", "-qM", "anew", "main")
    assert await source.pull_code() == newest
    assert Path("shop/flows/orders.py").read_text() == "two"
    assert not Path("shop/left-over.txt").exists() and Path("shop").stat().st_ino == inode


async def test_branches_and_tags(origin: Path) -> None:
    git(origin, "checkout", "-qb", "team/etl")
    on_branch = commit(origin, "flows/orders.py", "branch")
    git(origin, "checkout", "-q", "main")
    git(origin, "tag", "v1")
    tagged = git(origin, "rev-parse", "HEAD")
    commit(origin, "flows/orders.py", "later")
    done = await run_step({"git_clone": {"repository": str(origin), "branch": "team/etl"}})
    assert done == {"directory": "shop-team-etl", "commit_sha": on_branch}
    source = GitRepository(str(origin), branch="v1")
    assert await source.pull_code() == tagged
    git(origin, "tag", "-f", "v1")
    assert await source.pull_code() == git(origin, "rev-parse", "HEAD"), "a tag that was moved"


async def test_one_commit(origin: Path) -> None:
    older = git(origin, "rev-parse", "HEAD~1")
    source = GitRepository(str(origin), commit_sha=older, name="older")
    assert await source.pull_code() == older
    assert not Path("older/data").exists()


async def test_one_commit_of_a_server_that_hands_out_branches_only(origin: Path) -> None:
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "false")
    older = git(origin, "rev-parse", "HEAD~1")[:12]  # an abbreviation cannot be asked for
    source = GitRepository(origin.as_uri(), commit_sha=older)
    assert (await source.pull_code()).startswith(older)


async def test_submodules(origin: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "-q")
    commit(library, "tools.py", "v1")
    git(origin, "submodule", "--quiet", "add", str(library), "lib")
    git(origin, "commit", "-qm", "a submodule")
    step = {"git_clone": {"repository": str(origin), "include_submodules": True}}
    await run_step(step)
    assert Path("shop/lib/tools.py").read_text() == "v1"
    commit(library, "tools.py", "v2")
    git(origin / "lib", "pull", "-q", "origin", "main")
    git(origin, "commit", "-qam", "a newer one")
    await run_step(step)
    assert Path("shop/lib/tools.py").read_text() == "v2"


async def test_only_some_directories(origin: Path) -> None:
    step = {"git_clone": {"repository": origin.as_uri(), "directories": ["flows"]}}
    git(origin, "config", "uploadpack.allowFilter", "true")
    await run_step(step)
    assert Path("shop/flows/orders.py").exists() and not Path("shop/data").exists()
    commit(origin, "flows/more.py", "more")
    await run_step(step)
    assert Path("shop/flows/more.py").exists() and not Path("shop/data").exists()


async def test_what_is_in_the_way_is_left_alone(origin: Path, tmp_path: Path) -> None:
    Path("shop").mkdir()
    Path("shop/mine.txt").write_text("mine")
    with pytest.raises(GitError, match="is in the way"):
        await GitRepository(str(origin)).pull_code()
    assert Path("shop/mine.txt").read_text() == "mine"
    await GitRepository(str(origin), name="clone").pull_code()
    with pytest.raises(GitError, match="is a clone of"):
        await GitRepository(str(tmp_path / "other.git"), name="clone").pull_code()


async def test_what_is_not_there_leaves_nothing_behind(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(StepExecutionError, match=r"git_clone failed: git fetch of .*absent\.git failed"):
        await run_step({"git_clone": {"repository": str(tmp_path / "absent.git")}})
    with pytest.raises(GitError, match="couldn't find remote ref absent"):
        await GitRepository(str(origin), branch="absent").pull_code()
    assert list(Path.cwd().iterdir()) == []


def test_arguments_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="branch and commit_sha"):
        GitRepository("x", branch="main", commit_sha="abc")
    with pytest.raises(ValueError, match="access_token"):
        GitRepository("https://example.org/x", credentials={"username": "ada"})


def test_a_step_that_would_keep_a_secret_is_refused() -> None:
    plain = GitRepository("https://example.org/shop.git", branch="main")
    assert plain.to_pull_step() == {
        "headrace.deployments.steps.git_clone": {
            "repository": "https://example.org/shop.git",
            "branch": "main",
        }
    }
    for secret in (
        GitRepository("https://example.org/shop.git", credentials={"access_token": "t"}),
        GitRepository("https://t@example.org/shop.git"),
    ):
        with pytest.raises(ValueError, match="environment"):
            secret.to_pull_step()


class _Login(BaseHTTPRequestHandler):
    """git's own server program, behind a login."""

    root: Path
    seen: list[str]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        login = base64.b64decode(given).decode() if scheme == "Basic" else ""
        self.seen.append(login)
        if login.partition(":")[2] != TOKEN:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="shop"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        variables = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "test",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def private(origin: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a repository behind a login, and the logins it has seen."""

    seen: list[str] = []
    handler = type("Handler", (_Login,), {"root": origin.parent, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/shop.git", seen
        server.shutdown()
        thread.join()


async def test_a_token_lets_in_and_is_kept_nowhere(private: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = private
    await run_step({"git_clone": {"repository": url, "access_token": TOKEN}})
    assert Path("shop/flows/orders.py").exists()
    assert f"x-access-token:{TOKEN}" in seen
    for path in Path("shop").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    assert git(Path("shop"), "remote", "-v").count(url) == 2


async def test_what_a_branch_is_at_is_asked_without_a_clone(
    private: tuple[str, list[str]], origin: Path
) -> None:
    url, seen = private
    source = GitRepository(url, credentials={"access_token": TOKEN}, branch="main")
    assert await source.newest_commit() == git(origin, "rev-parse", "main")
    assert f"x-access-token:{TOKEN}" in seen and not Path("shop").exists()
    git(origin, "branch", "other/main", "HEAD~1")  # whose name ends like that of the one that is meant
    assert await source.newest_commit() == git(origin, "rev-parse", "main")
    with pytest.raises(GitError, match="has no branch absent"):
        await GitRepository(str(origin), branch="absent").newest_commit()
    with pytest.raises(GitError) as refused:
        await GitRepository(url, credentials={"access_token": "wrong-t0ken"}).newest_commit()
    assert "wrong-t0ken" not in str(refused.value)


async def test_a_name_and_a_password(private: tuple[str, list[str]]) -> None:
    url, seen = private
    source = GitRepository(url, credentials={"username": "ada", "password": TOKEN})
    await source.pull_code()
    assert f"ada:{TOKEN}" in seen


async def test_a_login_within_the_address(private: tuple[str, list[str]]) -> None:
    url, _ = private
    await GitRepository(url.replace("http://", "http://s3cr%2Ft%40%25%3Atoken@")).pull_code()
    assert git(Path("shop"), "remote", "get-url", "origin") == url


async def test_a_wrong_token_is_refused_and_not_repeated(private: tuple[str, list[str]]) -> None:
    url, _ = private
    with pytest.raises(StepExecutionError) as refused:
        await run_step({"git_clone": {"repository": url, "access_token": "wrong-t0ken"}})
    assert "wrong-t0ken" not in str(refused.value) and "wrong-t0ken" not in repr(refused.value.__cause__)


async def test_without_a_login_nobody_is_asked(private: tuple[str, list[str]]) -> None:
    with pytest.raises(GitError, match=r"terminal prompts disabled|could not read Username"):
        await GitRepository(private[0]).pull_code()
