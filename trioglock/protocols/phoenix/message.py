"""Messages of Phoenix Channels, protocol 2.0.0.

The format is ``[join_ref, ref, topic, event, payload]``; see "Phoenix.Socket.V2.JSONSerializer" in
Phoenix and ``assets/js/phoenix/serializer.js`` in the JavaScript client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..._text import as_text
from ...errors import InvalidOption

__all__ = [
    "CLOSE",
    "ERROR",
    "HEARTBEAT",
    "JOIN",
    "LEAVE",
    "PATH_END",
    "PHOENIX",
    "REPLY",
    "SUBPROTOCOL",
    "TOKEN_PREFIX",
    "VERSION",
    "PhoenixHeartbeat",
    "PhoenixMessage",
    "PushReply",
    "check_event",
    "check_topic",
]

VERSION = "2.0.0"
"""The protocol version. A server assumes an older one if the URL does not contain it."""

PATH_END = "/websocket"
"""Clients append this to the path of the socket."""

SUBPROTOCOL = "phoenix"
TOKEN_PREFIX = "base64url.bearer.phx."  # noqa: S105 - the beginning of a subprotocol
"""The prefix of the ``auth_token`` subprotocol; see "Phoenix.Socket.Transport" in Phoenix 1.8."""

PHOENIX = "phoenix"
"""The topic of the heartbeat."""

JOIN = "phx_join"
LEAVE = "phx_leave"
REPLY = "phx_reply"
CLOSE = "phx_close"
ERROR = "phx_error"
HEARTBEAT = "heartbeat"

RESERVED_EVENTS = (JOIN, LEAVE, REPLY, CLOSE, ERROR)


class PhoenixMessage(NamedTuple):
    """A message in either direction.

    Args:
        join_ref: the ref of the join that the message belongs to; None in broadcasts.
        ref: the ref of a push, repeated in its reply.
        topic: the topic, such as ``"room:1"``.
        event: the event, such as ``"shout"``, or one of the events reserved by Phoenix.
        payload: a JSON value, or ``bytes`` in a binary message. The payload of a reply is
            ``{"status": ..., "response": ...}``, even if the response is binary.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: Any


@dataclass(frozen=True, slots=True)
class PushReply:
    """The server's reply to a push.

    Args:
        status: ``"ok"``, ``"error"``, or another status chosen by the server.
        response: the payload; ``{}`` for a bare status, ``bytes`` for a binary reply.
    """

    status: str
    response: Any

    @property
    def ok(self) -> bool:
        """Whether the status is ``"ok"``."""
        return self.status == "ok"


class PhoenixHeartbeat:
    """Creates heartbeats and recognizes the answer to the latest one.

    Args:
        new_ref: returns a ref that was never used, so that late answers and answers on an
            earlier connection are not counted.
    """

    def __init__(self, new_ref: Callable[[], str]) -> None:
        self._new_ref = new_ref
        self._ref: str | None = None

    @property
    def pending(self) -> bool:
        """Whether a heartbeat has not been answered."""
        return self._ref is not None

    def next(self) -> PhoenixMessage:
        """Return the next heartbeat to send."""
        self._ref = self._new_ref()
        return PhoenixMessage(None, self._ref, PHOENIX, HEARTBEAT, {})

    def is_answer(self, message: PhoenixMessage) -> bool:
        """Whether ``message`` answers the latest heartbeat; True once for each."""
        if self._ref is None or message.topic != PHOENIX or message.ref != self._ref:
            return False
        self._ref = None
        return True

    def forget(self) -> None:
        """Stop expecting an answer: the connection has changed."""
        self._ref = None


def check_topic(topic: object) -> str:
    """Return a topic; raise InvalidOption unless it can be joined."""
    if not isinstance(topic, str) or topic in ("", PHOENIX):
        raise InvalidOption(f"topic must be a str such as 'room:1', not {topic!r}")
    return as_text(topic)


def check_event(event: object) -> str:
    """Return the name of an event; raise InvalidOption unless it can be pushed.

    The events reserved by Phoenix cannot be pushed: a join or leave sent as a push ends the
    channel.
    """
    if not isinstance(event, str) or not event or event in RESERVED_EVENTS:
        raise InvalidOption(
            f"event must be a str such as 'shout' that Phoenix does not reserve, not {event!r}"
        )
    return as_text(event)
