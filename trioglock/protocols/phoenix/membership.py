"""One channel as the state machine knows it, and the pushes that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["TRANSITIONS", "Leave", "Membership", "Phase", "Push"]


class Phase(Enum):
    """Where a channel stands; :data:`TRANSITIONS` is the table of what may follow.

    The JavaScript client calls WAITING and PAUSED *errored*, ASKING and JOINING *joining*, and
    ENDED *closed*. There is no *leaving*: who leaves has left, and the topic may be joined anew.
    """

    WAITING = "waiting"
    """For a connection."""
    ASKING = "asking"
    """For the payload of the join."""
    JOINING = "joining"
    """``phx_join`` has been sent."""
    JOINED = "joined"
    """The server has let us in."""
    PAUSED = "paused"
    """Before the next attempt to join again."""
    ENDED = "ended"
    """Left, closed by the server, or given up; final."""


TRANSITIONS: Mapping[Phase, Mapping[Phase, str]] = {
    Phase.WAITING: {
        Phase.ASKING: "connected",
        Phase.ENDED: "left, or out of time",
    },
    Phase.ASKING: {
        Phase.JOINING: "payload known: phx_join",
        Phase.WAITING: "connection lost",
        Phase.PAUSED: "rejoining: out of time",
        Phase.ENDED: "left, out of time, or no payload",
    },
    Phase.JOINING: {
        Phase.JOINED: "ok",
        Phase.WAITING: "connection lost",
        Phase.PAUSED: "rejoining: refused, crashed or out of time",
        Phase.ENDED: "left, refused, crashed or out of time",
    },
    Phase.JOINED: {
        Phase.WAITING: "connection lost",
        Phase.PAUSED: "phx_error",
        Phase.ENDED: "left, or phx_close",
    },
    Phase.PAUSED: {
        Phase.ASKING: "pause over",
        Phase.WAITING: "connection lost",
        Phase.ENDED: "left",
    },
    Phase.ENDED: {},
}
"""From each phase to those that may follow, and what leads there."""


@dataclass(slots=True, eq=False)
class Push:
    """A push without an outcome; without a ref, it waits to be sent."""

    id: int
    event: str
    payload: Any
    wants_reply: bool
    membership: Membership
    ref: str | None = None


@dataclass(slots=True, eq=False)
class Leave:
    """A ``phx_leave`` without an answer."""

    id: int
    topic: str
    join_ref: str
    ref: str


@dataclass(slots=True, eq=False)
class Membership:
    """One join of one topic, and the joins that repeat it."""

    id: int
    topic: str
    timeout: float
    phase: Phase = Phase.WAITING
    join_ref: str | None = None
    """Of the ``phx_join`` that was sent last, while that counts."""
    attempt: int = 0
    """How often the payload was asked for."""
    setbacks: int = 0
    """Attempts to join again that failed, in a row."""
    joined_once: bool = False
    buffer: dict[int, Push] = field(default_factory=dict)
    """Pushes that wait to be sent, by id, oldest first."""
    sent: dict[str, Push] = field(default_factory=dict)
    """Pushes that wait for their reply, by ref."""

    def enter(self, phase: Phase) -> None:
        """Go on to another phase, or stay."""
        assert phase is self.phase or phase in TRANSITIONS[self.phase]
        self.phase = phase

    def accepts(self, join_ref: str | None) -> bool:
        """Whether what the server sends belongs to the present join; broadcasts have no ref."""
        return self.join_ref is not None and (join_ref is None or join_ref == self.join_ref)
