"""Following the events of a Redis Sentinel.

A master that is being replaced keeps its role for some seconds after the sentinels have begun to
direct clients to the new master. Messages that the previous master accepts during this time do not
reach other hubs, so a hub disconnects from it as soon as a sentinel reports the new master.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import trio

from ...errors import BrokerError
from .address import RedisAddress
from .connection import ReconnectingConnection, RedisDisconnected, RedisTimings, dial
from .discovery import DISCOVERY_TIMEOUT, MASTER_EVENTS, SentinelDiscovery

__all__ = ["SentinelWatch"]


class SentinelWatch:
    """Receives the events of one sentinel, and drops connections when the master changes.

    Args:
        sentinel: the address of the sentinel.
        discovery: the discovery to update with the new master.
        timings: the timing arguments of the broker.
        connections: the connections to the master.
    """

    def __init__(
        self,
        sentinel: RedisAddress,
        discovery: SentinelDiscovery,
        timings: RedisTimings,
        connections: Sequence[ReconnectingConnection],
    ) -> None:
        self._sentinel = sentinel
        self._discovery = discovery
        self._timings = timings
        self._connections = connections

    async def run(self) -> NoReturn:
        """Connect and reconnect until cancelled."""
        while True:
            # The discovery reports the errors of sentinels.
            with suppress(RedisDisconnected, BrokerError):
                await self._watch()
            await trio.sleep(DISCOVERY_TIMEOUT)

    async def _watch(self) -> NoReturn:
        async with dial(self._sentinel, DISCOVERY_TIMEOUT) as connection:
            # Both in one write, so that no event between the answer and the subscription is missed.
            question = connection.pack(*self._discovery.question)
            await connection.write(question + connection.pack("SUBSCRIBE", *MASTER_EVENTS))
            while True:
                for reply in await connection.receive_or_ping(self._timings):
                    self._take_reply(connection.check_reply(reply))

    def _take_reply(self, reply: Any) -> None:
        match reply:
            case [b"message", channel, payload]:
                self._change_master(self._discovery.parse_event(channel, payload))
            case [b"pong", _]:
                pass
            case [host, port]:
                self._change_master(self._discovery.parse_answer(self._sentinel, [host, port]))

    def _change_master(self, master: RedisAddress | None) -> None:
        discovery = self._discovery
        if master is None or discovery.found in (None, master):
            return
        discovery.found = master
        discovery.prefer(self._sentinel)
        for connection in self._connections:
            connection.drop(f"the master is now {master}")
