"""Limits on the messages and bytes per second that a client sends, without I/O."""

from __future__ import annotations

import math
from typing import Any

import trio

from ...frames import Close, Event, Fragment, Violation
from ...options import Rate

__all__ = ["RateLimiter"]

PATIENCE = 10
"""How many periods (``Rate.per``) longer a peer may be slowed down than not slowed down, in total,
before its link ends."""

PARTS = 64
"""Reading continues when the peer may send 1 / ``PARTS`` of the limit at once."""

TOLERANCE = 1e-6
"""Missing tokens that are ignored, because the refill is not exact."""


class _Bucket:
    """A token bucket, which a large message may overdraw."""

    __slots__ = ("_tokens", "_updated", "per", "rate", "size")

    def __init__(self, rate: Rate) -> None:
        self.size = rate.messages
        self.per = rate.per
        self.rate = rate.messages / rate.per
        self._tokens = float(rate.messages)
        self._updated = -math.inf

    def tokens(self, now: float) -> float:
        self._tokens = min(self.size, self._tokens + (now - self._updated) * self.rate)
        self._updated = now
        return self._tokens

    def take(self, count: int, now: float) -> None:
        # Time that has passed must not refill the bucket above its size.
        self._tokens = self.tokens(now) - count

    def delay(self, wanted: int, now: float) -> float:
        """Return the seconds until there are ``wanted`` tokens."""
        missing = wanted - self.tokens(now)
        return missing / self.rate if missing > TOLERANCE else 0.0


class RateLimiter:
    """Holds back the events of one link that exceed a rate.

    Each data message, ping or pong takes a token of ``message_rate``. Each byte on the wire takes a
    token of ``byte_rate``; bytes that exceed this rate are passed on, and delay the next read.

    Args:
        message_rate: the limit on messages and control frames, None for no limit.
        byte_rate: the limit on bytes, None for no limit.
    """

    __slots__ = (
        "_bytes",
        "_bytes_seen",
        "_events",
        "_messages",
        "_patience",
        "_resumed",
        "_slowed",
        "_waiting",
    )

    def __init__(self, message_rate: Rate | None, byte_rate: Rate | None) -> None:
        self._messages = None if message_rate is None else _Bucket(message_rate)
        self._bytes = None if byte_rate is None else _Bucket(byte_rate)
        self._patience = PATIENCE * max(rate.per for rate in (message_rate, byte_rate) if rate)
        self._bytes_seen = 0
        self._events: list[Event] = []  # held back
        self._slowed = 0.0  # seconds in waits minus seconds between, until the last wait
        self._resumed = -math.inf
        self._waiting: trio.CancelScope | None = None

    def receive(self, events: list[Event], bytes_received: int, now: float) -> None:
        """Add events, and count the new bytes.

        ``bytes_received`` is the number that the link has received in total.
        """
        self._events += events
        if self._bytes is not None:
            self._bytes.take(bytes_received - self._bytes_seen, now)
            self._bytes_seen = bytes_received

    def take(self, now: float) -> list[Event]:
        """Return the events that may be passed on now."""
        events, bucket = self._events, self._messages
        self._events = []
        if bucket is None:
            return [event for event in events if event != []]
        left = max(0, int(bucket.tokens(now) + TOLERANCE))
        allowed: list[Event] = []
        for number, event in enumerate(events):
            cost = _cost(event)
            if cost > left:
                if left and isinstance(event, list):
                    allowed.append(event[:left])
                    bucket.take(left, now)
                    event = event[left:]  # noqa: PLW2901 - the rest
                self._events = [event, *events[number + 1 :]]
                break
            left -= cost
            bucket.take(cost, now)
            if event != []:
                allowed.append(event)
        return allowed

    def delay(self, now: float) -> float | None:
        """Return how long to wait before calling :meth:`take`; None if the link may be read."""
        delays = [0.0]
        if self._events and self._messages is not None:
            wanted = max(1, self._messages.size // PARTS)
            delays.append(self._messages.delay(wanted, now))
        if self._bytes is not None:
            delays.append(self._bytes.delay(0, now))
        delay = max(delays)
        return delay if delay or self._events else None

    def is_exhausted(self, now: float) -> bool:
        """Whether the peer has been slowed down for so long that the link must end.

        Time for which it is not slowed down is subtracted.
        """
        return self._slowed_for(now) >= self._patience

    def _slowed_for(self, now: float) -> float:
        return max(0.0, self._slowed - (now - self._resumed))

    async def wait(self, delay: float) -> None:
        """Wait for ``delay`` seconds or until :meth:`stop`. Reading is paused in the meantime."""
        began = trio.current_time()
        with trio.CancelScope(deadline=began + delay) as self._waiting:
            await trio.sleep_forever()
        now = trio.current_time()
        self._slowed = self._slowed_for(began) + (now - began)
        self._resumed = now

    def stop(self) -> None:
        """Stop limiting the peer, and end the current wait."""
        self._messages = self._bytes = None
        self._patience = math.inf
        if self._waiting is not None:
            self._waiting.cancel()


def _cost(event: Any) -> int:
    """Return the number of messages or control frames."""
    if isinstance(event, list):
        return len(event)
    if isinstance(event, Fragment):
        return int(event.final)
    return int(not isinstance(event, Close | Violation))
