"""A way: what happens to the bytes of one direction, as values that a test may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import trio

__all__ = ["DIRECTIONS", "Change", "Direction", "Way"]

Direction: TypeAlias = Literal["to_server", "to_client"]
"""Where the bytes go that a fault is about."""

DIRECTIONS: tuple[Direction, Direction] = ("to_server", "to_client")

Change: TypeAlias = Callable[[bytes], bytes]
"""A function that damages what passes, a chunk at a time."""

# Throttled bytes leave in so many pieces a second, so that a slow line still shows life.
PIECES_PER_SECOND = 10


@dataclass(slots=True, kw_only=True)
class Way:
    """The faults of one direction of one connection, or of all connections to come."""

    delay: float = 0.0
    rate: float | None = None
    size: int | None = None
    change: Change | None = None
    stalled: bool = False
    left: int | None = None
    """Bytes that may still pass until the connection is cut."""
    flips: dict[int, int] = field(default_factory=dict)
    """Bits to flip, by the position of their byte in the stream."""
    passed: int = 0
    """Bytes that have left, damaged or not."""
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def copy(self) -> Way:
        """A way with the same faults, for a new connection."""
        return replace(self, flips=dict(self.flips), changed=trio.lowlevel.ParkingLot())

    def notify(self) -> None:
        """Let whoever waits for its turn look again."""
        self.changed.unpark_all()

    def reset(self) -> None:
        """End all faults."""
        healthy = Way()
        for name in ("delay", "rate", "size", "change", "stalled", "left"):
            setattr(self, name, getattr(healthy, name))
        self.flips.clear()
        self.notify()

    def next_size(self, size: int) -> int:
        """How many of ``size`` bytes leave in one write."""
        limits = [size]
        if self.size is not None:
            limits.append(self.size)
        if self.rate is not None:
            limits.append(max(1, int(self.rate / PIECES_PER_SECOND)))
        if self.left is not None:
            limits.append(self.left)
        return min(limits)

    def take(self, piece: bytes) -> bytes:
        """Count the piece that leaves next, and flip its bits where that is asked for."""
        damaged = bytearray(piece)
        for position in [at for at in self.flips if at < self.passed + len(piece)]:
            damaged[position - self.passed] ^= self.flips.pop(position)
        self.passed += len(piece)
        if self.left is not None:
            self.left -= len(piece)
        return bytes(damaged)
