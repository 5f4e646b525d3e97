"""Credentials, decoding, checks, and errors of every kind of call, over a real socket."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.core.errors import FieldsInvalid, FieldViolation, ObjectNotFound
from headrace.core.ids import new_id
from headrace.v1 import run_service_pb2 as pb
from headrace_services.rpc.edge import CLIENT_HEADER, SERVER_HEADER
from tests.rpc.conftest import Serve

GET = "/headrace.v1.RunService/GetRun"
CREATE = "/headrace.v1.RunService/CreateRun"
WATCH = "/headrace.v1.RunService/WatchRuns"
RECORD = "/headrace.v1.RecordService/Record"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The `ErrorInfo` of a status; every status must have one."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))  # type: ignore[arg-type]
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


async def call(
    channel: grpc.aio.Channel, method: str, data: bytes, metadata: Any = None
) -> grpc.aio.AioRpcError:
    """The error that a call with these bytes ends with, in whatever kind of call the method is."""
    one, many = method in (GET, CREATE), method in (RECORD, REFLECT)
    try:
        if one:
            await channel.unary_unary(method)(data, metadata=metadata)
        elif many:
            async for _ in channel.stream_stream(method)(iter([data]), metadata=metadata):
                pass
        else:
            async for _ in channel.unary_stream(method)(data, metadata=metadata):
                pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call went through")


def valid_get() -> bytes:
    return pb.GetRunRequest(run_id=new_id()).SerializeToString()


async def missing(request: Any, _call: Any) -> Any:
    raise ObjectNotFound.of("run", "x")


async def broken(request: Any, _call: Any) -> Any:
    if hasattr(request, "__anext__"):
        await anext(request)
    raise RuntimeError("secret text of an exception")


@pytest.mark.parametrize("method", [GET, WATCH, RECORD])
async def test_no_text_of_an_exception_leaves_the_server(
    serve: Serve, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(broken) as channel:
        error = await call(channel, method, valid_get() if method == GET else b"")
    assert error.code() is grpc.StatusCode.INTERNAL
    info = info_of(error)
    assert info.reason == "INTERNAL"
    assert "secret text" not in str(error.details())
    assert info.metadata["error_id"] in str(error.details())
    assert info.metadata["error_id"] in caplog.text
    assert "secret text" in caplog.text


async def test_an_error_of_the_tree_keeps_its_class_and_message(serve: Serve) -> None:
    async with serve(missing) as channel:
        error = await call(channel, GET, valid_get())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "There is no run 'x'."
    assert info_of(error).reason == "NOT_FOUND"


async def test_details_fit_into_the_trailers_whatever_was_sent(serve: Serve) -> None:
    long = "ü" * 5000

    async def huge(request: Any, _call: Any) -> Any:
        raise FieldsInvalid(
            long,
            violations=[FieldViolation(f"run.tags[{i}]{long}", long) for i in range(1000)],
            facts={f"{i}{long}": long for i in range(1000)},
        )

    async with serve(huge) as channel:
        error = await call(channel, GET, valid_get())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(error.trailing_metadata() or ())
    details = bytes(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    percent_encoded = len(quote(str(error.details())))
    assert len(details) * 4 / 3 + percent_encoded < 8 * 1024
    assert b"and 992 more fields" in details


@pytest.mark.parametrize("method", [GET, WATCH, RECORD, REFLECT])
async def test_bytes_that_are_no_message_are_an_invalid_argument(serve: Serve, method: str) -> None:
    async def first(requests: Any, _call: Any) -> Any:
        return await anext(requests) if hasattr(requests, "__anext__") else requests

    async with serve(first) as channel:
        error = await call(channel, method, b"\xff\xff\xff\xff garbage")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(error).reason == "FIELD_INVALID"


async def test_a_message_nested_too_deeply_is_an_invalid_argument(serve: Serve) -> None:
    def field(number: int, body: bytes) -> bytes:
        size, length = len(body), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return (
            bytes([number << 3 & 127 | 2 | (128 if number > 15 else 0)])
            + (bytes([number >> 4]) if number > 15 else b"")
            + length
            + bytes([size])
            + body
        )

    body = b""
    for _ in range(500):
        body = field(4, body)  # ErrorDescription.cause
    run = field(40, field(15, field(1, body)))  # Run.state, State.failed, FailedDetails.error
    async with serve(missing) as channel:
        error = await call(channel, CREATE, field(1, run))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be decoded" in str(error.details())


async def test_a_field_that_breaks_a_rule_is_named_by_its_path(serve: Serve) -> None:
    request = pb.CreateRunRequest()
    request.run.id = new_id()
    request.run.kind = 1
    request.run.tags.extend(["a", "b", "c", ""])
    async with serve(missing) as channel:
        error = await call(channel, CREATE, request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "run.tags[3]" in str(error.details())


async def test_a_value_too_large_to_travel_inline_says_so(serve: Serve) -> None:
    request = pb.CreateRunRequest()
    request.run.id = new_id()
    request.run.parameters.encoding = "json"
    request.run.parameters.inline = b"x" * 65537
    async with serve(missing) as channel:
        error = await call(channel, CREATE, request.SerializeToString())
    assert info_of(error).reason == "PAYLOAD_TOO_LARGE"
    assert "run.parameters.inline" in str(error.details())


async def test_our_limit_comes_before_the_transports(serve: Serve) -> None:
    request = pb.CreateRunRequest()
    request.run.name = "x" * 1024 * 1024
    async with serve(missing) as channel:
        error = await call(channel, CREATE, request.SerializeToString())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info_of(error).reason == "MESSAGE_TOO_LARGE"
    assert info_of(error).metadata["max_bytes"] == "1048576"


async def test_an_answer_too_large_to_travel_says_what_to_ask_instead(serve: Serve) -> None:
    async def answer(request: Any, _call: Any) -> Any:
        response = pb.GetRunResponse()
        response.run.name = "x" * 8 * 1024 * 1024
        return response

    async with serve(answer) as channel:
        error = await call(channel, GET, valid_get())
    assert info_of(error).reason == "MESSAGE_TOO_LARGE"
    assert "page_size" in str(error.details())


def basic(credentials: str, scheme: str = "Basic") -> tuple[tuple[str, str]]:
    return (("authorization", f"{scheme} {base64.b64encode(credentials.encode()).decode()}"),)


BAD_CREDENTIALS: list[Any] = [
    None,
    (("authorization", ""),),
    (("authorization", "Basic"),),
    (("authorization", "Basic !!!"),),
    (("authorization", "Bearer dXNlcjpwYTpzcw=="),),
    basic("user:pa:sS"),
    basic("user:"),
    basic("user:pa:ss "),
    basic("x" * 4096),
]


@pytest.mark.parametrize("method", [GET, CREATE, WATCH, RECORD, REFLECT])
@pytest.mark.parametrize("metadata", BAD_CREDENTIALS)
async def test_every_kind_of_call_asks_for_credentials(serve: Serve, method: str, metadata: Any) -> None:
    async with serve(missing, auth="user:pa:ss") as channel:
        error = await call(channel, method, valid_get(), metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == "Unauthorized"
    assert info_of(error).reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_right_credentials_are_let_in(serve: Serve, scheme: str) -> None:
    async with serve(missing, auth="üser:pa:ß") as channel:
        error = await call(channel, GET, valid_get(), basic("üser:pa:ß", scheme))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_tells_its_version_learns_the_servers(serve: Serve) -> None:
    async def answer(request: Any, _call: Any) -> Any:
        return pb.GetRunResponse()

    async with serve(answer) as channel:
        told = channel.unary_unary(GET)(valid_get(), metadata=((CLIENT_HEADER, "9"),))
        assert (SERVER_HEADER, "1.2.3") in tuple(await told.initial_metadata())
        await told


async def test_a_caller_that_leaves_ends_the_handler(serve: Serve) -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def endless(request: Any, _call: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serve(endless) as channel:
        waiting = channel.unary_stream(WATCH)(b"")
        reading = asyncio.ensure_future(waiting.read())
        await begun.wait()
        waiting.cancel()
        await asyncio.wait_for(ended.wait(), 60)
        await asyncio.gather(reading, return_exceptions=True)
