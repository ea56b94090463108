"""Errors of the Phoenix client, beyond those of the connection.

::

    PhoenixError (TrioglockError)
    ├── AlreadyJoined (RuntimeError)      your code joined a topic twice
    ├── NotJoined (RuntimeError)          your code used a topic that is not joined
    ├── InvalidMessage (ValueError)       not a message of this protocol
    ├── BufferFull                        too many pushes are waiting to be sent
    ├── JoinRefused                       the server refused a join
    ├── JoinTimeout (TimeoutError)        the server did not answer a join in time
    ├── PushTimeout (TimeoutError)        the server did not answer a push in time
    ├── Disconnected                      there is no connection, or it was lost before the reply
    └── ChannelClosed                     the channel has ended
        ├── ChannelCrashed                its process on the server crashed
        └── ChannelOverflow               its receive queue was full
"""

from __future__ import annotations

from typing import Any

from ..._redact import redact_line, safe_repr
from ...disconnect import Disconnect
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
    """Base class of the errors of :mod:`trioglock.protocols.phoenix`."""


class AlreadyJoined(PhoenixError, RuntimeError):
    """The topic is already joined, or being joined, on this socket.

    A second ``phx_join`` would make the server close the first channel.
    """


class NotJoined(PhoenixError, RuntimeError):
    """The topic is not joined, so it cannot be left and no events can be pushed to it."""


class InvalidMessage(PhoenixError, ValueError):
    """A sent or received message does not conform to protocol 2.0.0."""


class BufferFull(PhoenixError):
    """Too many pushes are waiting for the join, or for the server to read.

    Wait for one of them, or for the channel, before you push again.
    """


class JoinRefused(PhoenixError):
    """The server answered a join with an error, or does not know the topic.

    Args:
        topic: the topic of the join.
        response: the server's response, usually ``{"reason": ...}``.
    """

    def __init__(self, topic: str, response: Any) -> None:
        super().__init__(topic, response)
        self.topic = topic
        self.response = response

    def __str__(self) -> str:
        # The reason that both Phoenix and trioglock.channels send for an exception in the server.
        hint = (
            "the server failed: see the server's log"
            if self.response == {"reason": "join crashed"}
            else "check the topic and the payload of the join"
        )
        return redact_line(
            f"the server refused to join {self.topic!r}: {safe_repr(self.response)}; {hint}"
        )


class JoinTimeout(PhoenixError, TimeoutError):
    """The server did not answer a join in time.

    A leave is sent in case the server answers later.
    """


class PushTimeout(PhoenixError, TimeoutError):
    """The server did not answer a push or a leave in time. A later reply is ignored.

    A push that was still waiting to be sent is discarded. A push that was sent may have been
    handled.
    """


class Disconnected(PhoenixError):
    """There is no connection, or it was lost before the reply arrived.

    The server may or may not have handled a push that had been sent. ``__cause__`` is the error
    that broke the connection, if there was one.

    Args:
        message: the text of the error.
        reason: why there is no connection; None if it is not known.
    """

    def __init__(self, message: str, reason: Disconnect | None = None) -> None:
        super().__init__(message if reason is None else f"{message}: {reason}")
        self.reason: Disconnect | None = reason
        self.__cause__: BaseException | None = getattr(reason, "error", None)


class ChannelClosed(PhoenixError):
    """The channel has ended: you left it, or the server closed it."""


class ChannelCrashed(ChannelClosed):
    """The channel's process on the server crashed. Pending pushes get no reply."""


class ChannelOverflow(ChannelClosed):
    """More than ``max_queue`` messages waited to be received, so the topic was left.

    Receive faster, increase ``max_queue``, or set ``overflow`` to drop messages instead.
    """
