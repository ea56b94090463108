"""``publish()``, for programs that do not use trio, such as Django, Flask or a script."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import trio

from ...errors import BrokerError, BrokerUnavailable, UsageError
from ...frames import BytesLike, Data
from ...options import check_seconds
from ..broker import HISTORY_SECONDS
from ..history import check_history
from ..message import INCOMING, check_channel, check_data, check_name, check_sharded_channel
from .address import (
    ClusterAddress,
    RedisAddress,
    SentinelAddress,
    check_sharded,
    import_redis,
    parse_redis_url,
)
from .discovery import DISCOVERY_TIMEOUT, ClusterDiscovery, Discovery, NoServer, open_discovery
from .scripts import (
    PUBLISH,
    PUBLISH_SHARDED,
    HubKeys,
    ShardKeys,
    publish_arguments,
    publish_sharded_arguments,
)
from .server_info import mode_of, refusal

__all__ = ["publish", "refuse_trio_task"]

MOVING = ("ASK ", "MOVED ", "TRYAGAIN", "CLUSTERDOWN")
"""The beginnings of the errors of a cluster whose slots are being moved."""

RETRY_DELAY = 0.1
"""Seconds between attempts to find the master."""

ATTEMPT_TIMEOUT = 3.0
"""Seconds to wait for a master that may be replaced by another one."""

MAX_SOCKET_TIMEOUT = 2_000_000.0
"""A timeout longer than this number of seconds means no timeout."""


def publish(
    message: str | BytesLike,
    channel: str = "",
    *,
    name: str = "trioglock",
    url: str = "redis://localhost:6379",
    timeout: float | None = 10,
    history: int | None = None,
    history_seconds: float | None = HISTORY_SECONDS,
    sharded: bool = False,
) -> None:
    """Publish from a program that does not use trio, to hubs that use the same Redis server.

    ::

        publish("new model!", channel="model_created")

    This function blocks, may be called from any thread, and reuses its connections.

    Args:
        message: text or binary.
        channel: name of the channel; by default the message is a broadcast.
        name: name of the hub.
        url: URL of the Redis server, sentinels or cluster, as in :class:`RedisBroker`.
        timeout: seconds for connecting, and separately for waiting for the reply; None for no
            limit. With Sentinel or Cluster, publishing is retried for the same time during a
            failover or while the master is slow, so in rare cases a message arrives more than once.
        history: number of messages to keep for each channel, the same as for the hubs'
            :class:`RedisBroker`; None for hubs without a history.
        history_seconds: how long messages are kept, the same as for the hubs.
        sharded: whether the hubs' :class:`RedisBroker` has ``sharded=True``.

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
    servers = _open_servers(url, timeout, name)
    check_sharded(sharded, servers.address)
    errors = servers.errors
    keys = ShardKeys(name) if sharded else HubKeys(name)
    if isinstance(keys, ShardKeys):
        servers = servers.serving(keys.plain(check_sharded_channel(channel)))
    if history is None or channel == INCOMING:
        command = "SPUBLISH" if sharded else "PUBLISH"
        send = partial(_publish_plainly, command=(command, keys.plain(channel), data))
    else:
        retention = history, history_seconds
        if isinstance(keys, ShardKeys):
            script = PUBLISH_SHARDED
            names, values = publish_sharded_arguments(keys, channel, data, *retention)
        else:
            script = PUBLISH
            names, values = publish_arguments(keys, channel, data, *retention)
        send = partial(_publish_with_history, script=script, names=names, values=values)
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        _send_to_master(servers, send, deadline)
    except errors.RedisError as error:
        # Not chained to redis-py's exception, which may quote the password.
        text = servers.address.hide_credentials(str(error))
        if isinstance(error, errors.AuthenticationError):
            raise BrokerError(f"Redis returned an error: {text}") from None
        if isinstance(error, errors.ConnectionError | errors.TimeoutError):
            raise BrokerUnavailable(f"could not reach Redis: {text}") from error.__cause__
        reason = _ask_for_reason(servers, history=history is not None)
        raise reason or BrokerError(f"Redis returned an error: {text}") from None


def refuse_trio_task(function: str, alternative: str) -> None:
    """Raise UsageError in a trio task, because a blocking function would stop all tasks."""
    if trio.lowlevel.in_trio_task():
        raise UsageError(f"{function}() blocks: in a trio task use await {alternative}()")


def _publish_plainly(client: Any, *, command: tuple[str, str, Data]) -> None:
    """Publish, and raise ReadOnlyError if the server is a replica, which accepts PUBLISH."""
    errors = import_redis()[0].exceptions
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command(*command).execute_command("ROLE")
    published, role = pipeline.execute(raise_on_error=False)
    if isinstance(published, Exception):
        raise published
    if isinstance(role, list) and role[0] == b"slave":
        raise errors.ReadOnlyError("the server is a replica")


def _publish_with_history(client: Any, *, script: str, names: list[Any], values: list[Any]) -> None:
    client.register_script(script)(names, values)


def _ask_for_reason(servers: BlockingServers, *, history: bool) -> BrokerError | None:
    """Return the reason why the server refuses all commands, if it reports its mode."""
    if servers.discovery is not None:
        return None
    try:
        info = servers.connect(servers.address).info()
    except servers.errors.RedisError:
        return None
    return refusal(mode_of(info), servers.address, history=history)


