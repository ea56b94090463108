"""The writer: the one that touches the sending side of a link.

It has two ways. While it has nothing to do, the next frame leaves on the spot, in the step of
whoever queued it, as far as the socket takes it without waiting: no other task can come between,
and an echo is spared two turns of the scheduler. That happens once for each chunk received. What
is queued beyond goes to the writer's task, which is started when it is first needed and sends all
that is there in one write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from ..frames import Frame, PreparedMessage
from ..telemetry import EventEmitter
from ..transports import Link, LinkBroken
from ._sync import Waiters
from .outgoing import OutFrame
from .send_queue import SendQueue

__all__ = ["Writer"]


class Writer:
    """Writes one link.

    Args:
        link: open.
        send queue: of what is to be sent.
        emitter: told every frame.
        said_goodbye: told that our Close frame has left, and again for each batch of pongs after.
        broke: told that the link takes nothing more, and why.
    """

    __slots__ = (
        "_broke",
        "_done",
        "_emitter",
        "_link",
        "_said_goodbye",
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
        said_goodbye: Callable[[], None],
        broke: Callable[[BaseException], None],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._link = link
        self._send_queue = send_queue
        self._emitter = emitter
        self._said_goodbye = said_goodbye
        self._broke = broke
        self._spawn = spawn
        self._unfinished = False  # the link has kept a part of what it was given
        # Of the task: where it waits for work, how it is stopped, and who waits for that.
        self._work = Waiters()
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    def wake(self) -> None:
        """Something is queued, and the writer has had nothing to do."""
        send_queue = self._send_queue
        if send_queue.eager and not self._unfinished:
            send_queue.eager = False
            self._write_now()
            if send_queue.idle and not send_queue.has_work:
                return
        send_queue.idle = False
        if self._done is None:
            self._scope, self._done = trio.CancelScope(), trio.Event()
            self._spawn(partial(self._run, self._scope, self._done))
        else:
            self._work.unpark()

    def write_now(self, frame: OutFrame) -> bool:
        """Write one frame on the spot, or begin to; whether all of it has left."""
        told = self._emitter.frames
        if told:
            self._tell((frame,))
        done = self._link.write_now((frame,) if self._link.takes_prepared else _plain((frame,)))
        if told and self._send_queue.has_work:
            done = False  # a listener has queued something: the task will bring it away
        self._unfinished = not done
        return done

    def _write_now(self) -> None:
        batch = self._send_queue.take()
        if not batch:
            return
        if self._link.write_now(self._fit(batch)):
            self._wrote()
        else:
            self._unfinished = True
            self._send_queue.idle = False

    def _fit(self, batch: list[OutFrame]) -> Sequence[Frame]:
        """The batch as the link takes it."""
        if self._emitter.frames:
            self._tell(batch)
        return batch if self._link.takes_prepared else _plain(batch)

    def _tell(self, batch: Sequence[OutFrame]) -> None:
        """Tell of frames that are about to leave; what a listener sends must not overtake them."""
        send_queue = self._send_queue
        idle, send_queue.idle = send_queue.idle, False
        try:
            self._emitter.frames_sent(batch)
        finally:
            send_queue.idle = idle

    def _wrote(self) -> None:
        self._send_queue.wrote()
        if self._send_queue.close_left:
            self._said_goodbye()

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
                    await write(self._fit(batch))
                    self._unfinished = False
                    self._wrote()
        except LinkBroken as broken:
            self._broke(broken.__cause__ or broken)
        finally:
            done.set()

    async def stop(self) -> None:
        """Write nothing more; returns once that is certain."""
        if self._scope is not None and self._done is not None:
            self._scope.cancel()
            await self._done.wait()


def _plain(batch: Sequence[OutFrame]) -> Sequence[Frame]:
    return [frame.message if isinstance(frame, PreparedMessage) else frame for frame in batch]
