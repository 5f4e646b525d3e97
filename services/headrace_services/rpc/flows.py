"""`headrace.v1.FlowService`."""

from __future__ import annotations

from headrace.v1 import flow_service_pb2 as pb
from headrace_services.rpc.call import Call
from headrace_services.storage.database import Database

__all__ = ["FlowService"]


class FlowService:
    """Flows, made by their first run."""

    def __init__(self, database: Database) -> None:
        self._reader = database.reader
        self._writer = database.writer

    async def GetFlow(self, request: pb.GetFlowRequest, call: Call) -> pb.GetFlowResponse:
        flow, counts = await self._reader.get_flow(id=request.id or None, name=request.name or None)
        return pb.GetFlowResponse(flow=flow, run_counts=counts)

    async def ListFlows(self, request: pb.ListFlowsRequest, call: Call) -> pb.ListFlowsResponse:
        flows, token = await self._reader.list_flows(
            request.name_contains, request.page_size, request.page_token
        )
        return pb.ListFlowsResponse(flows=flows, next_page_token=token)

    async def DeleteFlow(self, request: pb.DeleteFlowRequest, call: Call) -> pb.DeleteFlowResponse:
        deleted = await self._writer.delete_flow(
            id=request.id or None, name=request.name or None, force=request.force
        )
        return pb.DeleteFlowResponse(deleted_runs=deleted)
