"""Commands: those of many tasks over one connection, each answered to the task that asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import trio

from ...errors import BrokerUnavailable
from .address import Address
from .keeper import Keeper, Timing
from .wire import Argument, Wire, WireBroken

__all__ = ["Commands"]

MAX_WAITING = 1024
"""Commands that may be under way; the next ones wait for their turn."""

PAUSE = 0.02
"""Seconds before a command is asked again."""


class Asked:
    """One command under way."""

    __slots__ = ("done", "failure", "packed", "reply", "sent_at")

    def __init__(self, packed: bytes) -> None:
        self.packed: bytes = packed
        self.done: trio.Event = trio.Event()
        self.sent_at: float = 0.0
        self.reply: Any = None
        self.failure: WireBroken | None = None


class Commands:
    """Sends commands in pipelines: what several tasks ask at a time leaves in one write.

    Args:
        address: of the server.
        timing: how long things may take.
        source: nothing is published while nobody of us would hear it.
    """

    def __init__(self, address: Address, timing: Timing, source: Keeper) -> None:
        self.keeper: Keeper = Keeper(address, timing, self._use, "publishing")
        self._timing = timing
        self._address = address
        self._wire: Wire | None = None
        self._unsent: deque[Asked] = deque()
        self._asked: deque[Asked] = deque()
        self._work = trio.lowlevel.ParkingLot()
        self._source = source
        self._places = trio.Semaphore(MAX_WAITING)

    async def ask(self, *command: Argument) -> Any:
        """One command and its reply; asked again, on a new connection, where the old one breaks.

        Raises:
            BrokerUnavailable: there was no reply within ``publish_timeout`` seconds.
            BrokerError: the reply is an error.
        """
        failure: WireBroken | None = None
        with trio.move_on_after(self._timing.publish_timeout):
            async with self._places:
                while True:
                    try:
                        return await self._ask_once(command)
                    except WireBroken as error:
                        failure = error
                    await trio.sleep(PAUSE)
        raise BrokerUnavailable(
            f"Redis at {self._address} did not answer within {self._timing.publish_timeout} seconds"
        ) from (self.keeper.failure or failure)

    async def _ask_once(self, command: Sequence[Argument]) -> Any:
        wire = await self._open_wire()
        request = Asked(wire.pack(*command))
        self._unsent.append(request)
        self._work.unpark()
        try:
            await request.done.wait()
        finally:
            if not request.done.is_set():
                self._take_back(request)
        if request.failure is not None:
            raise request.failure
        return wire.checked(request.reply)

    def _take_back(self, request: Asked) -> None:
        """Nobody waits for it any more: what has not left shall not, and fills no memory."""
        request.packed = b""
        if request in self._unsent:
            self._unsent.remove(request)

    async def _open_wire(self) -> Wire:
        while True:
            await self._source.wait_up()
            if self._wire is not None:
                return self._wire
            await self.keeper.wait_up()

    async def _use(self, wire: Wire) -> None:
        """Send and receive until the connection breaks."""
        self._wire = wire
        self.keeper.up()
        failure = WireBroken("the hub has closed")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, wire, nursery.cancel_scope)
                try:
                    await self._read(wire)
                except WireBroken as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._wire = None
            self.keeper.down()
            self._fail(failure)
        raise failure

    async def _write(self, wire: Wire, scope: trio.CancelScope) -> None:
        try:
            while True:
                while not self._unsent:
                    await self._work.park()
                batch = list(self._unsent)
                self._unsent.clear()
                for request in batch:
                    request.sent_at = trio.current_time()
                self._asked.extend(batch)
                await wire.write(b"".join(request.packed for request in batch))
        except WireBroken:
            scope.cancel()

    async def _read(self, wire: Wire) -> None:
        patience = self._timing.health_timeout
        while True:
            oldest = self._asked[0].sent_at if self._asked else trio.current_time()
            with trio.move_on_at(oldest + patience) as scope:
                for reply in await wire.receive():
                    if not self._asked:
                        raise WireBroken("an answer to nothing that was asked")
                    request = self._asked.popleft()
                    request.reply = reply
                    request.done.set()
            if scope.cancelled_caught and self._is_silent(patience):
                raise WireBroken(f"Redis did not answer within {patience} seconds")

    def _is_silent(self, patience: float) -> bool:
        return bool(self._asked) and trio.current_time() - self._asked[0].sent_at >= patience

    def _fail(self, failure: WireBroken) -> None:
        for request in (*self._asked, *self._unsent):
            request.failure = failure
            request.done.set()
        self._asked.clear()
        self._unsent.clear()
