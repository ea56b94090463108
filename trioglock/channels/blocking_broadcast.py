"""``broadcast()`` and ``disconnect()``, for programs without trio, such as Django and Flask."""

from __future__ import annotations

from typing import Any

from .._hints import describe_value
from ..errors import InvalidOption
from ..protocols.phoenix.message import check_event, check_topic
from ..protocols.phoenix.serializer import V2ServerSerializer
from ..pubsub import publish
from ..pubsub.redis.blocking_publish import refuse_trio_task
from .history import History
from .ids import DISCONNECT, id_channel
from .topics import hub_channel

__all__ = ["broadcast", "disconnect"]

_serializer = V2ServerSerializer()


def broadcast(
    topic: str,
    event: str,
    payload: Any,
    *,
    name: str = "trioglock",
    url: str = "redis://localhost:6379",
    timeout: float | None = 10,
    history: History | None = None,
    sharded: bool = False,
) -> None:
    """Broadcast from a program that does not use trio, as :meth:`Channels.broadcast` does.

    ::

        broadcast("room:1", "shout", {"text": "hi"}, url="redis://localhost:6379")

    It blocks, may be called from any thread, and reuses its connections to Redis.

    Args:
        topic: the topic, such as ``"room:1"``.
        event: the name of the event.
        payload: a JSON value, or ``bytes`` for a binary message.
        name: name of the hub.
        url: URL of the Redis server, as in :class:`~trioglock.pubsub.RedisBroker`.
        timeout: seconds for connecting, and separately for waiting for the reply; None for no
            limit.
        history: the history of the channel class, if it has one.
        sharded: whether the hub's :class:`~trioglock.pubsub.RedisBroker` has ``sharded=True``.

    Raises:
        InvalidOption: an argument has the wrong type or value, or the ``redis`` extra is not
            installed: ``pip install 'trioglock[redis]'``.
        EncodeError, InvalidMessage: the payload cannot be sent.
        BrokerUnavailable: Redis could not be reached in time, or is not a master.
        BrokerError: Redis returned an error.
        UsageError: called in a trio task: use ``await channels.broadcast()`` there.
    """
    if history is not None:
        if not isinstance(history, History):
            raise InvalidOption(
                "history must be that of the channel class, such as Room.history, not "
                f"{describe_value(history)}"
            )
        payload = history.without_id(payload)
    frame = _serializer.encode_broadcast(check_topic(topic), check_event(event), payload)
    refuse_trio_task("broadcast", "channels.broadcast")
    publish(
        frame,
        hub_channel(topic),
        name=name,
        url=url,
        timeout=timeout,
        history=None if history is None else history.size,
        history_seconds=None if history is None else history.seconds,
        sharded=sharded,
    )


def disconnect(
    id: str,  # noqa: A002 - the term of Phoenix
    *,
    name: str = "trioglock",
    url: str = "redis://localhost:6379",
    timeout: float | None = 10,
    sharded: bool = False,
) -> None:
    """Close the connections with an id, as :meth:`Channels.disconnect` does.

    Args:
        id: the id, as returned by the ``id`` function of :class:`Channels`.
        name: as in :func:`broadcast`.
        url: as in :func:`broadcast`.
        timeout: as in :func:`broadcast`.
        sharded: as in :func:`broadcast`.

    Raises:
        InvalidOption, BrokerUnavailable, BrokerError, UsageError: as in :func:`broadcast`.
    """
    refuse_trio_task("disconnect", "channels.disconnect")
    publish(DISCONNECT, id_channel(id), name=name, url=url, timeout=timeout, sharded=sharded)
