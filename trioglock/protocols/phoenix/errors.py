"""What the Phoenix client raises beyond the errors of the connection itself.

::

    PhoenixError (TrioglockError)
    ├── AlreadyJoined (RuntimeError)      yours: the topic is joined, or being joined, already
    ├── NotJoined (RuntimeError)          yours: the topic is not joined
    ├── InvalidMessage (ValueError)       it cannot be a message of this protocol
    ├── BufferFull                        yours: too many pushes wait for the channel to be joined
    ├── JoinRefused                       the server's answer to a join
    ├── JoinTimeout (TimeoutError)        no answer to a join in time
    ├── PushTimeout (TimeoutError)        no answer to a push in time
    ├── Disconnected                      there is no connection, or it went before the answer
    └── ChannelClosed                     the channel has ended
        ├── ChannelCrashed                its process on the server crashed
        └── ChannelOverflow               too many messages waited to be taken
"""

from __future__ import annotations

from typing import Any

from ..._redact import redact_line, safe_repr
from ...errors import TrioglockError

__all__ = [
    "AlreadyJoined",
    "BufferFull",
    "ChannelClosed",
    "ChannelCrashed",
    "ChannelOverflow",
    "Disconnected",
    "InvalidMessage",
    "JoinRefused",
    "JoinTimeout",
    "NotJoined",
    "PhoenixError",
    "PushTimeout",
]


class PhoenixError(TrioglockError):
    """Base of everything below."""


class AlreadyJoined(PhoenixError, RuntimeError):
    """The topic is joined, or being joined, on this socket. Your fault: one channel is enough.

    A second ``phx_join`` would make the server close the first channel.
    """


class NotJoined(PhoenixError, RuntimeError):
    """The topic is not joined, so nothing can be pushed to it or left. Your fault."""


class InvalidMessage(PhoenixError, ValueError):
    """What was to be sent, or was received, cannot be a message of protocol 2.0.0."""


class BufferFull(PhoenixError):
    """As many pushes as ``max_buffer`` allows wait for the channel to be joined again.

    Wait for one of them, or for the channel, before the next.
    """


class JoinRefused(PhoenixError):
    """The server answered a join with an error, or with a topic that it does not know.

    Args:
        topic: that was to be joined.
        response: what the server said, usually ``{"reason": ...}``.
    """

    def __init__(self, topic: str, response: Any) -> None:
        super().__init__(topic, response)
        self.topic = topic
        self.response = response

    def __str__(self) -> str:
        return redact_line(f"the server refused to join {self.topic!r}: {safe_repr(self.response)}")


class JoinTimeout(PhoenixError, TimeoutError):
    """The server did not answer a join in time. It is told to leave, in case it answers later."""


class PushTimeout(PhoenixError, TimeoutError):
    """No reply to a push, or to a leave, in time; one that comes later is ignored.

    A push that still waited to be sent never will be. One that was sent may have been handled.
    """


class Disconnected(PhoenixError):
    """There is no connection, or it was lost before the reply came.

    A push that was under way may have been handled or not: nobody can tell.
    """


class ChannelClosed(PhoenixError):
    """The channel has ended: you left it, or the server closed it."""


class ChannelCrashed(ChannelClosed):
    """The channel's process on the server crashed; what it was working on has no reply."""


class ChannelOverflow(ChannelClosed):
    """More messages than ``max_queue`` waited to be taken, and the channel was left for that.

    Your fault: take them faster, let more of them wait, or say which of them may be dropped.
    """
