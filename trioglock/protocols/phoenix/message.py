"""Messages of Phoenix Channels, protocol 2.0.0, as plain values.

The format is ``[join_ref, ref, topic, event, payload]``; see "Phoenix.Socket.V2.JSONSerializer" in
Phoenix, and its counterpart in the JavaScript client, ``assets/js/phoenix/serializer.js``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InvalidOption

__all__ = [
    "CLOSE",
    "ERROR",
    "HEARTBEAT",
    "JOIN",
    "LEAVE",
    "PHOENIX",
    "REPLY",
    "VERSION",
    "Message",
    "PushReply",
    "check_event",
    "check_topic",
]

VERSION = "2.0.0"
"""Of the protocol; without it in the address, a server speaks the one before."""

PHOENIX = "phoenix"
"""The topic of the heartbeat."""

JOIN = "phx_join"
LEAVE = "phx_leave"
REPLY = "phx_reply"
CLOSE = "phx_close"
ERROR = "phx_error"
HEARTBEAT = "heartbeat"

OWN_EVENTS = (JOIN, LEAVE, REPLY, CLOSE, ERROR)


@dataclass(frozen=True, slots=True)
class Message:
    """One message, either way.

    Args:
        join_ref: the ref of the join that it belongs to; None in broadcasts.
        ref: of a push, repeated in its reply.
        topic: such as ``"room:1"``.
        event: such as ``"shout"``, or one of Phoenix's own.
        payload: what JSON can say, or ``bytes`` for a binary message. That of a reply is
            ``{"status": ..., "response": ...}``, also where the response is binary.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


@dataclass(frozen=True, slots=True)
class PushReply:
    """What the server's channel answered to a push.

    Args:
        status: ``"ok"``, ``"error"``, or whatever else the server chose.
        response: its payload; ``{}`` for a bare status, ``bytes`` if it was binary.
    """

    status: str
    response: Any

    @property
    def ok(self) -> bool:
        """Whether the status is ``"ok"``."""
        return self.status == "ok"


def check_topic(topic: object) -> None:
    """Raise InvalidOption unless ``topic`` is one that can be joined."""
    if not isinstance(topic, str) or topic in ("", PHOENIX):
        raise InvalidOption(f"a topic is a str such as 'room:1', not {topic!r}")


def check_event(event: object) -> None:
    """Raise InvalidOption unless ``event`` is one that can be pushed.

    Phoenix's own are not: a join or a leave sent as a push would end the channel it is pushed to.
    """
    if not isinstance(event, str) or not event or event in OWN_EVENTS:
        raise InvalidOption(
            f"an event is a str such as 'shout', and none of Phoenix's own, not {event!r}"
        )
