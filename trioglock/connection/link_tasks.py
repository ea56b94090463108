"""The span of one link: its reader, writer and heartbeat, from the upgrade to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Link
from .actor import Actor
from .deadlines import Deadlines
from .heartbeat import Gate, Heartbeat
from .hook_results import HookResults
from .owner import Owner
from .pings import Pings
from .reader import Reader
from .send_queue import SendQueue
from .writer import Writer

__all__ = ["LinkTasks"]


class LinkTasks:
    """Runs the tasks of one link.

    Args:
        session: told what happens.
        link: open.
        actor: gets what is received.
        effects: carry out what hooks ask for.
        send queue: of what is to be sent; it outlives the link.
        pings: that wait for their pongs.
        flow: time-outs and limits.
        deadlines: of closing.
        emitter: told every frame.
        spawn: starts a task.
    """

    __slots__ = (
        "_deadlines",
        "_gate",
        "_heartbeat",
        "_reader",
        "_replaced",
        "_send_queue",
        "_session",
        "_spawn",
        "_writer",
        "began",
        "broken",
        "link",
    )

    def __init__(
        self,
        session: Owner,
        link: Link,
        actor: Actor[Any],
        effects: HookResults,
        send_queue: SendQueue,
        pings: Pings,
        flow: FlowOptions,
        deadlines: Deadlines,
        emitter: EventEmitter,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.link: Link = link
        self.began: float = trio.current_time()
        self.broken: BaseException | None = None
        """How the stream broke, if it did."""
        self._replaced = False  # senders wait for the next link: this one is not kept for long
        self._session = session
        self._send_queue = send_queue
        self._deadlines = deadlines
        self._spawn = spawn
        self._gate = Gate(self._held)
        self._writer = Writer(
            link, send_queue, emitter, self._said_goodbye, self._write_broke, spawn
        )
        send_queue.attach(self._writer.wake, self._writer.write_now if link.writes_now else None)
        self._heartbeat = Heartbeat(session, link, self._gate, pings, send_queue, flow)
        self._reader = Reader(
            session, link, actor, effects, send_queue, pings, self._gate, emitter, flow
        )

    async def run(self) -> None:
        """Read, write and watch until the link has ended."""
        self._spawn(self._heartbeat.watch)
        try:
            seen = await self._reader.read()
            if seen.error is None and self.broken is None and self._session.has_peer_closed:
                # A peer that has ended its side may still read our confirmation.
                await self._send_queue.wait_close_written()
            self.broken = seen.error or self.broken
        finally:
            self._heartbeat.stop()
            with trio.CancelScope(shield=True):
                await self._writer.stop()

    @property
    def figures(self) -> tuple[int, int, int]:
        """Bytes sent and received on the wire, and messages received."""
        return self.link.bytes_sent, self.link.bytes_received, self._reader.messages

    def _said_goodbye(self) -> None:
        if self._session.has_peer_closed:
            self._deadlines.linger()

    def _write_broke(self, error: BaseException) -> None:
        # What the peer sent before it went is still readable: the reader finds the end.
        self.broken = error
        self._send_queue.detach()
        self._replaced = self._session.write_broke()
        if self._replaced or not self._gate.held:
            self._deadlines.limit_link()

    def _held(self, held: bool) -> None:
        """Our own backpressure has stopped the reader, or let it go."""
        if self.broken is None or self._replaced:
            return
        # The end of a broken stream is near, but behind what the program has not taken yet.
        if held:
            self._deadlines.lift_link()
        else:
            self._deadlines.limit_link()
