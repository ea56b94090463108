"""``RedisBroker``: connects hubs in several processes or on several machines."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..._hints import describe_value
from ..._scope import open_scope
from ..._text import seconds_text
from ..._timer import PeerTimeout
from ...errors import BrokerError, BrokerUnavailable, InvalidOption
from ...options import check_seconds
from ...retry import Backoff
from ..broker import HISTORY_SECONDS, Broker, BrokerSession, Deliver
from ..history import FindRetention, Retention, check_history, join_retentions
from .address import ClusterAddress, check_sharded, parse_redis_url
from .connection import RedisTimings
from .discovery import SentinelDiscovery, open_discovery
from .history import RedisHistory
from .pipeline import CommandPipeline
from .pubsub import PubSubReceiver
from .scripts import HubKeys, ShardKeys
from .sentinel import SentinelWatch
from .session import RedisSession, ShardSession
from .shard_history import ShardHistory
from .shard_receiver import ShardReceiver
from .shards import ShardCommands, Shards

__all__ = ["RedisBroker"]


class RedisBroker(Broker):
    """A broker that uses a Redis server's PUBLISH and SUBSCRIBE, and its streams for a history.

    A message on the ``news`` channel of the ``trioglock`` hub is published on the Redis channel
    ``trioglock/news`` or, with a history, ``{trioglock}/news``. For each channel with subscribers,
    a process subscribes to both names, so any program that can send PUBLISH can send messages to
    the hub, as in sock-drawer.

    The broker detects a Redis server that restarts, is cut off, does not answer or is no longer the
    master. It reconnects, subscribes again and delivers a :class:`Gap` or, with a history, the
    missed messages. In the meantime, ``publish`` waits up to ``publish_timeout`` seconds. A message
    that was being published when the connection was lost is published again, so in rare cases it
    arrives twice.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, or
            ``unix://[[user]:password@]/path[?db=n]``: the address of a master, or one that always
            leads to the master. With Redis Sentinel,
            ``redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/name[/db]``: the hosts
            are those of sentinels, the name is that of the master, and the credentials are those
            for the master. Credentials for the sentinels follow as
            ``?sentinel_password=...&sentinel_username=...``. With Redis Cluster,
            ``redis+cluster://[[user]:password@]host[:port][,host[:port]...]``, with one or more of
            the nodes. ``rediss+sentinel://`` and ``rediss+cluster://`` use TLS to all servers.
        history: number of messages to keep for each channel, for subscribers that resume; None
            keeps none. It requires Redis 6.2 or later. The ``incoming`` channel has no history, and
            topics of :mod:`trioglock.channels` have their own. Other programs publish with
            :func:`publish` and the same ``history``; messages sent with PUBLISH have no id and are
            not kept.
        history_seconds: how long the messages of the history are kept; None for no limit.
        sharded: with a cluster of Redis 7.0 or later, spread the channels over its nodes. A message
            is sent only to the node that serves the hash slot of its channel, with SPUBLISH, and
            has an id of that channel. Patterns and broadcasts are not available, and names of
            channels must not contain braces. All hubs and publishers with the same name need the
            same value.
        ssl_context: for TLS; by default the system's certificates are trusted.
        open_timeout: seconds to reach Redis on entering ``async with hub``; None for no limit.
        publish_timeout: maximum number of seconds for publishing a message or confirming a
            subscription; None for no limit.
        health_interval: seconds of silence before a health check.
        health_timeout: seconds to wait for any reply.
        backoff: delays between attempts to reconnect, whose number is not limited; by default up to
            5 seconds, and up to 1 second in a cluster.

    Raises:
        InvalidOption: an argument has the wrong type or value, or the extra is missing: ``pip
            install 'trioglock[redis]'``.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379",
        *,
        history: int | None = None,
        history_seconds: float | None = HISTORY_SECONDS,
        sharded: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        open_timeout: float | None = 10,
        publish_timeout: float | None = 10,
        health_interval: float = 5,
        health_timeout: float = 3,
        backoff: Backoff | None = None,
    ) -> None:
        check_history(history, history_seconds)
        check_seconds("open_timeout", open_timeout)
        check_seconds("publish_timeout", publish_timeout)
        check_seconds("health_interval", health_interval, none=False)
        check_seconds("health_timeout", health_timeout, none=False)
        if not (backoff is None or isinstance(backoff, Backoff)):
            raise InvalidOption(f"backoff must be a Backoff, not {describe_value(backoff)}")
        self._address = parse_redis_url(url, ssl_context)
        check_sharded(sharded, self._address)
        self.sharded: bool = sharded
        # Sentinels report a new master, whereas the nodes of a cluster must be asked for it.
        maximum = 1 if isinstance(self._address, ClusterAddress) else 5
        self._retention = None if history is None else Retention(history, history_seconds)
        self._timings = RedisTimings(
            open_timeout=math.inf if open_timeout is None else open_timeout,
            publish_timeout=math.inf if publish_timeout is None else publish_timeout,
            health_interval=health_interval,
            health_timeout=health_timeout,
            backoff=backoff
            or Backoff(initial=0.1, maximum=maximum, max_attempts=None, stable_after=5),
        )

    def __repr__(self) -> str:
        return f"<RedisBroker at {self._address}>"

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        retention = join_retentions(self._retention, find_retention)
        has_history = not (self._retention is None and find_retention is None)
        opening = self._open_sharded if self.sharded else self._open_single
        async with open_scope() as nursery:
            session, history = await opening(nursery, name, deliver, retention, has_history)
            session.history = None if self._retention is None else history
            session.topic_history = None if find_retention is None else history
            try:
                yield session
            finally:
                session.close()

    async def _open_sharded(
        self,
        nursery: trio.Nursery,
        name: str,
        deliver: Deliver,
        retention: FindRetention,
        has_history: bool,
    ) -> tuple[ShardSession, ShardHistory | None]:
        assert isinstance(self._address, ClusterAddress)
        timings, keys = self._timings, ShardKeys(name)
        shards = Shards(self._address, timings)
        commands = ShardCommands(shards, timings, nursery)
        history = ShardHistory(commands, keys, retention) if has_history else None
        receiver = ShardReceiver(shards, timings, keys, history, deliver, nursery)
        if history is not None:
            history.find_position = receiver.position_of
        nursery.start_soon(receiver.run)
        nursery.start_soon(shards.run)
        await self._wait_known(shards)
        return ShardSession(commands, receiver, keys, retention), history

    async def _wait_known(self, shards: Shards) -> None:
        with PeerTimeout(self._timings.open_timeout):
            while not shards.is_up:
                await shards.wait_looked_up()
                if isinstance(shards.failure, BrokerError):
                    raise shards.failure
        if not shards.is_up:
            raise self._unreachable() from shards.failure

    async def _open_single(
        self,
        nursery: trio.Nursery,
        name: str,
        deliver: Deliver,
        retention: FindRetention,
        has_history: bool,
    ) -> tuple[RedisSession, RedisHistory | None]:
        address, timings, keys = open_discovery(self._address, name), self._timings, HubKeys(name)
        commands = CommandPipeline(address, timings, keys.ids if has_history else None)
        history = RedisHistory(commands, keys, retention) if has_history else None
        receiver = PubSubReceiver(address, timings, keys, history, deliver)
        commands.partner, receiver.partner = receiver, commands
        commands.attempted = receiver.attempted
        nursery.start_soon(receiver.run)
        nursery.start_soon(commands.run)
        if isinstance(address, SentinelDiscovery):
            for sentinel in address.servers:
                watch = SentinelWatch(sentinel, address, timings, (receiver, commands))
                nursery.start_soon(watch.run)
        await self._wait_up(receiver, commands)
        return RedisSession(commands, receiver, keys, retention), history

    async def _wait_up(self, receiver: PubSubReceiver, commands: CommandPipeline) -> None:
        """Wait for both connections, because clients are refused while one of them is missing."""
        with PeerTimeout(self._timings.open_timeout):
            while not (receiver.subscribed.is_set() and commands.is_up):
                await receiver.attempted.park()
                for failure in (receiver.failure, commands.failure):
                    if isinstance(failure, BrokerError):
                        raise failure
            return
        raise self._unreachable() from receiver.failure or commands.failure

    def _unreachable(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"could not reach Redis at {self._address} within "
            f"{seconds_text(self._timings.open_timeout)}"
        )
