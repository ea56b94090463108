"""The connections of this process by id, for :meth:`.Channels.disconnect`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from .._hints import describe_value
from ..errors import InvalidOption
from ..frames import Close
from ..pubsub import Gap, Hub, Message, Subscriber
from ..pubsub.message import TOPIC_PREFIX
from .outgoing import HUB_CLOSED

if TYPE_CHECKING:
    from .socket import ChannelsSocket

__all__ = ["DISCONNECT", "IdIndex", "IdSubscriber", "id_channel"]

_logger = logging.getLogger("trioglock.channels")

DISCONNECT = "disconnect"

CLOSES_PER_SECOND = 200
"""The rate at which clients with an id are disconnected after an interruption of the broker."""


def id_channel(id: str) -> str:  # noqa: A002 - the term of Phoenix
    """Return the channel for messages to the connections with an id.

    Raises:
        InvalidOption: it is not a str.
    """
    if not isinstance(id, str):
        raise InvalidOption(f"id must be a str, not {describe_value(id)}")
    return f"{TOPIC_PREFIX}id:{id}"


class IdIndex:
    """The connections of this process that have an id.

    Args:
        hub: transfers the messages to them.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._subscribers: dict[str, IdSubscriber] = {}
        self._next_close = -math.inf

    def add(self, id: str, socket: ChannelsSocket) -> None:  # noqa: A002 - the term of Phoenix
        """Add a connection with an id.

        Raises:
            UsageError: the hub is not open.
        """
        subscriber = self._subscribers.get(id)
        if subscriber is None:
            subscriber = IdSubscriber(id, self)
            self._hub.join(subscriber, id_channel(id))
            if not self._subscribers:
                self._next_close = -math.inf  # it may be from another run with a different clock
            self._subscribers[id] = subscriber
        subscriber.sockets[socket] = None

    def remove(self, id: str, socket: ChannelsSocket) -> None:  # noqa: A002
        """Remove a connection; do nothing if it was not added."""
        subscriber = self._subscribers.get(id)
        if subscriber is None:
            return
        subscriber.sockets.pop(socket, None)
        if not subscriber.sockets:
            self.forget(subscriber)
            self._hub.leave(subscriber, id_channel(id))

    def forget(self, subscriber: IdSubscriber) -> None:
        """Remove an id."""
        if self._subscribers.get(subscriber.id) is subscriber:
            del self._subscribers[subscriber.id]

    def close_later(self, sockets: Iterable[ChannelsSocket], gap: Gap) -> None:
        """Close connections one by one, so that clients do not all reconnect at once.

        Args:
            sockets: the connections.
            gap: why they are closed. With ``sharded=True``, each id has its own gap.
        """
        now = trio.current_time()
        if now > self._next_close:
            self._next_close = now
            _logger.warning(
                "the connection to the broker was interrupted, so calls to disconnect() in the "
                "last %.1f seconds may have been missed: closing, with code 1001, all clients "
                "that have an id",
                gap.seconds,
            )
        for socket in sockets:
            if not socket.closes_later:
                socket.close_later(self._next_close)
                self._next_close += 1 / CLOSES_PER_SECOND


class IdSubscriber(Subscriber):
    """Disconnects the connections of this process that have the same id.

    Args:
        id: the id.
        index: the index of all ids.
    """

    __slots__ = ("_index", "id", "sockets")

    def __init__(self, id: str, index: IdIndex) -> None:  # noqa: A002 - the term of Phoenix
        self.id: str = id
        self.sockets: dict[ChannelsSocket, None] = {}
        self._index = index

    def put(self, event: Message | Gap) -> None:
        if isinstance(event, Gap):
            # A missed message may have been a request to disconnect them.
            self._index.close_later(self.sockets, event)
        elif event.data == DISCONNECT and event.channel:
            for socket in list(self.sockets):
                socket.disconnect(Close(1001))

    def end(self) -> None:
        self._index.forget(self)
        sockets, self.sockets = list(self.sockets), {}
        for socket in sockets:
            socket.disconnect(HUB_CLOSED)
