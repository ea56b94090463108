"""Detects links on which no data arrives although the peer is alive.

The heartbeat detects dead peers; this module detects peers that answer pings but have stopped
sending messages, as feeds sometimes do. Pings, pongs and the answers to heartbeat messages are not
data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context

import trio

from ..._timer import Entry, current_timer
from ...disconnect import Stalled
from ...options import StallTimeout
from ...transports import Link
from ..send_queue import SendQueue
from .heartbeat import ReadPause

__all__ = ["StallWatch"]

CHECKS = 4
"""How many times per timeout the user's function is called and the progress of a large message is
checked."""


class StallWatch:
    """Detects that one link has stalled.

    Silence is measured from the latest of: when data last arrived, when the reader last resumed
    after a pause, and when the checks began to report, without interruption, that silence is
    abnormal. Silence is not measured while ``send_rate`` delays the first message of the link,
    because a peer may send no data before it receives a request.

    Args:
        link: the link.
        read_pause: the pauses of the reader task.
        send_queue: shows whether the link is closing.
        timeout: ``stall_timeout``.
        on_stall: called when the link has stalled.
        on_failure: called with an exception raised by the user's function.
    """

    __slots__ = (
        "_abnormal_since",
        "_context",
        "_entry",
        "_latest",
        "_link",
        "_on_failure",
        "_on_stall",
        "_partial",
        "_read_pause",
        "_seconds",
        "_send_queue",
        "_step",
        "_when",
        "_written",
        "is_suspect",
    )

    def __init__(
        self,
        link: Link,
        read_pause: ReadPause,
        send_queue: SendQueue,
        timeout: StallTimeout,
        on_stall: Callable[[Stalled], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.is_suspect: bool = False
        """True if the next check is the final one."""
        self._link = link
        self._read_pause = read_pause
        self._send_queue = send_queue
        self._seconds = timeout.seconds
        self._step = timeout.seconds / CHECKS
        self._when = timeout.when
        self._on_stall = on_stall
        self._on_failure = on_failure
        self._latest = trio.current_time()
        self._abnormal_since = math.inf
        self._partial: object = None
        self._written = send_queue.written  # over earlier links
        # User code runs in the context of the connection's task.
        self._context: Context = trio.lowlevel.current_task().context
        self._entry: Entry | None = None

    def start(self) -> None:
        """Start checking; the first check runs immediately."""
        now = trio.current_time()
        self._entry = current_timer().add(self, now)

    def stop(self) -> None:
        """Stop checking: the link has ended."""
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)

    def data_received(self) -> None:
        """Record that data has arrived."""
        self._latest = trio.current_time()

    def check(self, now: float, due: float) -> float:
        """Check whether no data has arrived for too long; see :meth:`Timed.check`."""
        try:
            end = self._end_of_silence(now, due)
        except BaseException as error:
            # Raised by StallTimeout.when.
            self.stop()
            self._context.run(self._on_failure, error)
            return math.inf
        if now < end:
            self.is_suspect = False
            return min(now + self._step, end)
        if not self.is_suspect:
            # Give the readers as much time as the program spent blocked or suspended.
            self.is_suspect = True
            return now + min(now - due, self._seconds)
        self.stop()
        self._context.run(self._on_stall, Stalled(seconds=self._seconds))
        return math.inf

    def _end_of_silence(self, now: float, due: float) -> float:
        """Return when the link will have stalled if no data arrives by then."""
        if self._send_queue.closing:
            return math.inf  # the close has a separate deadline
        partial, queue = self._link.partial, self._send_queue
        if (
            self._read_pause.paused
            or (partial is not None and partial != self._partial)
            or (queue.data_waits and queue.written == self._written)
        ):
            self._latest = now
        self._partial = partial
        if self._when is None:
            self._abnormal_since = -math.inf
        elif not self._context.run(self._when):
            self._abnormal_since = math.inf
        elif self._abnormal_since == math.inf or now - due > self._step:
            # After a pause of the program, it is unknown whether silence was normal during the
            # pause.
            self._abnormal_since = now
        start = max(self._latest, self._abnormal_since, self._read_pause.resumed_at)
        return start + self._seconds
