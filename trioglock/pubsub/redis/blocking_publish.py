"""``publish()``, for programs that do not use trio, such as Django, Flask or a script."""

from __future__ import annotations

import functools
from typing import Any

import trio

from ...errors import BrokerError, BrokerUnavailable, UsageError
from ...frames import BytesLike
from ...options import check_seconds, check_whole
from ..message import check_channel, check_data, check_name
from .address import import_redis, parse_address
from .stream import EXTRA_ENTRIES

__all__ = ["publish"]


def publish(
    message: str | BytesLike,
    channel: str = "",
    *,
    name: str = "trioglock",
    url: str = "redis://localhost:6379",
    timeout: float | None = 10,
    history: int | None = None,
) -> None:
    """Publish from a program that does not use trio, to hubs that use the same Redis server.

    ::

        publish("new model!", channel="model_created")

    It blocks, may be called from any thread, and reuses its connections.

    Args:
        message: text or binary.
        channel: name of the channel; by default the message is a broadcast.
        name: name of the hub.
        url: URL of the Redis server, as for :class:`RedisBroker`.
        timeout: seconds to connect, and again to wait for the reply; None for no limit.
        history: number of messages to keep, the same as for the hubs' :class:`RedisBroker`; None
            for hubs without a history.

    Raises:
        InvalidFrame: the message is neither text nor bytes-like.
        InvalidOption: another argument has the wrong type or value, or the extra is missing:
            ``pip install 'trioglock[redis]'``.
        BrokerUnavailable: Redis could not be reached in time.
        BrokerError: Redis returned an error.
        UsageError: called in a trio task: use ``await hub.publish()`` there.
    """
    data = check_data(message)
    name, channel = check_name(name), check_channel(channel)
    check_seconds("timeout", timeout)
    check_whole("history", history, least=1)
    if trio.lowlevel.in_trio_task():
        raise UsageError("publish() blocks: in a trio task use await hub.publish()")
    address = parse_address(url)
    client = _client(url, timeout)
    errors = import_redis()[0].exceptions
    try:
        if history is None:
            client.publish(f"{name}/{channel}", data)
        else:
            entry = {"channel": channel, "data": data}
            client.xadd(name, entry, maxlen=history + EXTRA_ENTRIES, approximate=False)
    except errors.RedisError as error:
        # Not chained to redis-py's exception, which may quote the password.
        text = address.hide_credentials(str(error))
        unreachable = isinstance(error, errors.ConnectionError | errors.TimeoutError)
        if unreachable and not isinstance(error, errors.AuthenticationError):
            raise BrokerUnavailable(f"could not reach Redis: {text}") from error.__cause__
        raise BrokerError(f"Redis returned an error: {text}") from None


@functools.lru_cache(maxsize=16)
def _client(url: str, timeout: float | None) -> Any:
    redis, _ = import_redis()
    address = parse_address(url)
    return redis.Redis(
        host=address.host,
        port=address.port,
        unix_socket_path=address.path,
        ssl=address.ssl_context is not None,
        username=address.username,
        password=address.password,
        db=address.db,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )
