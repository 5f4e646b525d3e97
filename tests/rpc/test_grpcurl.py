"""What somebody sees who has only grpcurl."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.core.errors import MissingExtraError
from headrace.core.ids import new_id
from headrace.v1.run_service_pb2 import ListRunsRequest
from tests.rpc.servers import Client, serving, settings_for
from tests.support.recording import flow_run_entry
from tests.support.tools import tool


async def grpcurl(client: Client, *words: str, data: Any = None) -> tuple[int, str]:
    """Exit code and everything printed."""
    options = ["-plaintext", *(["-d", json.dumps(data)] if data is not None else [])]
    flags = [word for word in words if word.startswith("-")]
    rest = [word for word in words if not word.startswith("-")]
    process = await asyncio.create_subprocess_exec(
        tool("grpcurl"), *options, *flags, client.server.address, *rest,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_services_are_listed_and_described(client: Client) -> None:
    code, text = await grpcurl(client, "list")
    assert code == 0, text
    listed = text.split()
    for service in (
        "RunService",
        "RecordService",
        "FlowService",
        "LogService",
        "SpanService",
        "AdminService",
    ):
        assert f"headrace.v1.{service}" in listed
    assert {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(listed)
    code, text = await grpcurl(client, "describe", "headrace.v1.RunService.WatchRuns")
    assert "returns ( stream .headrace.v1.WatchRunsResponse )" in text
    code, text = await grpcurl(client, "describe", "headrace.v1.Run")
    assert "string root_run_id = 9" in text


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_answers_under_both_names(client: Client, version: str) -> None:
    code, text = await grpcurl(
        client, f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", data={"listServices": "*"}
    )
    assert code == 0, text
    assert "headrace.v1.RunService" in text


async def test_a_run_is_created_and_listed(client: Client) -> None:
    run_id = new_id()
    request = {"run": {"id": run_id, "kind": "RUN_KIND_FLOW", "flowName": "etl", "tags": ["adhoc"]}}
    code, text = await grpcurl(client, "headrace.v1.RunService/CreateRun", data=request)
    assert code == 0, text
    code, text = await grpcurl(
        client, "headrace.v1.RunService/ListRuns", data={"filter": {"tagsAll": ["adhoc"]}}
    )
    assert [run["id"] for run in json.loads(text)["runs"]] == [run_id]


async def test_an_error_can_be_read(client: Client) -> None:
    code, text = await grpcurl(client, "headrace.v1.RunService/GetRun", data={"runId": new_id()})
    assert code != 0
    assert "Code: NotFound" in text
    assert "There is no run" in text
    assert '"reason": "NOT_FOUND"' in text, "the details must be decoded, not shown as base64"
    request = {"run": {"id": "x", "kind": "RUN_KIND_FLOW", "tags": ["a", ""]}}
    code, text = await grpcurl(client, "headrace.v1.RunService/CreateRun", data=request)
    assert "Code: InvalidArgument" in text
    assert '"field": "run.tags[1]"' in text


async def test_a_watch_streams(client: Client) -> None:
    run_id = new_id()
    async with client.recorder() as recorder:
        await recorder.record(flow_run_entry(run_id))
        _, text = await grpcurl(client, "-max-time=1", "headrace.v1.RunService/WatchRuns", data={})
    assert "Code: DeadlineExceeded" in text
    assert run_id in text
    assert '"initialSyncDone": true' in text


async def test_channelz_counts_calls_and_connections(client: Client) -> None:
    # This connection stays, while each grpcurl has one of its own.
    for _ in range(3):
        await client.runs.ListRuns(ListRunsRequest())
    code, text = await grpcurl(client, "grpc.channelz.v1.Channelz/GetServers")
    assert code == 0, text
    # The newest of this process.
    server = max(json.loads(text)["server"], key=lambda one: int(one["ref"]["server_id"]))
    id = server["ref"]["server_id"]
    assert int(server["data"]["calls_started"]) >= 3
    _, text = await grpcurl(client, "grpc.channelz.v1.Channelz/GetServerSockets", data={"server_id": id})
    # Ours is the oldest.
    kept = min(json.loads(text)["socket_ref"], key=lambda one: int(one["socket_id"]))
    _, text = await grpcurl(
        client, "grpc.channelz.v1.Channelz/GetSocket", data={"socket_id": kept["socket_id"]}
    )
    local = json.loads(text)["socket"]["local"]["tcpip_address"]
    assert str(local["port"]) == client.server.address.rpartition(":")[2]
    code, text = await grpcurl(client, "grpc.channelz.v1.Channelz/GetServer", data={"server_id": 1 << 40})
    assert "Code: NotFound" in text


async def test_channelz_is_not_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the addresses of clients: elsewhere than on loopback only if somebody says so."""
    settings = settings_for(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/headrace.db")
    open_to_all = replace(settings, server_api_host="0.0.0.0", server_api_auth_string="me:word")
    assert open_to_all.channelz is False
    assert replace(open_to_all, server_channelz_enabled=True).channelz is True
    async with serving(replace(settings, server_channelz_enabled=False)) as client:
        code, text = await grpcurl(client, "list")
        assert (code, "channelz" in text) == (0, False)
        _, text = await grpcurl(client, "grpc.channelz.v1.Channelz/GetServers")
        assert "Code: Unimplemented" in text
    monkeypatch.setitem(sys.modules, "grpc_channelz.v1._servicer", None)
    with pytest.raises(MissingExtraError, match=r"headrace\[ops\]"):
        async with serving(replace(settings, server_channelz_enabled=True)):
            pass
    async with serving(settings) as client:
        _, text = await grpcurl(client, "list")
        assert "channelz" not in text


async def test_health_of_the_server_and_of_each_service(client: Client) -> None:
    for service in ("", "headrace.v1.RunService", "headrace.v1.RecordService"):
        _, text = await grpcurl(client, "grpc.health.v1.Health/Check", data={"service": service})
        assert '"status": "SERVING"' in text, text
    _, text = await grpcurl(client, "grpc.health.v1.Health/Check", data={"service": "nope"})
    assert "Code: NotFound" in text
