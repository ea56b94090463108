"""The session of a hub with Redis."""

from __future__ import annotations

from abc import abstractmethod

import trio

from ...frames import Data
from ..broker import BrokerSession
from ..history import FindRetention
from ..patterns import ChannelFilter
from .pipeline import CommandPipeline, CommandSender
from .pubsub import PubSubReceiver
from .scripts import (
    PUBLISH,
    PUBLISH_SHARDED,
    HubKeys,
    ShardKeys,
    publish_arguments,
    publish_sharded_arguments,
)
from .shard_receiver import ShardReceiver

__all__ = ["RedisSession", "ShardSession"]


class SessionBase(BrokerSession):
    """Subscribes, and publishes when the subscriptions of this process are in effect.

    Args:
        commands: sends the commands.
        receiver: receives the messages.
        find_retention: returns the retention of a channel.
    """

    def __init__(
        self,
        commands: CommandSender,
        receiver: PubSubReceiver | ShardReceiver,
        find_retention: FindRetention,
    ) -> None:
        self._commands = commands
        self._receiver = receiver
        self.find_retention: FindRetention = find_retention

    def close(self) -> None:
        """Let all calls fail from now on."""
        self._commands.close()
        self._receiver.close()

    @property
    def is_up(self) -> bool:
        return self._receiver.is_up

    def subscribe(self, channels: ChannelFilter) -> None:
        self._receiver.subscribe(channels)

    def unsubscribe(self, channels: ChannelFilter) -> None:
        self._receiver.unsubscribe(channels)

    def is_subscribed(self, channels: ChannelFilter) -> bool:
        return self._receiver.is_subscribed(channels)

    async def wait_subscribed(self, channels: ChannelFilter) -> None:
        await self._receiver.wait_subscribed(channels)

    async def publish(self, channel: str, data: Data) -> None:
        timeout = self._commands.timings.publish_timeout
        if self._receiver.is_pending(channel):
            began = trio.current_time()
            with trio.move_on_after(timeout):
                await self._receiver.wait_pending(channel)
            timeout = max(0.0, timeout - (trio.current_time() - began))
        await self._send(channel, data, timeout)

    @abstractmethod
    async def _send(self, channel: str, data: Data, timeout: float) -> None:
        """Publish a message within a number of seconds."""


class RedisSession(SessionBase):
    """Publishes with PUBLISH or, if the channel has a history, with a script that adds to it."""

    def __init__(
        self,
        commands: CommandPipeline,
        receiver: PubSubReceiver,
        keys: HubKeys,
        find_retention: FindRetention,
    ) -> None:
        super().__init__(commands, receiver, find_retention)
        self._pipeline = commands
        self._keys = keys

    @property
    def is_up(self) -> bool:
        return self._pipeline.is_up and super().is_up

    async def _send(self, channel: str, data: Data, timeout: float) -> None:
        retention = self.find_retention(channel)
        if retention is None:
            await self._commands.request(
                "PUBLISH", self._keys.plain(channel), data, timeout=timeout
            )
            return
        names, arguments = publish_arguments(self._keys, channel, data, *retention)
        await self._commands.run_script(PUBLISH, names, arguments, timeout=timeout)


class ShardSession(SessionBase):
    """Publishes with SPUBLISH or, if the channel has a history, with a script that adds to it."""

    def __init__(
        self,
        commands: CommandSender,
        receiver: ShardReceiver,
        keys: ShardKeys,
        find_retention: FindRetention,
    ) -> None:
        super().__init__(commands, receiver, find_retention)
        self._keys = keys

    async def _send(self, channel: str, data: Data, timeout: float) -> None:
        retention, keys, slot = self.find_retention(channel), self._keys, self._keys.slot(channel)
        if retention is None:
            await self._commands.request(
                "SPUBLISH", keys.plain(channel), data, timeout=timeout, slot=slot
            )
            return
        names, arguments = publish_sharded_arguments(keys, channel, data, *retention)
        await self._commands.run_script(
            PUBLISH_SHARDED, names, arguments, timeout=timeout, slot=slot
        )
