"""The nodes of a cluster that serve a sharded hub, and the commands sent to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import trio

from ...errors import BrokerError
from .address import ClusterAddress, RedisAddress
from .connection import Argument, RedisDisconnected, RedisTimings, find_server
from .discovery import ShardDiscovery
from .pipeline import CommandPipeline, CommandSender
from .server_info import SHARD

__all__ = ["ShardCommands", "Shards"]

_logger = logging.getLogger("trioglock.pubsub")


class Shards:
    """The masters of all hash slots, which are looked up again whenever one turns out to be wrong.

    Args:
        address: some nodes of the cluster.
        timings: the timing arguments of the broker.
    """

    def __init__(self, address: ClusterAddress, timings: RedisTimings) -> None:
        self.address: ClusterAddress = address
        self.failure: Exception | None = None
        """Why the latest attempt to look up the masters failed, if it did."""
        self.is_up: bool = False
        self._discovery = ShardDiscovery(address)
        self._timings = timings
        self._is_stale = True
        self._has_ended = False
        self._stale = trio.lowlevel.ParkingLot()
        self._looked_up = trio.lowlevel.ParkingLot()

    def master_of(self, slot: int) -> RedisAddress | None:
        """Return the master that serves a slot, if it is known."""
        return self._discovery.master_of(slot)

    def mark_stale(self) -> None:
        """Look up the masters again."""
        self._is_stale = True
        self._stale.unpark_all()

    async def wait_looked_up(self) -> None:
        """Wait for the end of the next attempt to look up the masters, successful or not."""
        if not self._has_ended:
            await self._looked_up.park()

    async def run(self) -> NoReturn:
        """Look up the masters until cancelled."""
        try:
            await self._run()
        finally:
            self._has_ended = True
            self._looked_up.unpark_all()

    async def _run(self) -> NoReturn:
        backoff = self._timings.backoff
        delays, checked_at = backoff.delays(), trio.current_time()
        while True:
            while not self._is_stale:
                await self._stale.park()
            if trio.current_time() - checked_at >= backoff.stable_after:
                delays = backoff.delays()
            self._is_stale = False
            await self._look_up()
            checked_at = trio.current_time()
            self._looked_up.unpark_all()
            # Many tasks may notice that an answer is wrong, and a failover takes some time.
            await trio.sleep(next(delays, backoff.maximum))

    async def _look_up(self) -> None:
        try:
            await find_server(self._discovery, self._timings.health_timeout)
        except (RedisDisconnected, BrokerError) as error:
            if self.failure is None:  # once per outage
                _logger.warning("%s: %s", self.address, error)
            self.failure, self.is_up, self._is_stale = error, False, True
        else:
            if self.failure is not None and self.is_up is False:
                _logger.warning("%s is reachable again", self.address)
            self.failure, self.is_up = None, True
            # Ask another node next time, because this answer may be wrong.
            self._discovery.distrust()


class NodePipeline(CommandPipeline):
    """The commands for one node. It does not reconnect: another node may have taken over."""

    mode: str | None = SHARD

    def __init__(self, address: RedisAddress, timings: RedisTimings) -> None:
        super().__init__(address, timings)
        self._has_ended = False

    async def run_once(self) -> None:
        """Connect, and send commands until the connection is lost."""
        try:
            await self._connect()
        except (RedisDisconnected, BrokerError) as error:
            self.failure: Exception | None = error
        finally:
            self._has_ended = True
            self._up.unpark_all()

    async def wait_up(self) -> None:
        while not self._is_up:
            if self._has_ended:
                raise self.failure or RedisDisconnected("the connection to Redis broke")
            await self._up.park()


class ShardCommands(CommandSender):
    """Sends commands to the nodes that serve the hash slots of their keys.

    Args:
        shards: the nodes.
        timings: the timing arguments of the broker.
        nursery: runs the connections.
    """

    def __init__(self, shards: Shards, timings: RedisTimings, nursery: trio.Nursery) -> None:
        super().__init__(shards.address, timings)
        self._shards = shards
        self._nursery = nursery
        self._nodes: dict[RedisAddress, NodePipeline] = {}

    @property
    def last_failure(self) -> Exception | None:
        return self._shards.failure

    def server_of(self, slot: int | None) -> RedisAddress | None:
        assert slot is not None
        return self._shards.master_of(slot)

    async def request_once(
        self, commands: Sequence[Sequence[Argument]], waits_for_partner: bool, slot: int | None
    ) -> list[Any]:
        server = self.server_of(slot)
        try:
            if server is None:
                raise RedisDisconnected(f"no node of the cluster serves slot {slot}")
            return await self._node(server).request_once(commands, waits_for_partner)
        except RedisDisconnected:
            self._shards.mark_stale()
            await self._shards.wait_looked_up()
            raise

    def _node(self, server: RedisAddress) -> NodePipeline:
        node = self._nodes.get(server)
        if node is None:
            node = self._nodes[server] = NodePipeline(server, self.timings)
            self._nursery.start_soon(self._run_node, server, node)
        return node

    async def _run_node(self, server: RedisAddress, node: NodePipeline) -> None:
        try:
            await node.run_once()
        finally:
            del self._nodes[server]
