"""The writer: the only user of a link's sending side.

A frame is written in one of two ways. If the writer is idle, the task that queues the frame writes
it immediately, as far as the socket accepts it without waiting. For an echo, this saves two rounds
of the scheduler. It happens once for each received chunk. Further frames are left to the writer's
task, which sends all queued frames in one write. The task is started when it is first needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from ..frames import Frame, PreparedMessage
from ..telemetry import EventEmitter
from ..transports import Link, LinkBroken
from ._sync import Waiters
from .outgoing import QueuedFrame
from .send_queue import SendQueue

__all__ = ["Writer"]


class Writer:
    """Writes one link.

    Args:
        link: the open link.
        send_queue: the frames to send.
        emitter: emits an event for each frame.
        on_close_sent: called after the Close frame was written, and after each later batch of
            pongs.
        on_failure: called with the error when a write has failed.
        spawn: starts the task.
    """

    __slots__ = (
        "_done",
        "_emitter",
        "_link",
        "_on_close_sent",
        "_on_failure",
        "_scope",
        "_send_queue",
        "_spawn",
        "_unfinished",
        "_work",
    )

    def __init__(
        self,
        link: Link,
        send_queue: SendQueue,
        emitter: EventEmitter,
        on_close_sent: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._link = link
        self._send_queue = send_queue
        self._emitter = emitter
        self._on_close_sent = on_close_sent
        self._on_failure = on_failure
        self._spawn = spawn
        self._unfinished = False  # the link still has to write a part of the last batch
        # Of the task.
        self._work = Waiters()
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    def wake(self) -> None:
        """Write the queued frames immediately, or wake the task."""
        send_queue = self._send_queue
        if send_queue.immediate_allowed and not self._unfinished:
            send_queue.immediate_allowed = False
            self._write_now()
            if send_queue.idle and not send_queue.has_work:
                return
        send_queue.idle = False
        if self._done is None:
            self._scope, self._done = trio.CancelScope(), trio.Event()
            self._spawn(partial(self._run, self._scope, self._done))
        else:
            self._work.unpark()

    def write_now(self, frame: QueuedFrame) -> bool:
        """Write as much of one frame as possible without waiting; return whether it was all."""
        traced = self._emitter.emits_frames
        if traced:
            self._emit_sent((frame,))
        done = self._link.write_now(
            (frame,) if self._link.takes_prepared else _unprepared((frame,))
        )
        if traced and self._send_queue.has_work:
            done = False  # queued by a listener; the task writes it
        self._unfinished = not done
        return done

    def _write_now(self) -> None:
        batch = self._send_queue.take()
        if not batch:
            return
        if self._link.write_now(self._prepare(batch)):
            self._wrote()
        else:
            self._unfinished = True
            self._send_queue.idle = False

    def _prepare(self, batch: list[QueuedFrame]) -> Sequence[Frame]:
        """Emit the events of a batch and convert it for the link."""
        if self._emitter.emits_frames:
            self._emit_sent(batch)
        return batch if self._link.takes_prepared else _unprepared(batch)

    def _emit_sent(self, batch: Sequence[QueuedFrame]) -> None:
        """Emit ``FrameSent``; frames that a listener sends meanwhile are queued after these."""
        send_queue = self._send_queue
        idle, send_queue.idle = send_queue.idle, False
        try:
            self._emitter.frames_sent(batch)
        finally:
            send_queue.idle = idle

    def _wrote(self) -> None:
        self._send_queue.batch_written()
        if self._send_queue.close_taken:
            self._on_close_sent()

    async def _run(self, scope: trio.CancelScope, done: trio.Event) -> None:
        send_queue, write = self._send_queue, self._link.write
        try:
            with scope:
                while True:
                    batch = [] if self._unfinished else send_queue.take()
                    if not (batch or self._unfinished):
                        send_queue.idle = True
                        await self._work.park()
                        continue
                    await write(self._prepare(batch))
                    self._unfinished = False
                    self._wrote()
        except LinkBroken as broken:
            self._on_failure(broken.__cause__ or broken)
        finally:
            done.set()

    async def stop(self) -> None:
        """Stop the task and wait until it has ended."""
        if self._scope is not None and self._done is not None:
            self._scope.cancel()
            await self._done.wait()


def _unprepared(batch: Sequence[QueuedFrame]) -> Sequence[Frame]:
    return [frame.message if isinstance(frame, PreparedMessage) else frame for frame in batch]
