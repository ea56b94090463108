"""The writer decides when queued frames are written, and is the only user of a link's sending side.

If the writer is idle, the task that queues a frame writes it immediately, as far as the socket
accepts it without waiting. For an echo, this saves two rounds of the scheduler. It happens once for
each received chunk. Further frames are written at the end of the scheduler's turn, all in one
write; see :mod:`.fanout`. The writer's task, which is started when it is first needed, writes bytes
that the socket does not accept immediately, and serves links that cannot write without waiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from ..errors import InvalidFrame
from ..frames import Close, Fragment, Frame, Ping, Pong, PreparedMessage
from ..telemetry import EventEmitter
from ..transports import Link, LinkBroken
from ._sync import Waiters, ignore
from .fanout import Fanout
from .fragments.sender import OutgoingMessage
from .send_queue import QueuedFrame, QueuedMessage, SendQueue, checked_frame, size_of

__all__ = ["Writer"]


class Writer:
    """Writes the frames of one connection, over one link after another.

    Args:
        send_queue: holds the frames that cannot be written immediately.
        emitter: emits an event for each frame.
        on_close_written: called after the Close frame has been written, and after each later batch
            of pongs.
        on_failure: called with the error when a write has failed.
        spawn: starts the task.
    """

    __slots__ = (
        "_corked",
        "_direct",
        "_done",
        "_emitter",
        "_fanout",
        "_idle",
        "_immediate",
        "_link",
        "_on_close_written",
        "_on_failure",
        "_scope",
        "_send_queue",
        "_spawn",
        "_unfinished",
        "_work",
        "_writes_now",
    )

    def __init__(
        self,
        send_queue: SendQueue,
        emitter: EventEmitter,
        on_close_written: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._send_queue = send_queue
        self._emitter = emitter
        self._on_close_written = on_close_written
        self._on_failure = on_failure
        self._spawn = spawn
        self._fanout: Fanout | None = None  # that of the run, from the first link on
        self._link: Link | None = None
        self._idle = False  # not corked, and the task is not writing
        self._corked = False
        self._writes_now = False  # the link can write immediately
        self._immediate = False  # the next frame may be written immediately
        self._direct = False  # as _writes_now, and data is not held back
        self._unfinished = False  # the link still has to write a part of the last batch
        # Of the task.
        self._work = Waiters()
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    # The link.

    def attach(self, link: Link, *, held: bool) -> None:
        """Start writing over a new link; data is held back until :meth:`release`.

        Args:
            link: the link.
            held: write nothing until :meth:`resume`.
        """
        self._link = link
        self._fanout = self._fanout or Fanout.current()
        self._fanout.join()
        self._writes_now = link.writes_now
        self._idle = not held
        self._direct = self._unfinished = False
        self.allow_immediate()
        self._send_queue.start_link()

    def resume(self) -> None:
        """Allow control frames to be sent."""
        if self._link is not None:
            self._idle = True
            if self._send_queue.has_work:
                self._wake()

    def release(self) -> None:
        """Allow data to be sent."""
        send_queue = self._send_queue
        send_queue.release()
        self.message_ended()
        if self._idle and send_queue.has_work:
            self._wake()
        send_queue.wake_message()

    def detach(self) -> None:
        """Stop using the link; data that was being written is in doubt."""
        if self._link is not None and self._fanout is not None:
            self._fanout.leave()
        self._link = None
        self._idle = self._corked = self._immediate = self._direct = self._writes_now = False
        self._send_queue.end_link()

    async def stop(self) -> None:
        """Stop the task and wait until it has ended."""
        if self._scope is not None and self._done is not None:
            self._scope.cancel()
            await self._done.wait()
            self._scope = self._done = None

    def release_session(self) -> None:
        """Drop the references to the session, which has ended."""
        self._on_close_written = self._on_failure = ignore

    # Frames.

    def put(self, frame: Frame) -> None:
        """Write or queue a frame other than Close.

        Raises:
            InvalidFrame: ``frame`` is not text, bytes-like or a control frame.
        """
        kind = frame.__class__
        if kind is str or kind is bytes:
            plain = kind is bytes or frame.isascii()  # type: ignore[union-attr]
            size = len(frame) if plain else size_of(frame)  # type: ignore[arg-type]
        elif kind is PreparedMessage:
            size = frame.size  # type: ignore[union-attr]
        elif kind is Ping or kind is Pong:
            self.put_urgent(frame)  # type: ignore[arg-type]
            return
        else:
            self.put(checked_frame(frame))
            return
        if self._direct and self._idle and self._immediate:
            self._write_through(frame, size)  # type: ignore[arg-type]
            return
        self._send_queue.put(frame, size)  # type: ignore[arg-type]
        if self._idle:
            self._wake()

    def put_prepared(self, frame: PreparedMessage, corked: list[Writer]) -> bool:
        """Queue a message of a fan-out, unless the queue is full or closed.

        Args:
            frame: the message.
            corked: an idle writer corks itself and is added to this list. The caller must uncork
                it.

        Returns:
            Whether the message was queued.
        """
        send_queue = self._send_queue
        if send_queue.closed:
            return False
        if send_queue.size >= send_queue.threshold and not self.has_space:
            return False
        if self._idle:
            self._corked, self._idle = True, False
            corked.append(self)
        send_queue.put(frame, frame.size)
        return True

    def put_urgent(self, frame: QueuedFrame) -> None:
        """Write or queue a frame before data."""
        self._send_queue.put_urgent(frame)
        if self._idle:
            self._wake()

    def put_pong(self, frame: Pong) -> None:
        """Write or queue a pong."""
        self._send_queue.put_pong(frame)
        if self._idle:
            self._wake()

    def put_close(self, frame: Close, *, first: bool) -> None:
        """Write or queue the Close frame of the link.

        Args:
            frame: the Close frame.
            first: send it before the queued data, which waits for another link or is dropped.
        """
        self._direct = False
        self._send_queue.put_close(frame, first=first)
        if self._idle:
            self._wake()

    def put_first(self, frames: Sequence[QueuedFrame]) -> None:
        """Write or queue replies ahead of the data that :meth:`release` allows."""
        corks = self.cork()  # if the link ends in the meantime, all or none of them are sent
        for frame in frames:
            if isinstance(frame, QueuedMessage):
                self._send_queue.put_first(frame)
            else:
                self.put_urgent(frame)
        if corks:
            self.uncork()

    # Messages in fragments.

    def hold_data(self, message: OutgoingMessage) -> None:
        """Hold back the data that is queued from now on, until ``message`` ends."""
        self._direct = False
        self._send_queue.hold_data(message)

    @property
    def accepts_fragment(self) -> bool:
        """Whether a fragment of the message may be queued now.

        Raises:
            InvalidFrame: the link cannot send fragments.
        """
        if self._link is None or not self._send_queue.accepts_fragment:
            return False
        if not self._link.takes_fragments:
            raise InvalidFrame("the transport of this connection cannot send async iterables")
        return True

    def put_fragment(self, fragment: Fragment) -> None:
        """Write or queue a fragment of the message."""
        self._send_queue.put_fragment(fragment)
        if self._idle:
            self._wake()

    def release_data(self) -> None:
        """End a message that has not begun, and send the data that it has held back."""
        self._send_queue.end_message()
        if self._idle and self._send_queue.has_work:
            self._wake()

    def message_ended(self) -> None:
        """Allow data to be written immediately, unless it is still held back."""
        send_queue = self._send_queue
        self._direct = self._writes_now and not (
            send_queue.is_paced
            or send_queue.data_held
            or send_queue.message
            or send_queue.close_pending
            or send_queue.close_taken
        )

    def slot_free(self) -> None:
        """Write the data that has waited because of the send rate, at the end of the turn."""
        self._immediate = False
        if self._idle:
            self._wake()

    @property
    def closed(self) -> bool:
        """Whether sends are refused: the connection is closing or closed."""
        return self._send_queue.closed

    @property
    def has_space(self) -> bool:
        """Whether a frame can be queued now. Writes the frames that fill the queue, if possible."""
        self.make_space()
        return not (self._send_queue.closed or self._send_queue.full)

    def make_space(self) -> bool:
        """Write the frames that fill the queue, if they were collected to be written together.

        Returns:
            Whether a sender can queue a frame without waiting.
        """
        send_queue = self._send_queue
        if self._corked and send_queue.is_large:
            self.uncork(immediate=False)
        return send_queue.size < send_queue.threshold

    async def wait_space(self) -> None:
        """Wait for space in the send queue. The caller must then check again."""
        await self._send_queue.wait_space()

    def cork(self) -> bool:
        """Collect the frames queued from now on, to send them in one write.

        Returns:
            Whether this call has corked the writer. A second call has no effect: the first
            :meth:`uncork` writes all collected frames.
        """
        if not self._idle:
            return False
        self._corked, self._idle = True, False
        return True

    def uncork(self, *, immediate: bool = True) -> None:
        """Write the collected frames.

        Args:
            immediate: allow the next frame to be written immediately, not at the end of the turn.
        """
        if self._corked:
            self._corked, self._idle = False, True
            send_queue = self._send_queue
            if self._direct and send_queue.single() is not None:
                size = send_queue.size
                self._write_through(send_queue.take_single(), size)
            elif send_queue.has_work:
                self._immediate = self._writes_now
                self._wake()
        self._immediate = immediate and self._writes_now

    def start_write(self) -> tuple[int, bytes] | None:
        """Uncork the writer for :meth:`Link.start_write`, if it has collected a single frame.

        Returns:
            The result of :meth:`Link.start_write`; the caller must then call :meth:`finish_write`.
            None if nothing was done. No user code runs.
        """
        if not (self._corked and self._direct) or self._emitter.emits_frames:
            return None
        send_queue, link = self._send_queue, self._link
        frame = send_queue.single()
        assert link is not None
        if frame is None or (started := link.start_write(frame)) is None:
            return None
        self._corked = False
        return started

    def finish_write(self, data: bytes, sent: int | OSError) -> None:
        """Continue after :meth:`start_write`; see :meth:`Link.finish_write`."""
        assert self._link is not None
        send_queue = self._send_queue
        size = send_queue.size
        frame = send_queue.take_single()
        self._idle = True
        if self._link.finish_write(data, sent):
            send_queue.put_written()
            self._immediate = self._writes_now
        else:
            self._unfinished = True
            send_queue.put_writing(frame, size)
            self._wake()

    def allow_immediate(self) -> None:
        """Let the next frame be written immediately, if the link supports it."""
        self._immediate = self._writes_now

    # Writing.

    def _write_through(self, frame: QueuedMessage, size: int) -> None:
        """Write a data frame immediately. Call it only if the queue is empty."""
        link, send_queue = self._link, self._send_queue
        assert link is not None
        self._immediate = False
        traced = self._emitter.emits_frames
        if traced:
            self._emit_sent((frame,))
        if link.write_now((frame,) if link.takes_prepared else _unprepared((frame,))):
            send_queue.put_written()
            if not (traced and send_queue.has_work):
                return
            # Frames that a listener has queued follow this frame.
        else:
            self._unfinished = True
            send_queue.put_writing(frame, size)
        self._wake()

    def _wake(self) -> None:
        """Write the queued frames immediately, or wake the task."""
        if self._immediate and not self._unfinished:
            self._immediate = False
            is_blocked = not self._write_now()
            if self._idle and (is_blocked or not self._send_queue.has_work):
                return
        self._idle = False
        if self._writes_now and not self._unfinished:
            assert self._fanout is not None
            self._corked = True
            self._fanout.add(self)
            return
        if self._done is None:
            self._scope, self._done = trio.CancelScope(), trio.Event()
            assert self._link is not None
            self._spawn(partial(self._run, self._link, self._scope, self._done))
        else:
            self._work.unpark()

    def _write_now(self) -> bool:
        """Write a batch; return False if no queued frame may be written over this link now."""
        assert self._link is not None
        batch = self._send_queue.take()
        if not batch:
            return False
        if self._link.write_now(self._prepare(batch)):
            self._wrote()
        else:
            self._unfinished = True
            self._idle = False
        return True

    def _prepare(self, batch: list[QueuedFrame]) -> Sequence[Frame]:
        """Emit the events of a batch and convert it for the link."""
        assert self._link is not None
        if self._emitter.emits_frames:
            self._emit_sent(batch)
        return batch if self._link.takes_prepared else _unprepared(batch)

    def _emit_sent(self, batch: Sequence[QueuedFrame]) -> None:
        """Emit ``FrameSent``; frames that a listener sends are queued after these."""
        idle, self._idle = self._idle, False
        try:
            self._emitter.frames_sent(batch)
        finally:
            self._idle = idle and self._link is not None

    def _wrote(self) -> None:
        self._send_queue.batch_written()
        if self._send_queue.close_taken:
            self._on_close_written()

    async def _run(self, link: Link, scope: trio.CancelScope, done: trio.Event) -> None:
        send_queue, write = self._send_queue, link.write
        try:
            with scope:
                while self._link is link:
                    batch = [] if self._unfinished else send_queue.take()
                    if not (batch or self._unfinished):
                        self._idle = True
                        await self._work.park()
                        continue
                    await write(self._prepare(batch))
                    self._unfinished = False
                    self._wrote()
        except LinkBroken as broken:
            self._on_failure(broken.__cause__ or broken)
        finally:
            done.set()


def _unprepared(batch: Sequence[QueuedFrame]) -> Sequence[Frame]:
    return [frame.message if isinstance(frame, PreparedMessage) else frame for frame in batch]
