"""``publish()``: for programs without trio, such as Django, Flask or a script."""

from __future__ import annotations

import functools
from typing import Any

import trio

from ...errors import BrokerError, BrokerUnavailable, UsageError
from ...frames import BytesLike
from ...options import check_seconds, check_whole
from ..message import check_channel, check_data, check_name
from .address import extra, parse_address
from .source import SPARE

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
    """Publish from a program without trio, through the Redis server that the hubs listen to.

    ::

        publish("new model!", channel="model_created")

    It blocks, and may be called from any thread. Connections are kept for the next call.

    Args:
        message: text or binary.
        channel: where to; by default everyone gets it.
        name: of the hub.
        url: of the Redis server, as for :class:`RedisBroker`.
        timeout: seconds to connect, and again to wait for the answer; None for ever.
        history: messages to keep, as the hubs' :class:`RedisBroker` does; None for none.

    Raises:
        InvalidFrame: the message is neither text nor bytes-like.
        InvalidOption: something else does not fit, or the extra is missing: ``pip install
            'trioglock[redis]'``.
        BrokerUnavailable: Redis was not reached in time.
        BrokerError: Redis answered with an error.
        UsageError: called inside trio: use ``await hub.publish()`` there.
    """
    data = check_data(message)
    check_name(name)
    check_channel(channel)
    check_seconds("timeout", timeout)
    check_whole("history", history, least=1)
    if trio.lowlevel.in_trio_task():
        raise UsageError("publish() blocks: inside trio use await hub.publish()")
    address = parse_address(url)
    client = _client(url, timeout)
    errors = extra()[0].exceptions
    try:
        if history is None:
            client.publish(f"{name}/{channel}", data)
        else:
            entry = {"channel": channel, "data": data}
            client.xadd(name, entry, maxlen=history + SPARE, approximate=False)
    except errors.RedisError as error:
        # Without the error itself: it may quote the password.
        text = address.without_credentials(str(error))
        unreached = isinstance(error, errors.ConnectionError | errors.TimeoutError)
        if unreached and not isinstance(error, errors.AuthenticationError):
            raise BrokerUnavailable(f"Redis was not reached: {text}") from error.__cause__
        raise BrokerError(f"Redis says: {text}") from None


@functools.lru_cache(maxsize=16)
def _client(url: str, timeout: float | None) -> Any:
    return extra()[0].Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
