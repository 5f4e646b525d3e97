"""The runtime thread: an event loop of its own, on which no code of the user ever runs."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Final

from headrace.core.direct_polling import direct_polling
from headrace.core.errors import ServerUnavailable, ServiceError
from headrace.recorder.answers import Reach
from headrace.recorder.recorder import SpoolRecorder
from headrace.recorder.stream import GiveUp, StreamState
from headrace.recorder.syncer import SYNC_INTERVAL_SECONDS

if TYPE_CHECKING:
    from headrace.recorder.link import Link

__all__ = ["Runtime"]

logger = logging.getLogger("headrace.recorder")

LOOK_SECONDS: Final = 1.0
"""How often to look for a server of this home while there is none."""
WAITING_SECONDS: Final = 8.0
"""The longest pause between two tries to connect while there is something to send."""
REFUSED_SECONDS: Final = 30.0
"""How long to leave a server alone that refuses this recorder."""
HOUSEKEEP_SECONDS: Final = 5.0
SEAL_SECONDS: Final = 1.0
"""How long the exit waits for the seal, when everything is acknowledged."""


class Runtime:
    """Runs one recorder's link in a daemon thread, from `start` to `stop`."""

    def __init__(self, recorder: SpoolRecorder) -> None:
        self._recorder = recorder
        self._state = StreamState(random.random)
        self._thread = threading.Thread(target=self._run, name="headrace-runtime", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = threading.Event()
        self._changed = asyncio.Event()
        self._stopping = False
        self._sealing = False
        self._link: Link | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._impatient_with: str | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._is_called = False
        self._is_urgent = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Send what is left within `timeout_seconds`, say that the recorder is done, end the thread."""
        recorder = self._recorder
        if self._ended.is_set():
            return
        is_flushed = recorder.flush(timeout_seconds)
        if is_flushed and recorder.reach is Reach.OPEN:
            self._adopt(timeout_seconds)
        self._call(self._seal if is_flushed and recorder.reach is Reach.OPEN else self._end)
        if self._ended.wait(SEAL_SECONDS):
            self._thread.join()
        recorder.finish()

    def _adopt(self, timeout_seconds: float) -> None:
        """Children that ended meanwhile may have left records that they could not send."""
        loop, link = self._loop, self._link
        if loop is not None and link is not None:
            try:
                asyncio.run_coroutine_threadsafe(link.adopt_once(), loop).result(timeout_seconds)
            except (RuntimeError, TimeoutError, CancelledError):
                pass  # they stay for the next process

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        """Run `callback` on the loop; nothing when the loop has ended."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback, *args)
            except RuntimeError:
                pass

    def _wake(self, urgent: bool) -> None:
        """Have `_woken` called: once, however often this is before its turn comes. From any thread.

        What is urgent is noted before it is looked whether a call is on its way, and taken up after the call
        has come: so none is missed.
        """
        if urgent:
            self._is_urgent = True
        if not self._is_called:
            self._is_called = True
            self._call(self._woken)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException:
            logger.exception("Recording goes on in the spool only: the runtime thread has ended.")
            self._recorder.set_reach(Reach.NONE)
        finally:
            self._ended.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._recorder.attach(self._wake)
        keeper = asyncio.ensure_future(self._housekeep())
        try:
            while not self._stopping:
                await self._connect_once()
        finally:
            keeper.cancel()

    # On the loop.

    async def _connect_once(self) -> None:
        address = self._recorder.options.find_server()
        if address is None:
            self._impatient_with = None
            self._reach(Reach.NONE)
            await self._pause(LOOK_SECONDS)
            return
        if self._recorder.reach is not Reach.NONE or self._impatient_with != address:
            self._expect(address)
        link = self._the_link()
        after = await link.session(address, self._connected)
        if isinstance(after, GiveUp):
            logger.error("Records wait in the spool: %s", after.error)
            self._reach(Reach.REFUSED, after.error)
            await self._pause(REFUSED_SECONDS)
        elif not self._stopping:
            self._impatient_with = None if self._recorder.reach is Reach.OPEN else self._impatient_with
            if self._recorder.reach is Reach.OPEN:
                self._expect(address)
            await self._pause(min(after.seconds, self._longest_pause()))

    def _longest_pause(self) -> float:
        if self._recorder.reach is Reach.TRYING:
            return LOOK_SECONDS
        return WAITING_SECONDS if self._recorder.last_seq > self._state.durable else math.inf

    def _the_link(self) -> Link:
        """The link; gRPC is first needed, and imported, when there is a server."""
        if self._link is None:
            with direct_polling():
                from headrace.recorder.link import Link

            self._link = Link(self._recorder, self._state)
            if self._sealing:
                self._link.seal()
        return self._link

    def _expect(self, address: str) -> None:
        """Whoever waits for an answer goes on waiting, for a while."""
        if self._patience is None:
            seconds = self._recorder.options.connect_timeout_seconds
            self._patience = asyncio.get_running_loop().call_later(seconds, self._lose_patience, address)
        self._reach(Reach.TRYING)

    def _lose_patience(self, address: str) -> None:
        self._patience = None
        self._impatient_with = address
        error = ServerUnavailable(
            f"The server at {address} does not answer. Is it running, and is the address right?"
        )
        self._reach(Reach.NONE, error)

    def _connected(self) -> None:
        self._impatient_with = None
        self._reach(Reach.OPEN)

    def _reach(self, reach: Reach, error: ServiceError | None = None) -> None:
        if reach is not Reach.TRYING and self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if reach is not self._recorder.reach:
            self._recorder.set_reach(reach, error)

    async def _pause(self, seconds: float) -> None:
        """Wait, or go on at once when somebody asks."""
        self._changed.clear()
        if self._stopping:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _woken(self) -> None:
        self._is_called = False
        urgent = self._is_urgent
        if urgent:  # else leave it alone: somebody may be setting it right now, and has a call of its own
            self._is_urgent = False
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(SYNC_INTERVAL_SECONDS, self._sync_old, 0)
        if self._link is not None:
            self._link.posted(urgent)
        if not urgent:
            return
        self._recorder.settle()
        if self._recorder.reach is Reach.TRYING and self._patience is None:
            # A run begins although the address did not answer the last time: try now.
            self._impatient_with = None
            self._state.hurry()
            self._changed.set()

    def _sync_old(self, seen: int) -> None:
        """Sync facts that were there at the last tick and that no server has yet."""
        if self._recorder.is_unsafe(seen):
            self._recorder.ask_sync()
        newest = self._recorder.rest()
        self._tick = None
        if newest:
            self._tick = asyncio.get_running_loop().call_later(SYNC_INTERVAL_SECONDS, self._sync_old, newest)

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEP_SECONDS)
            self._recorder.housekeep()

    def _seal(self) -> None:
        self._stopping = self._sealing = True
        if self._link is not None:
            self._link.seal()
        self._changed.set()

    def _end(self) -> None:
        self._stopping = True
        if self._link is not None:
            self._link.cut()
        self._changed.set()
