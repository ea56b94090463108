"""``Channels``: a server for Phoenix Channels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from .._hints import called_hint, describe_value
from ..codecs import JSON
from ..errors import InvalidOption, UsageError
from ..frames import Data
from ..options import Rate, check_rate, check_whole
from ..protocols.phoenix.message import check_event, check_topic
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import Hub
from ..pubsub.history import Retention
from ..server import ServeTarget
from .channel import Channel
from .credentials import Refresh
from .handshake import Authenticate, ChannelsTarget, Identify
from .ids import DISCONNECT, IdIndex, id_channel
from .routes import ChannelRoutes
from .socket import ChannelsSocket, SocketOptions
from .topics import TopicIndex, hub_channel, topic_of

__all__ = ["Channels"]

MESSAGE_RATE = Rate(2000, per=2)
JOIN_RATE = Rate(500, per=10)
"""Clients repeat failed joins, possibly 100 of them, after 1, 2, 5 and then every 10 seconds."""


class Channels:
    """A server for Phoenix Channels 2.0.0. Its clients join topics and push events to them.

    ::

        hub = Hub(broker=RedisBroker("redis://localhost"))
        channels = Channels({"room:*": Room}, hub=hub, connect=authenticate)

        async with hub, serve(channels.socket, "0.0.0.0", 8020):
            await channels.broadcast("room:1", "shout", {"text": "hi"})

    Clients connect to ``ws://.../socket/websocket?vsn=2.0.0``. The path must end with
    ``/websocket``, which Phoenix clients append, and is otherwise arbitrary; other paths are
    refused with 404, and other versions of the protocol with 403. An ASGI server refuses all of
    them with 403.

    Each client has a queue for broadcasts that its connection cannot accept yet, limited by
    ``max_queue`` and ``max_queue_bytes`` of the hub. If the queue is full, the connection is closed
    with 1013.

    The reply to a message that exceeds a limit is an error. If the client continues until more
    messages have been refused than the limit allows, its connection is closed with 1008.

    Args:
        routes: the :class:`Channel` class for each topic pattern: a topic such as ``"lobby"``, or a
            prefix and a final ``*`` such as ``"room:*"``. The first match is used.
        hub: transfers broadcasts and disconnects between processes. It must be open while the
            server runs.
        connect: called with the :class:`ConnectRequest` of each client, plain or async. It returns
            the user, or :class:`Credentials` with the user and the time at which the connection is
            closed, or None to refuse the client with 403. By default every client may connect, and
            the user is None.
        id: called with the user; returns the id of the connection for :meth:`disconnect`, or None.
            By default connections have no id.
        refresh: called with a new ``access_token`` that a client has pushed and the current user,
            plain or async. It returns the user or :class:`Credentials`, or None to refuse the
            token. Without it, credentials cannot be renewed, and ``access_token`` is an ordinary
            event.
        max_topics: maximum number of topics that one client may have joined.
        message_rate: the limit on messages of one client, including joins and heartbeats; None for
            no limit. The first ``messages`` of them may arrive at once.
        join_rate: the same for joins and new tokens, successful or not.
        codec: encodes and decodes the text of messages, with the JSON library of your choice: by
            default ``JSON()``, the standard library.

    Raises:
        InvalidOption: an argument has the wrong type or value.
        UsageError: a class has a history, but the hub was opened without one.
    """

    _socket_class: ClassVar[type[ChannelsSocket]] = ChannelsSocket

    def __init__(
        self,
        routes: Mapping[str, type[Channel[Any]]],
        *,
        hub: Hub,
        connect: Authenticate | None = None,
        id: Identify | None = None,  # noqa: A002 - the term of Phoenix
        refresh: Refresh | None = None,
        max_topics: int = 100,
        message_rate: Rate | None = MESSAGE_RATE,
        join_rate: Rate | None = JOIN_RATE,
        codec: JSON[Any] | None = None,
    ) -> None:
        if not isinstance(hub, Hub):
            raise InvalidOption(f"hub must be a Hub, not {describe_value(hub)}")
        for name, function in (("connect", connect), ("id", id), ("refresh", refresh)):
            if not (function is None or callable(function)):
                text = f"{describe_value(function)}{called_hint(function)}"
                raise InvalidOption(f"{name} must be a function, not {text}")
        if inspect.iscoroutinefunction(id):
            raise InvalidOption("id must be a plain function: it is not awaited")
        check_whole("max_topics", max_topics, least=1, none=False)
        check_rate("message_rate", message_rate)
        check_rate("join_rate", join_rate)
        if join_rate is not None and join_rate.messages < max_topics:
            raise InvalidOption(
                f"join_rate must allow at least max_topics ({max_topics}) joins at once, not "
                f"{join_rate.messages}: after a reconnect, clients join all topics again"
            )
        if not (codec is None or (isinstance(codec, JSON) and codec.into is Any)):
            raise InvalidOption(
                "codec must be a JSON without into, such as JSON(library='msgspec'), "
                f"not {describe_value(codec)}"
            )
        self.hub: Hub = hub
        """The hub."""
        self._routes = ChannelRoutes(routes)
        self._index = TopicIndex(hub, V2ServerSerializer(codec))
        if self._routes.has_history:
            hub._keep_topics(self._find_retention)  # noqa: SLF001 - a part of the package
        self._has_presence = False
        self._has_ids = id is not None
        options = SocketOptions(
            routes=self._routes,
            index=self._index,
            ids=IdIndex(hub),
            max_topics=max_topics,
            message_rate=message_rate,
            join_rate=join_rate,
            refresh=refresh,
            identify=id,
        )
        make_socket = partial(self._socket_class, options)
        self._target = ChannelsTarget(hub, make_socket, connect, id)

    def __repr__(self) -> str:
        return f"<Channels {', '.join(self._routes.patterns)}, {len(self._index)} topics>"

    @property
    def socket(self) -> ServeTarget:
        """The target for :func:`trioglock.serve` or :class:`trioglock.asgi.WebSocketApp`."""
        return self._target

    async def broadcast(self, topic: str, event: str, payload: Any, *, keep: bool = True) -> None:
        """Push an event to every client that has joined a topic, in all processes of the hub.

        Args:
            topic: the topic, such as ``"room:1"``.
            event: the name of the event.
            payload: a JSON value, or ``bytes`` for a binary message.
            keep: if the class has a history, whether the event is kept and has an id.

        Raises:
            InvalidOption, EncodeError, InvalidMessage: an argument cannot be sent.
            BrokerUnavailable, BrokerError: the broker did not accept the message.
            UsageError: the hub is not open.
        """
        history = self._routes.find_history(check_topic(topic))
        if history is not None:
            payload = history.without_id(payload, keep=keep)
        data = self._encode(topic, event, payload)
        await self.hub.publish(data, hub_channel(topic, keep=keep or history is None))

    def local_broadcast(self, topic: str, event: str, payload: Any) -> None:
        """Push an event to every client of this process that has joined a topic.

        It does not wait, and may be called in hooks. The event is not kept in a history.

        Args:
            topic: as in :meth:`broadcast`.
            event: as in :meth:`broadcast`.
            payload: as in :meth:`broadcast`.

        Raises:
            InvalidOption, EncodeError, InvalidMessage: an argument cannot be sent.
        """
        self._index.deliver_local(topic, self._encode(topic, event, payload))

    async def disconnect(self, id: str) -> None:  # noqa: A002 - the term of Phoenix
        """Close all connections that have the given id, in all processes of the hub, with 1001.

        Phoenix clients connect again; ``connect`` can then refuse them. The method always returns
        None, because it cannot determine whether there is such a connection.

        Args:
            id: the id, as returned by the ``id`` function.

        Raises:
            InvalidOption: ``id`` is not a str.
            BrokerUnavailable, BrokerError: the broker did not accept the message.
            UsageError: the hub is not open, or this object has no ``id`` function.
        """
        if not self._has_ids:
            raise UsageError(
                "connections have no ids: pass a function to Channels, such as "
                "Channels(..., id=lambda user: user.name)"
            )
        await self.hub.publish(DISCONNECT, id_channel(id))

    def _find_retention(self, channel: str) -> Retention | None:
        topic = topic_of(channel)
        history = None if topic is None else self._routes.find_history(topic)
        return None if history is None else history.retention

    def _encode(self, topic: str, event: str, payload: Any) -> Data:
        return self._index.serializer.encode_broadcast(
            check_topic(topic), check_event(event), payload
        )
