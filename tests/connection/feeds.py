"""A feed for tests of subscriptions: its messages, and a server on the memory transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trioglock import Close, MemoryTransport, Subscriptions
from trioglock.codecs import JSON
from trioglock.transports.memory import MemoryLink

CODEC = JSON()


class Feed(Subscriptions[str, Any]):
    """A feed that confirms everything."""

    def __init__(self) -> None:
        self.resets = 0

    def subscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"subscribe": list(keys)}]

    def unsubscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"unsubscribe": list(keys)}]

    def key_of(self, message: Any) -> Any:
        return message.get("key")

    def confirmed(self, message: Any) -> Any:
        return message.get("subscribed")

    def refused(self, message: Any) -> Any:
        return message.get("refused")

    def unsubscribed(self, message: Any) -> Any:
        return message.get("unsubscribed")

    def reset(self) -> None:
        self.resets += 1


class SilentFeed(Subscriptions[str, Any]):
    """A feed that confirms nothing."""

    def subscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"subscribe": list(keys)}]

    def unsubscribe(self, keys: Sequence[str]) -> list[Any]:
        return [{"unsubscribe": list(keys)}]

    def key_of(self, message: Any) -> Any:
        return message.get("key")


class FeedServer:
    """The far end of one link."""

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.waiting: list[Any] = []

    @classmethod
    async def accept(cls, transport: MemoryTransport) -> FeedServer:
        return cls(await transport.accept())

    async def receive(self) -> Any:
        """Return the next message."""
        while not self.waiting:
            for event in await self.link.receive():
                assert isinstance(event, list), event
                self.waiting += map(CODEC.decode, event)
        return self.waiting.pop(0)

    async def receive_until_closed(self) -> list[Any]:
        """Return the remaining messages, and close the link after the Close frame."""
        while True:
            for event in await self.link.receive():
                if isinstance(event, Close):
                    await self.link.write([event])
                    await self.link.aclose()
                    return self.waiting
                self.waiting += map(CODEC.decode, event)  # type: ignore[arg-type]

    async def send(self, *messages: Any) -> None:
        await self.link.write([CODEC.encode(message) for message in messages])

    async def confirm(self, *keys: str) -> None:
        """Expect one message that subscribes to keys, and confirm them."""
        assert await self.receive() == {"subscribe": list(keys)}
        await self.send({"subscribed": list(keys)})
