"""A server process with presence: ``python -m tests.channels.presence_server REDIS PORT NAME``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from typing import Any

import trio

from tests.channels.presence_helpers import PresenceRoom
from trioglock import serve
from trioglock.channels import Answer, Channels, Presence
from trioglock.pubsub import Hub, RedisBroker


def digest(entries: Iterable[tuple[str, str]]) -> str:
    """A digest of topics and keys."""
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()


class ListedRoom(PresenceRoom):
    """Answers "list", whose payload are topics, with the digest of their lists."""

    async def handle_in(self, event: str, payload: Any, state: str) -> Any:
        if event != "list":
            return await super().handle_in(event, payload, state)
        listed = [(topic, key) for topic in payload for key in self.presence.list(topic)]
        return Answer("ok", {"count": len(listed), "digest": digest(listed)}), state


async def main(url: str, port: int, name: str) -> None:
    hub = Hub(broker=RedisBroker(url))
    channels = Channels({"room:*": ListedRoom}, hub=hub)
    ListedRoom.presence = Presence(channels, name=name or None)
    async with hub, serve(channels.socket, "127.0.0.1", port) as server:
        print(server.port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
