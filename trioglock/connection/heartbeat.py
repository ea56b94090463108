"""The heartbeat: finds peers that fell silent, and peers that stopped reading.

Any received byte is life. While our own backpressure holds the reader task back, the silence of
the peer is no evidence, and its time starts anew when the reader goes on. One task looks after
both directions, and sleeps until there is something to decide: no timer runs for a message.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ..disconnect import HeartbeatTimeout
from ..frames import Ping
from ..options import FlowOptions
from ..transports import Link
from .outgoing import checked_frame
from .owner import Owner
from .pings import Pings
from .send_queue import SendQueue

__all__ = ["Gate", "Heartbeat"]


class Gate:
    """Whether our own backpressure holds the reader task back, and how often it let go.

    Args:
        changed: told every change.
    """

    __slots__ = (
        "_changed",
        "held",
        "releases",
    )

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self.held: bool = False
        self.releases: int = 0
        self._changed = changed

    def __enter__(self) -> None:
        self.held = True
        self._changed(True)

    def __exit__(self, *_: object) -> None:
        self.held = False
        self.releases += 1
        self._changed(False)


class Heartbeat:
    """Watches one link.

    Args:
        owner: told that the peer is dead, or that a function of the user's raised.
        link: its byte counters are the signs of life.
        gate: of the reader task.
        pings: remembers when pings were sent.
        send queue: where pings are queued, and what the writer task works on.
        flow: ``ping_interval``, ``ping_timeout`` and ``write_timeout``.
    """

    __slots__ = (
        "_beat",
        "_evidence",
        "_gate",
        "_interval",
        "_link",
        "_next_ping",
        "_owner",
        "_patience",
        "_pings",
        "_send_queue",
        "_sent",
        "_sleep",
        "_stopped",
        "_verdict",
        "_write_patience",
        "_written",
        "_written_at",
    )

    def __init__(
        self,
        owner: Owner,
        link: Link,
        gate: Gate,
        pings: Pings,
        send_queue: SendQueue,
        flow: FlowOptions,
    ) -> None:
        self._owner = owner
        self._link = link
        self._gate = gate
        self._pings = pings
        self._send_queue = send_queue
        self._beat = flow.heartbeat
        self._interval = flow.ping_interval or math.inf
        self._patience = flow.ping_timeout or math.inf
        self._write_patience = flow.write_timeout or math.inf
        now = trio.current_time()
        self._next_ping = now + self._interval
        self._verdict = math.inf
        self._evidence = (0, 0)
        self._sent = 0
        self._written: tuple[int, int] | None = None
        self._written_at = now
        self._sleep = trio.CancelScope()
        self._stopped = False

    async def watch(self) -> None:
        """Ping and watch until the peer must be taken for dead, or :meth:`stop`."""
        while not self._stopped:
            now = trio.current_time()
            # Writing is looked at twice within its time, which makes it at most half as long again.
            until = min(self._next_ping, self._verdict, now + self._write_patience / 2)
            with trio.CancelScope(deadline=until) as self._sleep:
                await trio.sleep_forever()
            if not self._stopped:
                self._look(trio.current_time())

    def _look(self, now: float) -> None:
        expired = self._judge(now) or self._judge_writing(now)
        if expired is not None:
            self._stopped = True
            self._owner.expired(expired)
        elif now >= self._next_ping:
            try:
                self._ping(now)
            except Exception as error:
                # Of the user's function that makes the message.
                self._stopped = True
                self._owner.crash(error)

    def stop(self) -> None:
        """The link has ended."""
        self._stopped = True
        self._sleep.cancel()

    def _ping(self, now: float) -> None:
        self._next_ping = now + self._interval
        if self._send_queue.closed:
            return
        if self._beat is None:
            self._send_queue.put(Ping(self._pings.new_payload()))
        else:
            self._pings.beat()
            self._send_queue.put_urgent(checked_frame(self._beat.message()))
        if self._verdict == math.inf:
            self._verdict = now + self._patience
            self._evidence = self._life()
            self._send_queue.watch()
            self._sent = self._link.bytes_sent

    def _life(self) -> tuple[int, int]:
        return self._link.bytes_received, self._gate.releases

    def _judge(self, now: float) -> HeartbeatTimeout | None:
        """Whether the peer has been silent for too long after a ping."""
        if now < self._verdict:
            return None
        if self._life() != self._evidence:
            self._verdict = math.inf
            return None
        left_at = self._send_queue.watched_at
        if self._gate.held:
            self._verdict = now + self._patience
        elif left_at is not None:
            # The peer's time began when the ping had left.
            self._verdict = left_at + self._patience
        elif self._link.bytes_sent != self._sent:
            # It waits behind a large write that gets on: a slow line is no death.
            self._verdict = now + self._patience
            self._sent = self._link.bytes_sent
        if now < self._verdict:
            return None
        return HeartbeatTimeout(silence=self._patience)

    def _judge_writing(self, now: float) -> HeartbeatTimeout | None:
        """Whether the writer task has had work and got nothing away for too long."""
        written = (
            (self._link.bytes_sent, self._send_queue.batches) if self._send_queue.writing else None
        )
        if written is None or written != self._written:
            self._written, self._written_at = written, now
        elif now - self._written_at >= self._write_patience:
            return HeartbeatTimeout(silence=now - self._written_at, writing=True)
        return None
