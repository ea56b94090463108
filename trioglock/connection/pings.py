"""Pings that wait for their pongs."""

from __future__ import annotations

import itertools

import trio

from ._sync import Waiters

__all__ = ["Pings"]


MAX_UNANSWERED = 1000
"""Pings of the heartbeat that a peer may leave unanswered before the oldest are forgotten."""


class Pings:
    """Who pinged when; measures round trips on trio's clock.

    A pong also answers every earlier ping: the peer may skip all but the last (RFC 6455, 5.5.3).
    No payload is used twice, so a pong of an old link cannot answer a ping of the new one.
    """

    def __init__(self) -> None:
        self.latency: float | None = None
        """Seconds of the latest round trip."""
        self._sent: dict[bytes, float] = {}
        self._answers: dict[bytes, float | None] = {}
        self._beat_at: float | None = None
        self._count = itertools.count()
        self._waiters = Waiters()

    def new_payload(self) -> bytes:
        """A payload for a ping that is sent now."""
        payload = next(self._count).to_bytes(8)
        self._sent[payload] = trio.current_time()
        if len(self._sent) > MAX_UNANSWERED:
            # Only those that nobody waits for: the heartbeat's.
            oldest = next((old for old in self._sent if old not in self._answers), payload)
            if oldest != payload:
                self.forget(oldest)
        return payload

    def beat(self) -> None:
        """A message that asks for a sign of life is sent now."""
        self._beat_at = trio.current_time()

    def beat_answered(self) -> None:
        """Its answer has come."""
        if self._beat_at is not None:
            self.latency = trio.current_time() - self._beat_at
            self._beat_at = None

    def answered(self, payload: bytes) -> None:
        """A pong came."""
        if payload not in self._sent:
            return
        now = trio.current_time()
        self.latency = now - self._sent[payload]
        for earlier in list(self._sent):
            sent = self._sent.pop(earlier)
            if earlier in self._answers:
                self._answers[earlier] = now - sent
            if earlier == payload:
                break
        self._waiters.unpark_all()

    async def wait(self, payload: bytes) -> float | None:
        """Wait for the answer to a ping; seconds of the round trip, or None if none will come."""
        self._answers[payload] = None
        try:
            while payload in self._sent:
                await self._waiters.park()
            return self._answers[payload]
        finally:
            del self._answers[payload]
            self.forget(payload)

    def forget(self, payload: bytes) -> None:
        """Nobody waits for this answer any more."""
        self._sent.pop(payload, None)

    def lose(self) -> None:
        """The link is gone: no ping in flight will be answered."""
        self._sent.clear()
        self._beat_at = None
        self._waiters.unpark_all()
