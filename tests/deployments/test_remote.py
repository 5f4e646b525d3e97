"""Code from an object store, over a real S3 API, and from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.deployments.remote import RemoteStorage
from headrace.deployments.steps import StepExecutionError, run_step
from headrace.filesystems import RemoteFileSystem
from tests.support.object_store import s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server("code") as environment:
        yield environment


@pytest.fixture
def bucket(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RemoteFileSystem]:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    store = RemoteFileSystem("s3://code/team/shop")
    store.write("flows/orders.py", b"one")
    store.write("settings.toml", b"")
    yield store
    for key in list(store.list_keys()):
        store.delete(key)


async def test_everything_below_the_address_is_copied(bucket: RemoteFileSystem) -> None:
    RemoteFileSystem("s3://code/team/shopping").write("other.py", b"not below")
    done = await run_step({"pull_from_remote_storage": {"url": "s3://code/team/shop"}})
    assert done == {"directory": "shop"}
    found = sorted(path.relative_to("shop").as_posix() for path in Path("shop").rglob("*") if path.is_file())
    assert found == ["flows/orders.py", "settings.toml"]
    assert Path("shop/flows/orders.py").read_bytes() == b"one"


async def test_what_is_gone_there_is_gone_here(bucket: RemoteFileSystem) -> None:
    source = RemoteStorage(bucket.url)
    await source.pull_code()
    bucket.delete("settings.toml")
    bucket.write("flows/orders.py", b"two")
    await source.pull_code()
    assert not Path("shop/settings.toml").exists() and Path("shop/flows/orders.py").read_bytes() == b"two"
    assert [path.name for path in Path.cwd().iterdir()] == ["shop"]


async def test_options_by_the_names_of_other_tools(
    bucket: RemoteFileSystem, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server:
        monkeypatch.delenv(name)
    await RemoteStorage(
        bucket.url,
        key=server["AWS_ACCESS_KEY_ID"],
        secret=server["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=next(value for value in server.values() if value.startswith("http://")),
        region="eu-north-1",
    ).pull_code()
    assert Path("shop/flows/orders.py").exists()


async def test_an_empty_address_leaves_what_is_here(bucket: RemoteFileSystem) -> None:
    await RemoteStorage(bucket.url).pull_code()
    for key in list(bucket.list_keys()):
        bucket.delete(key)
    with pytest.raises(StepExecutionError, match="There is nothing at s3://code/team/shop"):
        await run_step({"pull_from_remote_storage": {"url": bucket.url}})
    assert Path("shop/flows/orders.py").exists()


async def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "flows").mkdir(parents=True)
    (tmp_path / "there" / "flows" / "a.py").write_text("a")
    (tmp_path / "here").mkdir()
    source = RemoteStorage((tmp_path / "there").as_uri())
    source.set_base_path(tmp_path / "here")
    await source.pull_code()
    assert (source.destination / "flows" / "a.py").read_text() == "a"


def test_a_step_that_would_keep_a_secret_is_refused() -> None:
    assert RemoteStorage("s3://code/shop", region="eu-north-1").to_pull_step() == {
        "headrace.deployments.steps.pull_from_remote_storage": {
            "url": "s3://code/shop",
            "region": "eu-north-1",
        }
    }
    with pytest.raises(ValueError, match="secret_access_key"):
        RemoteStorage("s3://code/shop", secret="s").to_pull_step()
