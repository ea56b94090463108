"""The calls of a scenario on its connection, and the exceptions they may raise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tests.machines.links import RecordingTransport
from tests.machines.record import Offer, Record, UserError, frame_of, label_of
from tests.machines.scenarios import Setup
from tests.machines.scripted_socket import Instruction
from trioglock import (
    BadHookResult,
    CallTimeout,
    Close,
    Connection,
    ConnectionClosed,
    Ping,
    Pong,
    UsageError,
)
from trioglock.frames import Frame

__all__ = ["Calls"]

EXPECTED = {
    "send": (ConnectionClosed, UserError, BadHookResult),
    "send_nowait": (ConnectionClosed, UserError, BadHookResult, trio.WouldBlock, UsageError),
    "receive_nowait": (ConnectionClosed, trio.WouldBlock),
    "call": (ConnectionClosed, UserError, BadHookResult, CallTimeout, UsageError),
    "cast": (ConnectionClosed, UsageError),
    "cast_after": (ConnectionClosed, UsageError),
    "wait_closed": (),
    "aclose": (),
    "abort": (),
    "statistics": (),
}
"""The exceptions that each call may raise; all others may raise ConnectionClosed."""


class Calls:
    """One method for each kind of call, named like its step."""

    def __init__(
        self, setup: Setup, record: Record, transport: RecordingTransport, conn: Connection[Any]
    ) -> None:
        self._setup = setup
        self._record = record
        self._net = transport
        self._conn = conn

    async def make(self, what: str, arg: Any) -> None:
        """Make a call, and record an unexpected exception."""
        try:
            await getattr(self, f"do_{what}")(arg)
        except EXPECTED.get(what, (ConnectionClosed,)):
            pass
        except Exception as error:
            self._record.fail(f"{what}({arg!r}) raised {error!r}")

    def _message(self, action: str, size: int) -> tuple[Any, Offer]:
        """Create a message to send and its offer."""
        if "handle_send" not in self._setup.hooks:
            offer = self._record.offer(1)
            return frame_of(offer.labels[0], size, binary=size == 3), offer
        offer = self._record.offer({"none": 0, "many": 3}.get(action, 1))
        return Instruction(self._record.label("t"), action, size, offer), offer

    async def _offer(self, offer: Offer, send: Callable[[], Awaitable[object]]) -> None:
        try:
            await send()
        except Exception:
            offer.queued = False
            raise
        else:
            offer.queued = True
        finally:
            offer.ended = self._record.tick()

    async def do_send(self, arg: tuple[str, int]) -> None:
        message, offer = self._message(*arg)
        await self._offer(offer, lambda: self._conn.send(message))

    async def do_send_nowait(self, arg: tuple[str, int]) -> None:
        message, offer = self._message(*arg)

        async def send() -> None:
            self._conn.send_nowait(message)

        await self._offer(offer, send)

    async def do_send_frame(self, kind: str) -> None:
        offer = self._record.offer(1 if kind in ("text", "bytes") else 0)
        frame: Frame
        match kind:
            case "ping":
                frame = Ping(b"by hand")
            case "pong":
                frame = Pong(b"by hand")
            case "close":
                frame = Close(4004)
            case _:
                frame = frame_of(offer.labels[0], 5, binary=kind == "bytes")
        await self._offer(offer, lambda: self._conn.send_frame(frame))

    async def do_receive(self, _: object) -> None:
        self._record.received.append(label_of(await self._conn.receive()))

    async def do_receive_nowait(self, _: object) -> None:
        self._record.received.append(label_of(self._conn.receive_nowait()))

    async def do_receive_batch(self, _: object) -> None:
        batch = await self._conn.receive_batch()
        if not batch:
            self._record.fail("an empty batch")
        self._record.received.extend(map(label_of, batch))

    async def do_iterate(self, count: int) -> None:
        async for item in self._conn:
            self._record.received.append(label_of(item))
            count -= 1
            if not count:
                return

    async def do_cast(self, action: str) -> None:
        self._conn.cast(Instruction(self._record.label("c"), action))

    async def do_cast_after(self, arg: tuple[float, str]) -> None:
        seconds, action = arg
        self._conn.cast_after(seconds, Instruction(self._record.label("c"), action))

    async def do_call(self, arg: tuple[str, float | None]) -> None:
        action, timeout = arg
        label = self._record.label("q")
        answer = await self._conn.call(Instruction(label, action), timeout=timeout)
        if answer != label:
            self._record.fail(f"call() of {label} returned {answer!r}")

    async def do_background(self, action: str) -> None:
        async def task() -> None:
            if action == "nap":
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(3)
            if action == "raise":
                error = UserError("raised by a background task")
                self._record.may_lose = True
                self._record.raised.append(error)
                raise error

        self._conn.start_soon(task)

    async def do_ping(self, _: object) -> None:
        if await self._conn.ping() < 0:
            self._record.fail("a negative round trip")

    async def do_flush(self, _: object) -> None:
        began = self._record.tick()
        # Frames that are already in doubt are not queued any more.
        gone = {label for link in self._net.links for label in link.in_doubt}
        await self._conn.flush()
        gone |= {label for link in self._net.links for label in link.written}
        for offer in self._record.offers:
            before = offer.ended is not None and offer.ended < began and offer.queued
            if before and not gone.issuperset(offer.labels):
                self._record.fail(f"flush() returned, but {offer.labels} are not written")

    async def do_wait_closed(self, _: object) -> None:
        await self._conn.wait_closed()

    async def do_reconnect(self, _: object) -> None:
        await self._conn.reconnect()

    async def do_aclose(self, code: int) -> None:
        await self._conn.aclose(code)

    async def do_statistics(self, _: object) -> None:
        statistics = self._conn.statistics()
        queues = (statistics.receive_queue, statistics.send_queue, statistics.mailbox)
        if min(*queues, statistics.send_queue_bytes) < 0:
            self._record.fail(f"negative figures: {statistics}")
        str(self._conn.status_report())
