"""The heartbeat: detects peers that have stopped sending or reading.

Any received byte counts as a sign of life. While backpressure pauses the reader task, silence is
not counted, and the timeout restarts when the reader resumes. One task checks both directions and
sleeps between the checks, so there are no timers for individual messages.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import trio

from ..disconnect import HeartbeatTimeout
from ..frames import Ping
from ..options import FlowOptions
from ..transports import Link
from ._sync import Waiters
from .links import LinkOwner
from .outgoing import checked_frame
from .send_queue import SendQueue

__all__ = ["LinkHeartbeat", "Pings", "ReadPause"]

MAX_UNANSWERED = 1000
"""Maximum number of pings without a pong; older pings of the heartbeat are then forgotten."""


class Pings:
    """Keeps track of unanswered pings and measures round-trip times on trio's clock.

    A pong also answers all earlier pings, because a peer may answer only the last one (RFC 6455,
    section 5.5.3). Payloads are unique, so a pong from an old link cannot answer a later ping.
    """

    def __init__(self) -> None:
        self.latency: float | None = None
        """The latest round-trip time in seconds."""
        self._sent: dict[bytes, float] = {}
        self._pending_calls: dict[bytes, float | None] = {}
        self._message_sent_at: float | None = None
        self._count = itertools.count()
        self._waiters = Waiters()

    def new_payload(self) -> bytes:
        """Create the payload for a ping that is about to be sent."""
        payload = next(self._count).to_bytes(8)
        self._sent[payload] = trio.current_time()
        if len(self._sent) > MAX_UNANSWERED:
            # Pings that a ping() call waits for are kept.
            oldest = next((old for old in self._sent if old not in self._pending_calls), payload)
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
        if payload not in self._sent:
            return
        now = trio.current_time()
        self.latency = now - self._sent[payload]
        for earlier in list(self._sent):
            sent = self._sent.pop(earlier)
            if earlier in self._pending_calls:
                self._pending_calls[earlier] = now - sent
            if earlier == payload:
                break
        self._waiters.unpark_all()

    async def wait(self, payload: bytes) -> float | None:
        """Wait for a pong; return the round-trip time in seconds, or None if the link ended."""
        self._pending_calls[payload] = None
        try:
            while payload in self._sent:
                await self._waiters.park()
            return self._pending_calls[payload]
        finally:
            del self._pending_calls[payload]
            self.forget(payload)

    def forget(self, payload: bytes) -> None:
        """Remove a ping."""
        self._sent.pop(payload, None)

    def fail_all(self) -> None:
        """Forget all pings and wake their waiters: the link has ended."""
        self._sent.clear()
        self._message_sent_at = None
        self._waiters.unpark_all()


class ReadPause:
    """Whether backpressure pauses the reader task, and how many times it has resumed.

    Args:
        on_change: called with True at the start of each pause and with False at its end.
    """

    __slots__ = (
        "_on_change",
        "paused",
        "resumed_count",
    )

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self.paused: bool = False
        self.resumed_count: int = 0
        self._on_change = on_change

    def __enter__(self) -> None:
        self.paused = True
        self._on_change(True)

    def __exit__(self, *_: object) -> None:
        self.paused = False
        self.resumed_count += 1
        self._on_change(False)


class LinkHeartbeat:
    """Pings the peer of one link and detects when it no longer responds.

    Args:
        owner: called when the peer is dead, or when a user's function raises an exception.
        link: provides the byte counters.
        read_pause: the pauses of the reader task.
        pings: records when pings were sent.
        send_queue: queues the pings and shows the progress of the writer task.
        flow: ``ping_interval``, ``ping_timeout`` and ``write_timeout``.
    """

    __slots__ = (
        "_activity_at_ping",
        "_bytes_sent_at_ping",
        "_interval",
        "_link",
        "_message_heartbeat",
        "_next_ping",
        "_owner",
        "_ping_timeout",
        "_pings",
        "_read_pause",
        "_send_queue",
        "_silence_deadline",
        "_sleep_scope",
        "_stopped",
        "_write_progress",
        "_write_progress_at",
        "_write_timeout",
    )

    def __init__(
        self,
        owner: LinkOwner,
        link: Link,
        read_pause: ReadPause,
        pings: Pings,
        send_queue: SendQueue,
        flow: FlowOptions,
    ) -> None:
        self._owner = owner
        self._link = link
        self._read_pause = read_pause
        self._pings = pings
        self._send_queue = send_queue
        self._message_heartbeat = flow.heartbeat
        self._interval = flow.ping_interval or math.inf
        self._ping_timeout = flow.ping_timeout or math.inf
        self._write_timeout = flow.write_timeout or math.inf
        now = trio.current_time()
        self._next_ping = now + self._interval
        self._silence_deadline = math.inf
        self._activity_at_ping = (0, 0)
        self._bytes_sent_at_ping = 0
        self._write_progress: tuple[int, int] | None = None
        self._write_progress_at = now
        self._sleep_scope = trio.CancelScope()
        self._stopped = False

    async def run(self) -> None:
        """Ping and check until the peer is dead or :meth:`stop` is called."""
        while not self._stopped:
            now = trio.current_time()
            # Checked twice per write_timeout, so detection takes at most 1.5 times as long.
            until = min(self._next_ping, self._silence_deadline, now + self._write_timeout / 2)
            with trio.CancelScope(deadline=until) as self._sleep_scope:
                await trio.sleep_forever()
            if not self._stopped:
                self._check(trio.current_time())

    def _check(self, now: float) -> None:
        timeout = self._check_silence(now) or self._check_writing(now)
        if timeout is not None:
            self._stopped = True
            self._owner.on_heartbeat_timeout(timeout)
        elif now >= self._next_ping:
            try:
                self._ping(now)
            except Exception as error:
                # Raised by MessageHeartbeat.message.
                self._stopped = True
                self._owner.fail(error)

    def stop(self) -> None:
        """Stop :meth:`run`: the link has ended."""
        self._stopped = True
        self._sleep_scope.cancel()

    def _ping(self, now: float) -> None:
        self._next_ping = now + self._interval
        if self._send_queue.closed:
            return
        if self._message_heartbeat is None:
            self._send_queue.put(Ping(self._pings.new_payload()))
        else:
            self._pings.start_message()
            self._send_queue.put_urgent(checked_frame(self._message_heartbeat.message()))
        if self._silence_deadline == math.inf:
            self._silence_deadline = now + self._ping_timeout
            self._activity_at_ping = self._activity()
            self._send_queue.track_urgent()
            self._bytes_sent_at_ping = self._link.bytes_sent

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
        elif self._link.bytes_sent != self._bytes_sent_at_ping:
            # The ping is waiting behind a large write that is making progress.
            self._silence_deadline = now + self._ping_timeout
            self._bytes_sent_at_ping = self._link.bytes_sent
        if now < self._silence_deadline:
            return None
        return HeartbeatTimeout(silence=self._ping_timeout)

    def _check_writing(self, now: float) -> HeartbeatTimeout | None:
        """Return a timeout if the writer task had work but made no progress for too long."""
        progress = (
            (self._link.bytes_sent, self._send_queue.batches) if self._send_queue.writing else None
        )
        if progress is None or progress != self._write_progress:
            self._write_progress, self._write_progress_at = progress, now
        elif now - self._write_progress_at >= self._write_timeout:
            return HeartbeatTimeout(silence=now - self._write_progress_at, writing=True)
        return None
