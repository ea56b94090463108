"""Sources: how what others publish comes from Redis to a hub."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import trio

from ...frames import Data
from ..broker import Deliver
from ..history import History, parse_id
from ..message import Gap, Message
from .address import Address
from .keeper import Keeper, Timing
from .wire import Wire, WireBroken

__all__ = ["SPARE", "Channels", "Entries", "Source"]

SECONDS_PER_TURN = 0.005
"""A burst of messages lets the other tasks run so often."""

MAX_BATCH = 500
"""Entries of a stream that one command brings."""

SPARE = MAX_BATCH
"""Entries of a stream beyond its history.

With them a command that brings less than ``MAX_BATCH`` brings all that there was: had an entry been
cut off before it was read, more would have followed.
"""


class Source(ABC):
    """Listens on a connection of its own, which a keeper keeps.

    Args:
        address: of the server.
        timing: how long things may take.
        deliver: told every message and every gap.
    """

    def __init__(self, address: Address, timing: Timing, deliver: Deliver) -> None:
        self.keeper: Keeper = Keeper(address, timing, self._use, "subscribing")
        self.ready: trio.Event = trio.Event()
        """Set once it listens for the first time."""
        self._timing = timing
        self._deliver = deliver
        self._alive_at = 0.0

    @abstractmethod
    async def _use(self, wire: Wire) -> None:
        """Listen until the connection breaks."""

    def _listening(self, *, gap: bool = True) -> None:
        """It listens, for the first time or again."""
        self.keeper.up()
        if not self.ready.is_set():
            self.ready.set()
        elif gap:
            self._tell_gap()
        self._alive_at = trio.current_time()

    def _tell_gap(self) -> None:
        self._deliver(Gap(trio.current_time() - self._alive_at))

    async def _deliver_all(self, messages: Iterable[Message]) -> None:
        self._alive_at = trio.current_time()
        turn = time.perf_counter()
        for message in messages:
            self._deliver(message)
            if time.perf_counter() - turn > SECONDS_PER_TURN:
                await trio.lowlevel.checkpoint()
                turn = time.perf_counter()


class Channels(Source):
    """What is sent with PUBLISH, on the channels ``<name>/<channel>``.

    The pattern ``<name>*`` also lets through what is for hubs whose name begins the same; that is
    left out here.
    """

    def __init__(self, address: Address, timing: Timing, name: str, deliver: Deliver) -> None:
        super().__init__(address, timing, deliver)
        self._pattern = f"{name}*"
        self._prefix = f"{name}/".encode()

    async def _use(self, wire: Wire) -> None:
        with trio.move_on_after(self._timing.health_timeout) as scope:
            await wire.ask("PSUBSCRIBE", self._pattern)
        if scope.cancelled_caught:
            raise WireBroken("Redis does not confirm the subscription")
        self._listening()
        while True:
            replies = await self._receive(wire)
            await self._deliver_all(self._messages(replies))

    async def _receive(self, wire: Wire) -> list[Any]:
        """What comes next; a server that says nothing is asked whether it is still there."""
        with trio.move_on_after(self._timing.health_interval):
            return await wire.receive()
        with trio.move_on_after(self._timing.health_timeout):
            await wire.write(wire.pack("PING"))
            return await wire.receive()
        raise WireBroken(f"Redis was silent for {self._timing.health_timeout} seconds")

    def _messages(self, replies: Iterable[Any]) -> Iterable[Message]:
        prefix = self._prefix
        for reply in replies:
            # ["pmessage", pattern, channel, payload]; the others confirm and answer.
            if isinstance(reply, list) and len(reply) == 4 and reply[2].startswith(prefix):
                channel = reply[2][len(prefix) :].decode(errors="replace")
                yield Message(channel, as_data(reply[3]))


class Entries(Source):
    """What is added to the stream ``<name>``: nothing is missed that is still in it.

    Args:
        address: of the server.
        timing: how long things may take.
        key: of the stream.
        history: filled with the latest entries first.
        deliver: told every message and every gap.
    """

    def __init__(
        self, address: Address, timing: Timing, key: str, history: History, deliver: Deliver
    ) -> None:
        super().__init__(address, timing, deliver)
        self._key = key
        self._history = history

    async def _use(self, wire: Wire) -> None:
        with trio.move_on_after(self._timing.health_timeout) as scope:
            gap = await self._catch_up(wire)
        if scope.cancelled_caught:
            raise WireBroken("Redis does not give the stream")
        self._listening(gap=gap)
        milliseconds = max(1, int(self._timing.health_interval * 1000))
        patience = self._timing.health_interval + self._timing.health_timeout
        while True:
            with trio.move_on_after(patience) as scope:
                command = ("XREAD", "COUNT", MAX_BATCH, "BLOCK", milliseconds, "STREAMS", self._key)
                reply = await wire.ask(*command, self._history.last)
                entries = reply[0][1] if reply else ()
                if len(entries) == MAX_BATCH and await self._finds_cut(wire):
                    self._tell_gap()
            if scope.cancelled_caught:
                raise WireBroken(f"Redis was silent for {patience} seconds")
            await self._deliver_all(self._messages(entries))

    async def _catch_up(self, wire: Wire) -> bool:
        """Get ready to read on; whether messages may be missing."""
        if not self.ready.is_set():
            limit = self._history.messages.maxlen or 1
            entries = await wire.ask("XREVRANGE", self._key, "+", "-", "COUNT", limit)
            for entry in reversed(entries):
                self._history.add(as_message(entry))
            return False
        return await self._finds_cut(wire)

    async def _finds_cut(self, wire: Wire) -> bool:
        """Whether entries that were not read may have been cut off; the history then has a cut."""
        oldest = await wire.ask("XRANGE", self._key, "-", "+", "COUNT", 1)
        if oldest and parse_id(oldest[0][0].decode()) <= parse_id(self._history.last):
            return False
        self._history.cut()
        return True

    def _messages(self, entries: Iterable[Any]) -> Iterable[Message]:
        for entry in entries:
            message = as_message(entry)
            self._history.add(message)
            yield message


def as_message(entry: Any) -> Message:
    """A message from the entry of a stream: an id, and fields with their values in turn."""
    entry_id, fields = entry
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    channel = values.get(b"channel", b"").decode(errors="replace")
    return Message(channel, as_data(values.get(b"data", b"")), entry_id.decode())


def as_data(payload: bytes) -> Data:
    """Redis knows bytes only: what is valid UTF-8 is taken for text."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
