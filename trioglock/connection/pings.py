"""Pings that wait for their pongs."""

from __future__ import annotations

import itertools

import trio

__all__ = ["Pings"]


class Pings:
    """Who pinged when; measures round trips on trio's clock.

    A pong also answers every earlier ping: the peer may skip all but the last (RFC 6455, 5.5.3).
    """

    def __init__(self) -> None:
        self.latency: float | None = None
        """Seconds of the latest round trip."""
        self._sent: dict[bytes, float] = {}
        self._count = itertools.count()
        self._answers = trio.lowlevel.ParkingLot()
        self._ended = False

    def new_payload(self) -> bytes:
        """A payload that no ping in flight has; note when it was sent."""
        payload = next(self._count).to_bytes(4)
        self._sent[payload] = trio.current_time()
        return payload

    def answered(self, payload: bytes) -> None:
        """A pong came."""
        if payload not in self._sent:
            return
        self.latency = trio.current_time() - self._sent[payload]
        for earlier in list(self._sent):
            del self._sent[earlier]
            if earlier == payload:
                break
        self._answers.unpark_all()

    async def wait(self, payload: bytes) -> bool:
        """Wait for the answer; False if none will come."""
        try:
            while payload in self._sent and not self._ended:
                await self._answers.park()
            return payload not in self._sent
        finally:
            self.forget(payload)

    def forget(self, payload: bytes) -> None:
        """Nobody waits for this answer any more."""
        self._sent.pop(payload, None)

    def end(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._answers.unpark_all()
