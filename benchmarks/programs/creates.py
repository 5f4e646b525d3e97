"""Unary CreateRun calls, a number of them in flight: `creates.py ADDRESS`."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc.aio

from headrace.core.ids import new_id
from headrace.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc


async def creates(address: str, count: int, in_flight: int) -> float:
    """Seconds until `count` scheduled flow runs have been created."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        await channel.channel_ready()

        async def some(share: int) -> None:
            for _ in range(share):
                run = run_pb2.Run(id=new_id(), kind=run_pb2.RUN_KIND_FLOW, flow_name="created")
                await stub.CreateRun(run_service_pb2.CreateRunRequest(run=run))

        start = time.perf_counter()
        await asyncio.gather(*(some(count // in_flight) for _ in range(in_flight)))
        return time.perf_counter() - start


def main() -> None:
    for line in sys.stdin:
        arguments = json.loads(line)
        seconds = asyncio.run(creates(sys.argv[1], arguments["count"], arguments["in_flight"]))
        print(json.dumps({"seconds": seconds}), flush=True)


main()
