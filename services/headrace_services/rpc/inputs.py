"""What runs are told: the stream of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from headrace.v1.run_service_pb2 import WatchRunInputsRequest, WatchRunInputsResponse
from headrace_services.rpc.watch import Pace, WatchSettings, bookmark_at
from headrace_services.storage.database import Database

__all__ = ["InputWatch"]

MESSAGE_INPUTS: Final = 20
"""The most inputs in one message, each of which may have 64 KiB."""


class InputWatch:
    """One `WatchRunInputs` call. It holds a resume token and nothing else, however much there is to say."""

    def __init__(self, database: Database, settings: WatchSettings, request: WatchRunInputsRequest) -> None:
        self._reader = database.reader
        self._pace = Pace(database, settings)
        self._clock = settings.clock
        self._run_id = request.run_id
        self._prefix = request.key_prefix
        self._token = request.resume_token

    async def responses(self) -> AsyncIterator[WatchRunInputsResponse]:
        """Everything to send, until the server stops.

        Raises:
            ObjectNotFound: there is no such run, or no longer.
            ResumeTokenInvalid: watch again without a token.
            ServerDraining: the server stops.
        """
        is_synced = False
        while True:
            inputs, self._token = await self._reader.inputs_since(
                self._run_id, self._prefix, self._token, MESSAGE_INPUTS
            )
            if inputs:
                self._pace.spoke()
                yield WatchRunInputsResponse(inputs=inputs, resume_token=self._token)
                continue
            if not is_synced or self._pace.bookmark_due:
                is_synced = True
                self._pace.spoke()
                now = bookmark_at(self._clock.now())
                yield WatchRunInputsResponse(bookmark=now, resume_token=self._token)
            await self._pace.wait()
