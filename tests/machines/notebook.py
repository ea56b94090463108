"""The notebook: what really happened at the edges of a connection, in the order of its ticks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import trio

from trioglock import Disconnect
from trioglock.telemetry import Event

__all__ = ["Boom", "Notebook", "Offer", "frame_of", "label_of"]


class Boom(Exception):
    """What hooks, background tasks and bodies raise here."""


def frame_of(label: str, size: int, *, binary: bool = False) -> str | bytes:
    """A data frame that can be told from all others."""
    text = f"{label}~{'x' * size}"
    return text.encode() if binary else text


def label_of(frame: object) -> str:
    """The label of a data frame."""
    text = frame.decode() if isinstance(frame, bytes) else str(frame)
    return text.partition("~")[0]


@dataclass
class Offer:
    """Frames that one call, or one hook's Reply, wants to have sent.

    ``began`` and ``ended`` bound the moment of queueing. ``taken`` is True where all of them must
    have been queued, False where none of them may have been, None where it can be either.
    """

    labels: list[str]
    began: int
    ended: int | None = None
    taken: bool | None = None
    first: bool = False


@dataclass
class Notebook:
    """Filled by the hooks, links and calls of one run; read by the verdict."""

    wrong: list[str] = field(default_factory=list)
    """Broken promises that show at once."""
    offers: list[Offer] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    """Labels of messages that our link handed up."""
    handled: list[str] = field(default_factory=list)
    """Those that ``handle_receive`` was given."""
    delivered: list[tuple[str, bool]] = field(default_factory=list)
    """What hooks handed on, and whether that must count."""
    taken: list[str] = field(default_factory=list)
    """What calls of the program have received."""
    raised: list[BaseException] = field(default_factory=list)
    """What hooks, other than those of a call, and background tasks have raised."""
    links: int = 0
    """How many were opened."""
    begun: int = 0
    """How often ``init_stream`` has returned."""
    ends: list[Disconnect] = field(default_factory=list)
    """What ``terminate`` was told."""
    events: list[Event] = field(default_factory=list)
    """What a listener was told."""
    stopped: str = ""
    """What has stopped the hooks, but for ``terminate``: an abort or a crash."""
    lost_track: bool = False
    """Messages may be lost legally: an abort, a crash, a cancelled block, a slow hook."""
    steps: int = 0
    hooks: int = 0
    _ticks: Any = field(default_factory=itertools.count)
    _labels: Any = field(default_factory=itertools.count)

    def tick(self) -> int:
        """A number larger than all before."""
        return int(next(self._ticks))

    def label(self, kind: str) -> str:
        """A name for a message that no other has."""
        return f"{kind}{next(self._labels)}"

    def blame(self, text: str) -> None:
        """Note a broken promise."""
        self.wrong.append(f"at {trio.current_time():g}: {text}")

    def offer(self, count: int, kind: str = "s", *, first: bool = False) -> Offer:
        """A new offer of so many frames, which begins now."""
        labels = [self.label(kind) for _ in range(count)]
        offer = Offer(labels, self.tick(), first=first)
        self.offers.append(offer)
        return offer
