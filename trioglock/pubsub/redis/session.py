"""The session of a hub with Redis."""

from __future__ import annotations

import trio

from ...frames import Data
from ..broker import BrokerSession
from ..history import FindRetention
from ..patterns import ChannelFilter
from .pipeline import CommandPipeline
from .pubsub import PubSubReceiver
from .scripts import PUBLISH, HubKeys, publish_arguments

__all__ = ["RedisSession"]


class RedisSession(BrokerSession):
    """Publishes with PUBLISH or, if the channel has a history, with a script that adds to it."""

    def __init__(
        self,
        commands: CommandPipeline,
        receiver: PubSubReceiver,
        keys: HubKeys,
        find_retention: FindRetention,
    ) -> None:
        self._commands = commands
        self._receiver = receiver
        self._keys = keys
        self.find_retention: FindRetention = find_retention

    @property
    def is_up(self) -> bool:
        return self._commands.is_up and self._receiver.is_up

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
        retention = self.find_retention(channel)
        if retention is None:
            await self._commands.request(
                "PUBLISH", self._keys.plain(channel), data, timeout=timeout
            )
            return
        names, arguments = publish_arguments(self._keys, channel, data, *retention)
        await self._commands.run_script(PUBLISH, names, arguments, timeout=timeout)
