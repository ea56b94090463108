"""The calls that a program makes on its connection, each with what may come out of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tests.machines.hooks import Say
from tests.machines.links import Net
from tests.machines.notebook import Boom, Notebook, Offer, frame_of, label_of
from tests.machines.programs import Setup
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
    "send": (ConnectionClosed, Boom, BadHookResult),
    "send_nowait": (ConnectionClosed, Boom, BadHookResult, trio.WouldBlock, UsageError),
    "receive_nowait": (ConnectionClosed, trio.WouldBlock),
    "call": (ConnectionClosed, Boom, BadHookResult, CallTimeout, UsageError),
    "cast": (ConnectionClosed, UsageError),
    "cast_after": (ConnectionClosed, UsageError),
    "wait_closed": (),
    "aclose": (),
    "abort": (),
    "figures": (),
}
"""What may come out of each call; ConnectionClosed out of all others."""


class Calls:
    """One method for each call, named like the step."""

    def __init__(self, setup: Setup, notes: Notebook, net: Net, conn: Connection[Any]) -> None:
        self._setup = setup
        self._notes = notes
        self._net = net
        self._conn = conn

    async def make(self, what: str, arg: Any) -> None:
        """Make a call, and blame it for what may not come out of it."""
        try:
            await getattr(self, f"do_{what}")(arg)
        except EXPECTED.get(what, (ConnectionClosed,)):
            pass
        except Exception as error:
            self._notes.blame(f"{what}({arg!r}) raised {error!r}")

    def _message(self, word: str, size: int) -> tuple[Any, Offer]:
        """What to send, with the offer that it makes."""
        if "handle_send" not in self._setup.hooks:
            offer = self._notes.offer(1)
            return frame_of(offer.labels[0], size, binary=size == 3), offer
        offer = self._notes.offer({"none": 0, "many": 3}.get(word, 1))
        return Say(self._notes.label("t"), word, size, offer), offer

    async def _offer(self, offer: Offer, send: Callable[[], Awaitable[object]]) -> None:
        try:
            await send()
        except Exception:
            offer.taken = False
            raise
        else:
            offer.taken = True
        finally:
            offer.ended = self._notes.tick()

    async def do_send(self, arg: tuple[str, int]) -> None:
        message, offer = self._message(*arg)
        await self._offer(offer, lambda: self._conn.send(message))

    async def do_send_nowait(self, arg: tuple[str, int]) -> None:
        message, offer = self._message(*arg)

        async def send() -> None:
            self._conn.send_nowait(message)

        await self._offer(offer, send)

    async def do_send_frame(self, kind: str) -> None:
        offer = self._notes.offer(1 if kind in ("text", "bytes") else 0)
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
        self._notes.taken.append(label_of(await self._conn.receive()))

    async def do_receive_nowait(self, _: object) -> None:
        self._notes.taken.append(label_of(self._conn.receive_nowait()))

    async def do_receive_batch(self, _: object) -> None:
        batch = await self._conn.receive_batch()
        if not batch:
            self._notes.blame("an empty batch")
        self._notes.taken.extend(map(label_of, batch))

    async def do_iterate(self, count: int) -> None:
        async for item in self._conn:
            self._notes.taken.append(label_of(item))
            count -= 1
            if not count:
                return

    async def do_cast(self, word: str) -> None:
        self._conn.cast(Say(self._notes.label("c"), word))

    async def do_cast_after(self, arg: tuple[float, str]) -> None:
        seconds, word = arg
        self._conn.cast_after(seconds, Say(self._notes.label("c"), word))

    async def do_call(self, arg: tuple[str, float | None]) -> None:
        word, timeout = arg
        label = self._notes.label("q")
        answer = await self._conn.call(Say(label, word), timeout=timeout)
        if answer != label:
            self._notes.blame(f"call() of {label} got the answer {answer!r}")

    async def do_background(self, word: str) -> None:
        async def task() -> None:
            if word == "nap":
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(3)
            if word == "raise":
                error = Boom("in the background")
                self._notes.lost_track = True
                self._notes.raised.append(error)
                raise error

        self._conn.start_soon(task)

    async def do_ping(self, _: object) -> None:
        if await self._conn.ping() < 0:
            self._notes.blame("a negative round trip")

    async def do_flush(self, _: object) -> None:
        began = self._notes.tick()
        # What a broken write has put in doubt before is not queued any more.
        settled = {label for link in self._net.links for label in link.in_doubt}
        await self._conn.flush()
        settled |= {label for link in self._net.links for label in link.written}
        for offer in self._notes.offers:
            early = offer.ended is not None and offer.ended < began and offer.taken
            if early and not settled.issuperset(offer.labels):
                self._notes.blame(f"flush() returned, but {offer.labels} are not written")

    async def do_wait_closed(self, _: object) -> None:
        await self._conn.wait_closed()

    async def do_reconnect(self, _: object) -> None:
        await self._conn.reconnect()

    async def do_aclose(self, code: int) -> None:
        await self._conn.aclose(code)

    async def do_figures(self, _: object) -> None:
        figures = self._conn.statistics()
        if (
            min(
                figures.receive_queue, figures.send_queue, figures.send_queue_bytes, figures.mailbox
            )
            < 0
        ):
            self._notes.blame(f"negative figures: {figures}")
        str(self._conn.status_report())
