"""Work pools and queues, asked over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict

from headrace.core.job_templates import base_job_template
from headrace.v1 import work_pool_service_pb2 as pb
from headrace.v1.work_pool_pb2 import WORK_STATUS_PAUSED, WorkPool, WorkQueue
from tests.rpc.servers import Client, serving, settings_for
from tests.rpc.test_edge import info_of
from tests.rpc.test_services import refused


def create(**pool: Any) -> pb.CreateWorkPoolRequest:
    return pb.CreateWorkPoolRequest(work_pool=WorkPool(**({"name": "pool", "type": "process"} | pool)))


def queue(**fields: Any) -> pb.CreateWorkQueueRequest:
    return pb.CreateWorkQueueRequest(work_queue=WorkQueue(**({"work_pool": "pool", "name": "fast"} | fields)))


async def test_a_pool_from_create_to_delete(client: Client) -> None:
    calls = client.work_pools
    made = await calls.CreateWorkPool(create(type="docker"))
    assert not made.existed
    assert MessageToDict(made.work_pool.base_job_template) == base_job_template("docker")
    assert (await calls.CreateWorkPool(create(type="docker"))).existed
    paused = await calls.PauseWorkPool(pb.PauseWorkPoolRequest(name="pool"))
    assert paused.work_pool.status == WORK_STATUS_PAUSED
    assert not (await calls.ResumeWorkPool(pb.ResumeWorkPoolRequest(name="pool"))).work_pool.paused
    change = WorkPool(name="pool", concurrency_limit=3, description="ignored")
    mask = FieldMask(paths=["concurrency_limit"])
    updated = await calls.UpdateWorkPool(pb.UpdateWorkPoolRequest(work_pool=change, update_mask=mask))
    assert (updated.work_pool.concurrency_limit, updated.work_pool.description) == (3, "")
    assert (await calls.GetWorkPool(pb.GetWorkPoolRequest(name="pool"))).work_pool == updated.work_pool
    page = await calls.ListWorkPools(pb.ListWorkPoolsRequest(types=["docker"]))
    assert [pool.name for pool in page.work_pools] == ["pool"]
    await calls.DeleteWorkPool(pb.DeleteWorkPoolRequest(name="pool"))
    assert not (await calls.ListWorkPools(pb.ListWorkPoolsRequest())).work_pools


async def test_a_managed_pool_is_refused_where_the_server_works_none(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path / "home",
        f"sqlite+aiosqlite:///{tmp_path}/db",
        server_managed_pools_enabled=False,
    )
    async with serving(settings) as client:
        error = await refused(client.work_pools.CreateWorkPool(create(type="managed")))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "HEADRACE_SERVER_MANAGED_POOLS_ENABLED" in str(error.details())


async def test_a_queue_from_create_to_delete(client: Client) -> None:
    calls = client.work_pools
    await calls.CreateWorkPool(create())
    made = await calls.CreateWorkQueue(queue(concurrency_limit=2, priority=1))
    assert (made.work_queue.priority, made.work_queue.concurrency_limit) == (1, 2)
    key = {"work_pool": "pool", "name": "fast"}
    paused = await calls.PauseWorkQueue(pb.PauseWorkQueueRequest(**key))
    assert paused.work_queue.status == WORK_STATUS_PAUSED
    assert not (await calls.ResumeWorkQueue(pb.ResumeWorkQueueRequest(**key))).work_queue.paused
    update = pb.UpdateWorkQueueRequest(work_queue=WorkQueue(**key, priority=2), new_name="faster")
    update.update_mask.paths.append("priority")
    renamed = (await calls.UpdateWorkQueue(update)).work_queue
    assert (renamed.name, renamed.priority) == ("faster", 2)
    listed = await calls.ListWorkQueues(pb.ListWorkQueuesRequest(work_pool="pool"))
    assert [(q.name, q.priority) for q in listed.work_queues] == [("faster", 2), ("default", 3)]
    await calls.DeleteWorkQueue(pb.DeleteWorkQueueRequest(work_pool="pool", name="faster"))
    gone = await refused(calls.GetWorkQueue(pb.GetWorkQueueRequest(work_pool="pool", name="faster")))
    assert info_of(gone).reason == "NOT_FOUND"


def template(value: Any) -> Any:
    return ParseDict(value, WorkPool().base_job_template)


UNDECLARED = template({"job_configuration": {"a": ["{{ b }}"]}, "variables": {"properties": {}}})
HALF = template({"job_configuration": {}})


def pool_update(*paths: str, **pool: Any) -> pb.UpdateWorkPoolRequest:
    work_pool = WorkPool(**({"name": "pool"} | pool))
    return pb.UpdateWorkPoolRequest(work_pool=work_pool, update_mask=FieldMask(paths=paths))


def queue_update(*paths: str, new_name: str = "", **fields: Any) -> pb.UpdateWorkQueueRequest:
    work_queue = WorkQueue(**({"work_pool": "pool", "name": "default"} | fields))
    mask = FieldMask(paths=paths)
    return pb.UpdateWorkQueueRequest(work_queue=work_queue, update_mask=mask, new_name=new_name)


# Method, request, words of the message, reason.
BAD_REQUESTS: list[tuple[str, Any, str, str]] = [
    ("CreateWorkPool", create(name=""), "work_pool.name", "FIELD_INVALID"),
    ("CreateWorkPool", create(name="a/b"), "work_pool.name", "FIELD_INVALID"),
    ("CreateWorkPool", create(name="50%"), "work_pool.name", "FIELD_INVALID"),
    ("CreateWorkPool", create(name="Headrace-pool"), "must not begin with 'headrace'", "FIELD_INVALID"),
    ("CreateWorkPool", create(name="new", type=""), "work_pool.type", "FIELD_INVALID"),
    ("CreateWorkPool", create(name="new", type="My Type"), "work_pool.type", "FIELD_INVALID"),
    (
        "CreateWorkPool",
        create(name="new", base_job_template=UNDECLARED),
        "work_pool.base_job_template.job_configuration.a[0]: uses 'b'",
        "FIELD_INVALID",
    ),
    (
        "CreateWorkPool",
        create(name="new", base_job_template=HALF),
        "work_pool.base_job_template.variables: must be an object",
        "FIELD_INVALID",
    ),
    ("CreateWorkPool", create(name="new", concurrency_limit=2**32 - 1), "at most", "FIELD_INVALID"),
    ("CreateWorkPool", create(description="another"), "'pool' already", "ALREADY_EXISTS"),
    ("GetWorkPool", pb.GetWorkPoolRequest(), "name", "FIELD_INVALID"),
    ("GetWorkPool", pb.GetWorkPoolRequest(name="none"), "no work pool 'none'", "NOT_FOUND"),
    ("UpdateWorkPool", pool_update(), "must name what to change", "FIELD_INVALID"),
    ("UpdateWorkPool", pool_update("type"), "cannot change", "FIELD_INVALID"),
    ("UpdateWorkPool", pool_update("nonsense"), "names 'nonsense'", "FIELD_INVALID"),
    ("UpdateWorkPool", pool_update("base_job_template"), "job_configuration", "FIELD_INVALID"),
    ("UpdateWorkPool", pool_update("paused", etag="77"), "has changed", "ETAG_MISMATCH"),
    ("DeleteWorkPool", pb.DeleteWorkPoolRequest(name="none"), "no work pool 'none'", "NOT_FOUND"),
    ("PauseWorkPool", pb.PauseWorkPoolRequest(name="none"), "no work pool 'none'", "NOT_FOUND"),
    ("ListWorkPools", pb.ListWorkPoolsRequest(page_size=-1), "page_size", "FIELD_INVALID"),
    ("ListWorkPools", pb.ListWorkPoolsRequest(page_token="x"), "page", "PAGE_TOKEN_INVALID"),
    ("CreateWorkQueue", queue(name="a/b"), "work_queue.name", "FIELD_INVALID"),
    ("CreateWorkQueue", queue(work_pool="none"), "no work pool 'none'", "NOT_FOUND"),
    ("CreateWorkQueue", queue(priority=2**31), "work_queue.priority", "FIELD_INVALID"),
    ("CreateWorkQueue", queue(name="default", priority=7), "queue 'default' already", "ALREADY_EXISTS"),
    ("UpdateWorkQueue", queue_update(), "must name what to change", "FIELD_INVALID"),
    ("UpdateWorkQueue", queue_update("is_default"), "names 'is_default'", "FIELD_INVALID"),
    ("UpdateWorkQueue", queue_update(new_name="a/b"), "new_name", "FIELD_INVALID"),
    ("UpdateWorkQueue", queue_update("paused", etag="x"), "has changed", "ETAG_MISMATCH"),
    (
        "DeleteWorkQueue",
        pb.DeleteWorkQueueRequest(work_pool="pool", name="default"),
        "default queue",
        "PRECONDITION_FAILED",
    ),
    ("ListWorkQueues", pb.ListWorkQueuesRequest(work_pool="none"), "'none'", "NOT_FOUND"),
]


async def test_a_bad_request_is_told_what_is_wrong(client: Client) -> None:
    await client.work_pools.CreateWorkPool(create())
    for method, request, words, reason in BAD_REQUESTS:
        error = await refused(getattr(client.work_pools, method)(request))
        assert words in str(error.details()), (method, request)
        assert info_of(error).reason == reason, (method, request)
    pools = (await client.work_pools.ListWorkPools(pb.ListWorkPoolsRequest())).work_pools
    assert [pool.name for pool in pools] == ["pool"]


@pytest.mark.parametrize("type", ["process", "kubernetes", "somebody-elses"])
async def test_every_type_gets_a_template(client: Client, type: str) -> None:
    made = await client.work_pools.CreateWorkPool(create(type=type))
    assert MessageToDict(made.work_pool.base_job_template) == base_job_template(type)
