"""The state of channels and pushes, and the effects that the state machine returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from .message import PhoenixMessage, PushReply

__all__ = [
    "TRANSITIONS",
    "ChannelEnded",
    "ChannelInterrupted",
    "ChannelJoined",
    "ChannelPhase",
    "DeliverMessage",
    "Effect",
    "GetPayload",
    "Membership",
    "Push",
    "ResolvePush",
    "SendMessage",
]


class ChannelPhase(Enum):
    """The phase of a channel; :data:`TRANSITIONS` lists the allowed changes.

    The JavaScript client calls WAITING and PAUSED *errored*, ASKING and JOINING *joining*, and
    ENDED *closed*. There is no *leaving* phase: a channel ends as soon as you leave it, and its
    topic may be joined again.
    """

    WAITING = "waiting"
    """Waiting for a connection."""
    ASKING = "asking"
    """Waiting for the payload of the join."""
    JOINING = "joining"
    """``phx_join`` was sent."""
    JOINED = "joined"
    """The server accepted the join."""
    PAUSED = "paused"
    """Waiting before the next attempt to rejoin."""
    ENDED = "ended"
    """Left, closed by the server, or given up; final."""


TRANSITIONS: Mapping[ChannelPhase, Mapping[ChannelPhase, str]] = {
    ChannelPhase.WAITING: {
        ChannelPhase.ASKING: "connected",
        ChannelPhase.ENDED: "left, or out of time",
    },
    ChannelPhase.ASKING: {
        ChannelPhase.JOINING: "payload known: phx_join",
        ChannelPhase.WAITING: "connection lost",
        ChannelPhase.PAUSED: "rejoining: out of time, or OSError",
        ChannelPhase.ENDED: "left, out of time, or no payload",
    },
    ChannelPhase.JOINING: {
        ChannelPhase.JOINED: "ok",
        ChannelPhase.WAITING: "connection lost",
        ChannelPhase.PAUSED: "rejoining: refused, crashed or out of time",
        ChannelPhase.ENDED: "left, refused, crashed or out of time",
    },
    ChannelPhase.JOINED: {
        ChannelPhase.WAITING: "connection lost",
        ChannelPhase.PAUSED: "phx_error",
        ChannelPhase.ENDED: "left, or phx_close",
    },
    ChannelPhase.PAUSED: {
        ChannelPhase.ASKING: "pause over",
        ChannelPhase.WAITING: "connection lost",
        ChannelPhase.ENDED: "left",
    },
    ChannelPhase.ENDED: {},
}
"""The phases that may follow each phase, and the cause of each change."""


@dataclass(slots=True, eq=False)
class Push:
    """A push or leave without an outcome. It has no ref while it is waiting to be sent."""

    id: int
    event: str
    payload: Any
    wants_reply: bool
    membership: Membership
    ref: str | None = None


@dataclass(slots=True, eq=False)
class Membership:
    """A channel: one join of a topic, and the joins that repeat it."""

    id: int
    topic: str
    timeout: float
    phase: ChannelPhase = ChannelPhase.WAITING
    join_ref: str | None = None
    """The ref of the current ``phx_join``, None if there is none."""
    attempt: int = 0
    """The number of times the payload was requested."""
    failed_rejoins: int = 0
    """Consecutive failures to rejoin."""
    joined_once: bool = False
    buffer: dict[int, Push] = field(default_factory=dict)
    """Pushes waiting to be sent, by id, oldest first."""
    sent: dict[str, Push] = field(default_factory=dict)
    """Pushes waiting for their reply, by ref."""

    def enter(self, phase: ChannelPhase) -> None:
        """Change to ``phase``, or stay in it."""
        assert phase is self.phase or phase in TRANSITIONS[self.phase]
        self.phase = phase

    def accepts(self, join_ref: str | None) -> bool:
        """Whether a message belongs to the current join. Broadcasts have no join_ref."""
        return self.join_ref is not None and (join_ref is None or join_ref == self.join_ref)


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send ``message``; ``push`` is the id of its push or leave, None for other messages."""

    message: PhoenixMessage
    push: int | None = None


@dataclass(frozen=True, slots=True)
class GetPayload:
    """Get the payload of a join and pass it to ``Machine.payload``, now or later."""

    channel: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ChannelJoined:
    """The server accepted the join of ``channel``; ``again`` is True after a rejoin."""

    channel: int
    response: Any
    again: bool
    topic: str


@dataclass(frozen=True, slots=True)
class ChannelInterrupted:
    """``channel`` is not joined because of ``cause``; the join will be repeated."""

    channel: int
    cause: Exception


@dataclass(frozen=True, slots=True)
class ChannelEnded:
    """``channel`` has ended; no further effects for it follow.

    ``cause`` is None after phx_close.
    """

    channel: int
    cause: Exception | None
    payload: Any
    topic: str


@dataclass(frozen=True, slots=True)
class DeliverMessage:
    """Deliver ``message``, which the server pushed or broadcast, to ``channel``."""

    channel: int
    message: PhoenixMessage


@dataclass(frozen=True, slots=True)
class ResolvePush:
    """Resolve ``push`` with its reply, or with the reason why there is none. This happens once."""

    push: int
    outcome: PushReply | Exception


Effect: TypeAlias = (
    SendMessage
    | GetPayload
    | ChannelJoined
    | ChannelInterrupted
    | ChannelEnded
    | DeliverMessage
    | ResolvePush
)
"""One of the effects above."""
