"""The limits on how many messages one client may send in a period of time."""

from __future__ import annotations

import sys

import trio

from ..options import Rate

__all__ = ["TokenBucket"]

PARTS = 64
"""The clock is read once per this fraction of the limit, not for each message."""


class TokenBucket:
    """Limits the messages of one client.

    Each message takes a token. The bucket holds ``rate.messages`` of them at first, and is refilled
    within ``rate.per`` seconds. Refused messages take tokens, too, so the balance of a client that
    does not stop keeps falling below zero.

    Args:
        rate: the limit, or None.
    """

    __slots__ = ("_rate", "_tokens", "_updated", "left")

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._tokens = 0.0 if rate is None else float(rate.messages)
        self._updated = 0.0
        self.left: int = sys.maxsize if rate is None else 0
        """Number of messages that may be received before :meth:`take` has to be called again."""

    def take(self) -> bool:
        """Take tokens for this message and some later ones; return False if none are left."""
        rate, now = self._rate, trio.current_time()
        assert rate is not None
        limit = rate.messages
        tokens = min(limit, self._tokens + (now - self._updated) * limit / rate.per)
        self._updated = now
        count = min(max(1, limit // PARTS), int(tokens))
        if count < 1:
            self._tokens = tokens - 1
            return False
        self._tokens = tokens - count
        self.left = count - 1
        return True

    @property
    def is_overdrawn(self) -> bool:
        """Whether more messages were refused than the limit allows."""
        return self._rate is not None and self._tokens < -self._rate.messages
