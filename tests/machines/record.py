"""The record of one run: everything that entered and left a connection, in order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import trio

from trioglock import Disconnect
from trioglock.telemetry import Event

__all__ = ["Offer", "Record", "UserError", "frame_of", "label_of"]


class UserError(Exception):
    """Raised by hooks, background tasks and bodies of scenarios."""


def frame_of(label: str, size: int, *, binary: bool = False) -> str | bytes:
    """Create a data frame with a unique label."""
    text = f"{label}~{'x' * size}"
    return text.encode() if binary else text


def label_of(frame: object) -> str:
    """Return the label of a data frame."""
    text = frame.decode() if isinstance(frame, bytes) else str(frame)
    return text.partition("~")[0]


@dataclass
class Offer:
    """Frames that one call, or the Reply of one hook, sends.

    They are queued between ``began`` and ``ended``. ``queued`` is True if all of them must have
    been queued, False if none may have been, and None if both are possible.
    """

    labels: list[str]
    began: int
    ended: int | None = None
    queued: bool | None = None
    first: bool = False


@dataclass
class Record:
    """Written by the hooks, links and calls of one run, and read by the checks."""

    problems: list[str] = field(default_factory=list)
    """Violations found during the run."""
    offers: list[Offer] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    """Labels of the messages that the link received."""
    handled: list[str] = field(default_factory=list)
    """Labels of the messages passed to ``handle_receive``."""
    delivered: list[tuple[str, bool]] = field(default_factory=list)
    """Labels that hooks delivered, and whether the delivery is certain."""
    received: list[str] = field(default_factory=list)
    """Labels that calls received."""
    raised: list[BaseException] = field(default_factory=list)
    """Exceptions raised by background tasks and by hooks that do not belong to a call."""
    links: int = 0
    """The number of opened links."""
    started: int = 0
    """The number of times ``init_stream`` has returned."""
    ends: list[Disconnect] = field(default_factory=list)
    """The reasons passed to ``terminate``."""
    events: list[Event] = field(default_factory=list)
    """The events that a listener received."""
    stopped: str = ""
    """Why no hook except ``terminate`` may run any more."""
    may_lose: bool = False
    """Whether messages may be lost, for example after an abort or a failed hook."""
    steps: int = 0
    hooks: int = 0
    _ticks: Any = field(default_factory=itertools.count)
    _labels: Any = field(default_factory=itertools.count)

    def tick(self) -> int:
        """Return the next number."""
        return int(next(self._ticks))

    def label(self, kind: str) -> str:
        """Return a unique label for a message."""
        return f"{kind}{next(self._labels)}"

    def fail(self, text: str) -> None:
        """Record a violation."""
        self.problems.append(f"at {trio.current_time():g}: {text}")

    def offer(self, count: int, kind: str = "s", *, first: bool = False) -> Offer:
        """Create an offer of ``count`` frames that begins now."""
        labels = [self.label(kind) for _ in range(count)]
        offer = Offer(labels, self.tick(), first=first)
        self.offers.append(offer)
        return offer