def _send_to_master(
    servers: BlockingServers, send: Callable[[Any], object], deadline: float
) -> None:
    """Send, and retry while the server is a replica: its address may lead to another one later.

    With sentinels, also retry while the master cannot be reached.
    """
    errors = servers.errors
    while True:
        failure = None
        try:
            master = servers.find_master(deadline)
            send(servers.connect(master))
            if servers.is_master(master, deadline):
                return
        except errors.ResponseError as error:
            if not servers.is_temporary(error):
                raise
            servers.connect(master).connection_pool.disconnect(inuse_connections=False)
            failure = errors.ConnectionError(f"the server is not a master: {error}")
        except errors.AuthenticationError:
            raise
        except (errors.ConnectionError, errors.TimeoutError) as error:
            if servers.discovery is None:
                raise
            failure = error
        servers.forget_master()
        if time.monotonic() + RETRY_DELAY >= deadline:
            raise failure or errors.ConnectionError("the master is being replaced")
        time.sleep(RETRY_DELAY)


class BlockingServers:
    """The servers behind a URL. All calls of :func:`publish` share the connections to them.

    Args:
        url: the URL.
        timeout: seconds for connecting, and separately for waiting for a reply; None for no limit.
        hub: name of the hub.
    """

    def __init__(self, url: str, timeout: float | None, hub: str) -> None:
        self.address: RedisAddress | SentinelAddress | ClusterAddress = parse_redis_url(url)
        server = open_discovery(self.address, hub)
        self._server = server
        self.discovery: Discovery | None = server if isinstance(server, Discovery) else None
        self.errors: Any = import_redis()[0].exceptions
        # The longest timeout that sockets accept is about 24 days.
        self._timeout = None if timeout is None or timeout > MAX_SOCKET_TIMEOUT else timeout
        self.connect: Callable[[Any], Any] = functools.lru_cache(maxsize=16)(self._connect)
        self.serving: Callable[[str], BlockingServers] = functools.lru_cache(maxsize=1024)(
            self._serving
        )

    def _serving(self, hash_tag: str) -> BlockingServers:
        """Return the same servers, to find the one that serves the slot of a sharded channel."""
        assert isinstance(self.address, ClusterAddress)
        servers = copy.copy(self)
        servers._server = servers.discovery = ClusterDiscovery(self.address, hash_tag)  # noqa: SLF001 - the same class
        return servers

    def _connect(self, server: RedisAddress) -> Any:
        redis, _ = import_redis()
        limit, options = self._timeout, dict[str, Any]()
        if self.discovery is not None:
            is_sentinel = (
                isinstance(self.address, SentinelAddress) and server in self.address.sentinels
            )
            longest = DISCOVERY_TIMEOUT if is_sentinel else ATTEMPT_TIMEOUT
            limit = longest if limit is None else min(limit, longest)
            options["retry"] = None  # another server may be the master now
        if server.path is None:
            scheme = "redis" if server.ssl_context is None else "rediss"
            url = f"{scheme}://{server}"
        else:
            url = f"unix://{quote(server.path)}"
        return redis.Redis.from_url(
            url,
            username=server.username,
            password=server.password,
            db=server.db,
            socket_timeout=limit,
            socket_connect_timeout=limit,
            **options,
        )

    def is_temporary(self, error: Exception) -> bool:
        """Whether another server may accept a message that one server refused with this error."""
        errors = self.errors
        # Early versions of redis-py parse these errors only in their client for clusters.
        is_moving = isinstance(
            error, errors.AskError | errors.TryAgainError | errors.ClusterDownError
        ) or str(error).startswith(MOVING)
        # Before Redis 7, the error of a script contains that of its command.
        is_replica = isinstance(error, errors.ReadOnlyError) or "-READONLY " in str(error)
        return is_replica or (is_moving and self.discovery is not None)

    def find_master(self, deadline: float) -> RedisAddress:
        """Return the address of the master; ask the servers for it unless it is known.

        Args:
            deadline: the time after which no further servers are asked.

        Raises:
            BrokerError: no server knows the address. redis.ConnectionError: no server knows it, and
                some could not be reached.
        """
        if isinstance(self._server, RedisAddress):
            return self._server
        return self._server.found or self._ask(self._server, deadline)

    def is_master(self, server: RedisAddress, deadline: float) -> bool:
        """Ask whether a server is still the master, if that can change.

        A master that is being replaced accepts messages for some time, but no hub receives them.
        """
        if self.discovery is None:
            return True
        try:
            return self._ask(self.discovery, deadline) == server
        except (BrokerError, self.errors.RedisError):
            return True  # if no server answers, hubs cannot find another master either

    def forget_master(self) -> None:
        if self.discovery is not None:
            self.discovery.found = None
            self.discovery.distrust()

    def _ask(self, discovery: Discovery, deadline: float) -> RedisAddress:
        errors, refusals, failures = self.errors, list[str](), list[str]()
        for server in discovery.servers:
            try:
                reply = self.connect(server).execute_command(*discovery.question)
                return discovery.take_answer(server, reply)
            except (errors.AuthenticationError, errors.ResponseError, BrokerError) as error:
                text = server.hide_credentials(str(error))
                refusals.append(discovery.describe_refusal(server, text))
            except (errors.ConnectionError, errors.TimeoutError, NoServer) as error:
                failures.append(str(error))
            if time.monotonic() >= deadline:
                break
        text = f"could not find the master of {discovery}: {'; '.join(refusals + failures)}"
        raise errors.ConnectionError(text) if failures else BrokerError(text)


@functools.lru_cache(maxsize=16)
def _open_servers(url: str, timeout: float | None, hub: str) -> BlockingServers:
    return BlockingServers(url, timeout, hub)
