"""The heartbeat: detects peers that have stopped sending or reading.

Any received byte counts as a sign of life. While backpressure pauses the reader task, silence is
not counted, and the timeout restarts when the reader resumes. A peer is declared dead only after a
second check. If the program was blocked or suspended, this check is delayed by the length of the
pause, so that the readers can catch up; see :mod:`trioglock._timer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context

import trio

from ..._timer import Entry, current_timer
from ...disconnect import HeartbeatTimeout
from ...frames import Ping
from ...options import FlowOptions
from ...transports import Link
from .._sync import NO_WAITERS
from ..send_queue import SendQueue, checked_frame
from ..writer import Writer

__all__ = ["LinkHeartbeat", "Pings", "ReadPause"]

MAX_UNANSWERED = 1000
"""Maximum number of pings without a pong; beyond it, the oldest heartbeat ping is discarded."""


class Pings:
    """Keeps track of unanswered pings and measures round-trip times on trio's clock.

    A pong also answers all earlier pings, because a peer may answer only the last one (RFC 6455,
    section 5.5.3). Payloads are unique, so a pong from an old link cannot answer a later ping.
    """

    __slots__ = ("_count", "_message_sent_at", "_pending_calls", "_sent", "_waiters", "latency")

    def __init__(self) -> None:
        self.latency: float | None = None
        """The latest round-trip time in seconds."""
        self._sent: dict[bytes, float] | None = None  # while there are any
        self._pending_calls: dict[bytes, float | None] | None = None  # from the first wait()
        self._message_sent_at: float | None = None
        self._count = 0
        self._waiters = NO_WAITERS

    def new_payload(self) -> bytes:
        """Create the payload for a ping that is about to be sent."""
        payload = self._count.to_bytes(8)
        self._count += 1
        sent = self._sent = self._sent or {}
        sent[payload] = trio.current_time()
        if len(sent) > MAX_UNANSWERED:
            # Pings that a ping() call is waiting for are kept.
            waiting = self._pending_calls or ()
            oldest = next((old for old in sent if old not in waiting), payload)
            if oldest != payload:
                self.forget(oldest)
        return payload

    def start_message(self) -> None:
        """Record that a heartbeat message is about to be sent."""
        self._message_sent_at = trio.current_time()

    def message_answered(self) -> None:
        """Record the answer to the heartbeat message."""
        if self._message_sent_at is not None:
            self.latency = trio.current_time() - self._message_sent_at
            self._message_sent_at = None

    def pong_received(self, payload: bytes) -> None:
        """Record a pong."""
        sent, waiting = self._sent, self._pending_calls
        if sent is None or payload not in sent:
            return
        now = trio.current_time()
        self.latency = now - sent[payload]
        for earlier in list(sent):
            seconds = now - sent.pop(earlier)
            if waiting is not None and earlier in waiting:
                waiting[earlier] = seconds
            if earlier == payload:
                break
        self._sent = sent or None
        self._waiters.unpark_all()

    async def wait(self, payload: bytes) -> float | None:
        """Wait for a pong; return the round-trip time in seconds, or None if the link ended."""
        waiting = self._pending_calls = self._pending_calls or {}
        waiting[payload] = None
        self._waiters = self._waiters.own()
        try:
            while self._sent is not None and payload in self._sent:
                await self._waiters.park()
            return waiting[payload]
        finally:
            del waiting[payload]
            self.forget(payload)

    def forget(self, payload: bytes) -> None:
        """Remove a ping."""
        if self._sent is not None:
            self._sent.pop(payload, None)

    def fail_all(self) -> None:
        """Discard all pings and wake their waiters: the link has ended."""
        self._sent = None
        self._message_sent_at = None
        self._waiters.unpark_all()


class ReadPause:
    """Whether backpressure is pausing the reader task, and when it last resumed."""

    __slots__ = ("paused", "resumed_at", "resumed_count")

    def __init__(self) -> None:
        self.paused: bool = False
        self.resumed_at: float = -math.inf
        self.resumed_count: int = 0

    def __enter__(self) -> None:
        self.paused = True

    def __exit__(self, *_: object) -> None:
        self.paused = False
        self.resumed_at = trio.current_time()
        self.resumed_count += 1


class LinkHeartbeat:
    """Pings the peer of one link and detects when it no longer responds.

    Args:
        link: provides the byte counters.
        read_pause: the pauses of the reader task.
        pings: records when pings were sent.
        send_queue: shows the progress of the writer.
        writer: sends the pings.
        flow: ``ping_interval``, ``ping_timeout`` and ``write_timeout``.
        on_timeout: called when the peer is dead.
        on_failure: called with an exception raised by a user's function.
    """

    __slots__ = (
        "_activity_at_ping",
        "_bytes_sent_at_ping",
        "_context",
        "_entry",
        "_flow",
        "_link",
        "_next_ping",
        "_on_failure",
        "_on_timeout",
        "_pings",
        "_read_pause",
        "_send_queue",
        "_silence_deadline",
        "_write_progress",
        "_write_progress_at",
        "_writer",
        "is_suspect",
        "stopped",
    )

    def __init__(
        self,
        link: Link,
        read_pause: ReadPause,
        pings: Pings,
        send_queue: SendQueue,
        writer: Writer,
        flow: FlowOptions,
        on_timeout: Callable[[HeartbeatTimeout], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.stopped: bool = False
        self.is_suspect: bool = False
        """Whether the next check decides whether the peer is dead."""
        self._link = link
        self._read_pause = read_pause
        self._pings = pings
        self._send_queue = send_queue
        self._writer = writer
        self._flow = flow
        self._on_timeout = on_timeout
        self._on_failure = on_failure
        now = trio.current_time()
        self._next_ping = now + (flow.ping_interval or math.inf)
        self._silence_deadline = math.inf
        self._activity_at_ping = (0, 0)
        self._bytes_sent_at_ping = 0
        self._write_progress: tuple[int, int] | None = None
        self._write_progress_at = now
        # User code runs in the context of the connection's task.
        self._context: Context = trio.lowlevel.current_task().context
        self._entry: Entry | None = None

    def start(self) -> None:
        """Start pinging and checking."""
        due = self._next_check(trio.current_time())
        if due < math.inf:
            self._entry = current_timer().add(self, due)

    def stop(self) -> None:
        """Stop: the link has ended."""
        self.stopped = True
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)

    def _next_check(self, now: float) -> float:
        # Writes are checked twice per write_timeout, so detection takes at most 1.5 times as long.
        write_check = now + (self._flow.write_timeout or math.inf) / 2
        return min(self._next_ping, self._silence_deadline, write_check)

    def check(self, now: float, due: float) -> float:
        """Ping, or detect that the peer is dead; see :meth:`Timed.check`."""
        try:
            timeout = self._check_silence(now) or self._check_writing(now)
            if timeout is None:
                self.is_suspect = False
            elif not self.is_suspect:
                self.is_suspect = True
                return now + (now - due)
            else:
                self.stop()
                self._context.run(self._on_timeout, timeout)
                return math.inf
            if now >= self._next_ping:
                self._context.run(self._ping, now)
        except BaseException as error:
            # Raised by MessageHeartbeat.message, or a KeyboardInterrupt in a listener.
            self.stop()
            self._context.run(self._on_failure, error)
            return math.inf
        return self._next_check(now)

    def _ping(self, now: float) -> None:
        self._next_ping = now + (self._flow.ping_interval or math.inf)
        send_queue = self._send_queue
        if send_queue.closed or send_queue.urgent_held:
            return
        if self._flow.heartbeat is not None and send_queue.message:
            # A heartbeat message cannot be sent between the fragments of another message.
            return
        # This comes before the ping, which may be written immediately.
        if self._silence_deadline == math.inf:
            self._silence_deadline = now + self._ping_timeout
            self._activity_at_ping = self._activity()
            self._send_queue.track_urgent()
            self._bytes_sent_at_ping = self._link.bytes_sent
        if self._flow.heartbeat is None:
            self._writer.put_urgent(Ping(self._pings.new_payload()))
        else:
            self._pings.start_message()
            self._writer.put_urgent(checked_frame(self._flow.heartbeat.message()))

    @property
    def _ping_timeout(self) -> float:
        return self._flow.ping_timeout or math.inf

    def _activity(self) -> tuple[int, int]:
        return self._link.bytes_received, self._read_pause.resumed_count

    def _check_silence(self, now: float) -> HeartbeatTimeout | None:
        """Return a timeout if the peer was silent for too long after a ping."""
        if now < self._silence_deadline:
            return None
        if self._activity() != self._activity_at_ping:
            self._silence_deadline = math.inf
            return None
        pings_written_at = self._send_queue.urgent_written_at
        if self._read_pause.paused:
            self._silence_deadline = now + self._ping_timeout
        elif pings_written_at is not None:
            # The timeout starts when the ping has been written.
            self._silence_deadline = pings_written_at + self._ping_timeout
        elif self._link.bytes_sent != self._bytes_sent_at_ping or self._send_queue.urgent_held:
            # The ping is waiting for a large write that is making progress, or for its turn.
            self._silence_deadline = now + self._ping_timeout
            self._bytes_sent_at_ping = self._link.bytes_sent
        if now < self._silence_deadline:
            return None
        return HeartbeatTimeout(silence=self._ping_timeout)

    def _check_writing(self, now: float) -> HeartbeatTimeout | None:
        """Return a timeout if the writer had work but made no progress for too long."""
        progress = (
            (self._link.bytes_sent, self._send_queue.batches) if self._send_queue.writing else None
        )
        if progress is None or progress != self._write_progress:
            self._write_progress, self._write_progress_at = progress, now
        elif now - self._write_progress_at >= (self._flow.write_timeout or math.inf):
            return HeartbeatTimeout(silence=now - self._write_progress_at, writing=True)
        return None
