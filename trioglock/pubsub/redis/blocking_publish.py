"""``publish()``, for programs that do not use trio, such as Django, Flask or a script."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from ...errors import BrokerError, BrokerUnavailable, UsageError
from ...frames import BytesLike, Data
from ...options import check_seconds
from ..broker import HISTORY_SECONDS
from ..history import check_history
from ..message import INCOMING, check_channel, check_data, check_name
from .address import import_redis, normalize_redis_url, parse_address
from .scripts import PUBLISH, HubKeys, publish_arguments
from .server_info import mode_of, refusal

__all__ = ["publish", "refuse_trio_task"]

RETRY_DELAY = 0.1
"""Seconds between attempts to find the master."""

MAX_SOCKET_TIMEOUT = 2_000_000.0
"""Seconds; a longer timeout is no timeout."""


def publish(
    message: str | BytesLike,
    channel: str = "",
    *,
    name: str = "trioglock",
    url: str = "redis://localhost:6379",
    timeout: float | None = 10,
    history: int | None = None,
    history_seconds: float | None = HISTORY_SECONDS,
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
        history: number of messages to keep for each channel, the same as for the hubs'
            :class:`RedisBroker`; None for hubs without a history.
        history_seconds: how long they are kept, the same as for the hubs.

    Raises:
        InvalidFrame: the message is neither text nor bytes-like.
        InvalidOption: another argument has the wrong type or value, or the extra is missing:
            ``pip install 'trioglock[redis]'``.
        BrokerUnavailable: Redis could not be reached in time, or is not a master.
        BrokerError: Redis returned an error.
        UsageError: called in a trio task: use ``await hub.publish()`` there.
    """
    data = check_data(message)
    name, channel = check_name(name), check_channel(channel)
    check_seconds("timeout", timeout)
    check_history(history, history_seconds)
    refuse_trio_task("publish", "hub.publish")
    address = parse_address(url)
    client = _client(url, timeout)
    errors = import_redis()[0].exceptions
    keys = HubKeys(name)
    if history is None or channel == INCOMING:
        send = partial(_publish_plainly, client, keys.plain(channel), data)
    else:
        names, values = publish_arguments(keys, channel, data, history, history_seconds)
        send = partial(client.register_script(PUBLISH), names, values)
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        _send_to_master(client, send, errors, deadline)
    except errors.RedisError as error:
        # Not chained to redis-py's exception, which may quote the password.
        text = address.hide_credentials(str(error))
        if isinstance(error, errors.AuthenticationError):
            raise BrokerError(f"Redis returned an error: {text}") from None
        if isinstance(error, errors.ConnectionError | errors.TimeoutError):
            raise BrokerUnavailable(f"could not reach Redis: {text}") from error.__cause__
        reason = _ask_for_reason(client, address, errors, history=history is not None)
        raise reason or BrokerError(f"Redis returned an error: {text}") from None


def refuse_trio_task(function: str, alternative: str) -> None:
    """Raise UsageError in a trio task, which a function that blocks would stop with all others."""
    if trio.lowlevel.in_trio_task():
        raise UsageError(f"{function}() blocks: in a trio task use await {alternative}()")


def _publish_plainly(client: Any, channel: str, data: Data) -> None:
    """Publish, and raise ReadOnlyError if the server is a replica, which accepts PUBLISH."""
    errors = import_redis()[0].exceptions
    pipeline = client.pipeline(transaction=False)
    pipeline.publish(channel, data).execute_command("ROLE")
    published, role = pipeline.execute(raise_on_error=False)
    if isinstance(published, Exception):
        raise published
    if isinstance(role, list) and role[0] == b"slave":
        raise errors.ReadOnlyError("the server is a replica")


def _ask_for_reason(
    client: Any, address: object, errors: Any, *, history: bool
) -> BrokerError | None:
    """The reason why the server refuses everything, if it reports its mode."""
    try:
        return refusal(mode_of(client.info()), address, history=history)
    except errors.RedisError:
        return None


def _send_to_master(client: Any, send: Callable[[], object], errors: Any, deadline: float) -> None:
    """Send, and while the server is a replica, reconnect: the address may lead to another one."""
    while True:
        try:
            send()
        except errors.ResponseError as error:
            # Before Redis 7, the error of a script contains that of its command.
            if not (isinstance(error, errors.ReadOnlyError) or "-READONLY " in str(error)):
                raise
            client.connection_pool.disconnect(inuse_connections=False)
            if time.monotonic() + RETRY_DELAY >= deadline:
                raise errors.ConnectionError(f"the server is not a master: {error}") from None
            time.sleep(RETRY_DELAY)
        else:
            return


@functools.lru_cache(maxsize=16)
def _client(url: str, timeout: float | None) -> Any:
    redis, _ = import_redis()
    # redis-py would encode international names with IDNA 2003.
    url = normalize_redis_url(url)
    # Sockets accept no longer timeout than about 24 days.
    timeout = None if timeout is None or timeout > MAX_SOCKET_TIMEOUT else timeout
    return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
