"""With credentials configured, every method of every service asks for them; taken from the descriptors."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from headrace_services.rpc.auth import OPEN_METHODS
from tests.rpc.servers import Client, serving, settings_for

CREDENTIALS = "user:pass:word"
REFLECTION = "grpc.reflection.v1.ServerReflection"


@pytest.fixture
async def guarded(tmp_path: Path, sqlite_url: str, one_event_loop: None) -> AsyncIterator[Client]:
    """A server that asks for credentials."""
    settings = settings_for(tmp_path / "home", sqlite_url)
    async with serving(replace(settings, server_api_auth_string=CREDENTIALS)) as running:
        yield running


def metadata(credentials: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", "Basic " + base64.b64encode(credentials.encode()).decode()),)


async def services(client: Client) -> list[str]:
    """What the server itself says that it offers."""
    ask = client.channel.stream_stream(
        f"/{REFLECTION}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    async for answer in ask(iter([request]), metadata=metadata(CREDENTIALS)):
        return [service.name for service in answer.list_services_response.service]
    raise AssertionError("no answer")


async def methods(client: Client) -> list[tuple[str, bool, bool]]:
    """Each method with whether requests and responses are streams."""
    pool: Any = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    found: list[tuple[str, bool, bool]] = []
    for service in await services(client):
        for method in pool.FindServiceByName(service).methods:
            found.append((f"/{service}/{method.name}", method.client_streaming, method.server_streaming))
    return found


async def status_of(client: Client, method: str, sends: bool, gets: bool, given: Any) -> grpc.StatusCode:
    """How a call with an empty request ends."""
    try:
        if sends:
            async for _ in client.channel.stream_stream(method)(iter([b""]), metadata=given, timeout=60):
                return grpc.StatusCode.OK
        elif gets:
            async for _ in client.channel.unary_stream(method)(b"", metadata=given, timeout=60):
                return grpc.StatusCode.OK
        else:
            await client.channel.unary_unary(method)(b"", metadata=given, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("given", [None, metadata("user:pass"), metadata("user:pass:wordy"), metadata("")])
async def test_no_method_answers_without_the_right_credentials(guarded: Client, given: Any) -> None:
    offered = await methods(guarded)
    assert len(offered) > 20
    for method, sends, gets in offered:
        expected = grpc.StatusCode.OK if method in OPEN_METHODS else grpc.StatusCode.UNAUTHENTICATED
        assert await status_of(guarded, method, sends, gets, given) is expected, method


async def test_every_method_answers_with_them(guarded: Client) -> None:
    for method, sends, gets in await methods(guarded):
        code = await status_of(guarded, method, sends, gets, metadata(CREDENTIALS))
        assert code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN), method


@pytest.mark.parametrize(
    "method",
    [
        "/headrace.v1.RunService/Check",
        "/headrace.v1.RunService/../grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Check/../../headrace.v1.RunService/ListRuns",
        "/headrace.v1.RunService/ListRuns/grpc.health.v1.Health/Check",
        "//headrace.v1.RunService/ListRuns",
        "/HEADRACE.V1.RUNSERVICE/LISTRUNS",
        "/headrace.v1.RunService/ListRuns/",
        "/headrace.v1.RunService/ListRuns;/grpc.health.v1.Health/Check",
    ],
)
async def test_other_spellings_of_a_name_open_nothing(guarded: Client, method: str) -> None:
    code = await status_of(guarded, method, False, False, None)
    assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)
