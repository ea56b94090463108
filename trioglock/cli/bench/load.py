"""The load: many lanes at the same time, from the first handshake to the last echo."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from ..._redact import printable
from ...client import connect
from ...connection import Connection
from ...errors import ConnectError, ConnectionClosed
from ...frames import Data
from .lane import Lane
from .meter import Meter
from .plan import Plan, messages_of

__all__ = ["Load"]

DIALING = 64
"""Connections that are opened at the same time."""

MAX_ANSWER = 2**20
"""Bytes that an answer may have, if messages are not longer: what is no echo is to be seen."""

CLOSE_TIMEOUT = 2
"""Seconds that a server has to confirm the end of a connection."""


class Load:
    """Carries out a plan, once.

    Args:
        plan: what is to be measured.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan: Plan = plan
        self.meter: Meter = Meter()
        self.phase: str = "connecting"
        """What it does now, in a word."""
        self.opened: int = 0
        """Connections that have come about."""
        self.interrupted: bool = False
        self._scope = trio.CancelScope()
        self._lanes: list[Lane] = []
        self._messages = messages_of(plan)
        self._left = math.inf if plan.messages is None else plan.messages
        self._unsettled = plan.connections
        self._settled = trio.Event()
        self._start = trio.Event()
        self._dialing = trio.CapacityLimiter(DIALING)

    def interrupt(self) -> None:
        """Drop everything; what was measured so far stays."""
        self.interrupted = True
        for lane in self._lanes:
            lane.done.set()  # no fault of theirs
        self._scope.cancel()

    async def run(self) -> None:
        """Measure. Whatever goes wrong is noted in the meter."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for _ in range(self.plan.connections):
                    nursery.start_soon(self._drive, Lane(self.meter, self._next_message))
                await self._settled.wait()
                self._start.set()
                if self._lanes:
                    await self._measure()
        self.meter.end()

    async def _measure(self) -> None:
        plan = self.plan
        self.phase = "warming up"
        if plan.warm_up:
            with trio.move_on_after(plan.warm_up):
                await self._wait_done()
        self.phase = "measuring"
        self.meter.begin()
        with trio.move_on_after(math.inf if plan.seconds is None else plan.seconds):
            await self._wait_done()
        self.meter.end()
        self.phase = "closing"
        self._left = 0
        await self._wait_done()

    async def _wait_done(self) -> None:
        """Wait until no lane has anything on its way; those that are too late fail."""
        timeout = self.plan.timeout
        for lane in self._lanes:
            while not lane.done.is_set():
                with trio.move_on_after(min(timeout / 4, 1)) as pause:
                    await lane.done.wait()
                if pause.cancelled_caught:
                    for any_lane in self._lanes:
                        any_lane.check_silence(timeout)

    def _next_message(self) -> Data | None:
        if self._left <= 0:
            return None
        self._left -= 1
        return next(self._messages)

    async def _drive(self, lane: Lane) -> None:
        """One connection, from its handshake to its end."""
        try:
            async with AsyncExitStack() as stack:
                try:
                    conn = await stack.enter_async_context(self._opened(lane))
                finally:
                    self._settle()
                await self._start.wait()
                await lane.start(conn, self.plan.in_flight)
                await lane.done.wait()
        except ConnectError as error:
            self.meter.blame("not connected", printable(str(error)))
        except ConnectionClosed:
            pass  # the lane has noted why

    @asynccontextmanager
    async def _opened(self, lane: Lane) -> AsyncIterator[Connection[None]]:
        plan = self.plan
        async with AsyncExitStack() as stack:
            async with self._dialing:
                began = time.perf_counter_ns()
                conn = await stack.enter_async_context(
                    connect(
                        plan.url,
                        lane,
                        additional_headers=plan.headers,
                        compression="deflate" if plan.compressed else None,
                        proxy=True if plan.proxied else None,
                        open_timeout=plan.timeout,
                        close_timeout=CLOSE_TIMEOUT,
                        max_size=max(plan.size, MAX_ANSWER),
                    )
                )
            self.meter.connects.add(time.perf_counter_ns() - began)
            self.opened += 1
            self._lanes.append(lane)
            yield conn

    def _settle(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._settled.set()
