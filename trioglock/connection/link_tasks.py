"""The tasks of one link: reader, writer and heartbeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..options import FlowOptions
from ..telemetry import EventEmitter
from ..transports import Link
from .actor import Actor
from .deadlines import Deadlines
from .heartbeat import LinkHeartbeat, Pings, ReadPause
from .hook_results import HookResults
from .links import LinkOwner
from .reader import Reader
from .send_queue import SendQueue
from .writer import Writer

__all__ = ["LinkTasks"]


class LinkTasks:
    """Runs the tasks of one link.

    Args:
        owner: receives the link's events.
        link: the open link.
        actor: receives the messages.
        results: applies the results of hooks.
        send_queue: the frames to send; it outlives the link.
        pings: the pings without a pong.
        flow: timeouts and limits.
        deadlines: the deadlines of the close.
        emitter: emits an event for each frame.
        spawn: starts a task.
    """

    __slots__ = (
        "_another_link_expected",
        "_deadlines",
        "_heartbeat",
        "_owner",
        "_read_pause",
        "_reader",
        "_send_queue",
        "_spawn",
        "_writer",
        "began",
        "error",
        "link",
    )

    def __init__(
        self,
        owner: LinkOwner,
        link: Link,
        actor: Actor[Any],
        results: HookResults,
        send_queue: SendQueue,
        pings: Pings,
        flow: FlowOptions,
        deadlines: Deadlines,
        emitter: EventEmitter,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.link: Link = link
        self.began: float = trio.current_time()
        self.error: BaseException | None = None
        """The error that broke the stream, or None."""
        self._another_link_expected = False  # the session reconnects
        self._owner = owner
        self._send_queue = send_queue
        self._deadlines = deadlines
        self._spawn = spawn
        self._read_pause = ReadPause(self._on_pause_changed)
        self._writer = Writer(
            link, send_queue, emitter, self._on_close_sent, self._on_write_failed, spawn
        )
        send_queue.attach(self._writer.wake, self._writer.write_now if link.writes_now else None)
        self._heartbeat = LinkHeartbeat(owner, link, self._read_pause, pings, send_queue, flow)
        self._reader = Reader(
            owner, link, actor, results, send_queue, pings, self._read_pause, emitter, flow
        )

    async def run(self) -> None:
        """Read, write and ping until the link has ended."""
        self._spawn(self._heartbeat.run)
        try:
            end = await self._reader.read()
            if end.error is None and self.error is None and self._owner.has_peer_closed:
                # A peer that has ended its sending side may still read our Close frame.
                await self._send_queue.wait_close_written()
            self.error = end.error or self.error
        finally:
            self._heartbeat.stop()
            with trio.CancelScope(shield=True):
                await self._writer.stop()

    @property
    def counters(self) -> tuple[int, int, int]:
        """Bytes sent, bytes received and messages received."""
        return self.link.bytes_sent, self.link.bytes_received, self._reader.messages

    def _on_close_sent(self) -> None:
        if self._owner.has_peer_closed:
            self._deadlines.linger()

    def _on_write_failed(self, error: BaseException) -> None:
        # Data that the peer sent earlier is still readable; the reader detects the end.
        self.error = error
        self._send_queue.detach()
        self._another_link_expected = self._owner.on_write_failed()
        if self._another_link_expected or not self._read_pause.paused:
            self._deadlines.limit_link()

    def _on_pause_changed(self, paused: bool) -> None:
        """Handle the start or end of a pause of the reader due to backpressure."""
        if self.error is None or self._another_link_expected:
            return
        # The end of a broken stream comes after messages that wait to be received.
        if paused:
            self._deadlines.lift_link()
        else:
            self._deadlines.limit_link()
