"""Helpers for tests of presence: a strict client, a channel, and processes that can be cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import trio

from tests.channels.helpers import ChannelsSite, RawPhoenix
from trioglock import MemoryListener, Server, serve
from trioglock.channels import Channel, Channels, JoinRefused, Presence
from trioglock.frames import Data
from trioglock.protocols import phoenix
from trioglock.pubsub import Broker, BrokerSession, Hub, MemoryBroker
from trioglock.pubsub.broker import Deliver
from trioglock.pubsub.history import FindRetention


def refs_of(entries: Any) -> set[str]:
    """The refs of the metas in a state or a part of a diff."""
    return {meta["phx_ref"] for entry in entries.values() for meta in entry["metas"]}


class StrictRefs:
    """The refs known to a client that has received a state, and applies each later diff once."""

    def __init__(self, state: Any) -> None:
        self.refs = refs_of(state)

    def apply(self, diff: Any) -> None:
        joins, leaves = refs_of(diff["joins"]), refs_of(diff["leaves"])
        assert joins or leaves, "an empty diff"
        assert not self.refs & joins, "an entry joined twice"
        assert leaves <= self.refs, "an unknown entry left"
        self.refs = (self.refs | joins) - leaves

    def receive(self, messages: list[Any]) -> None:
        """Apply messages of the server; other messages are ignored."""
        for _, _, _, event, payload in messages:
            if event == "presence_diff":
                self.apply(payload)
            assert event != "presence_state", "a second state"


class StrictPresence(StrictRefs):
    """The same with the presence of this package's client."""

    def __init__(self, state: Any) -> None:
        super().__init__(state)
        self.presence = phoenix.Presence()
        self.presence.receive("presence_state", state, "1")

    def apply(self, diff: Any) -> None:
        super().apply(diff)
        self.presence.receive("presence_diff", diff, "1")


def logged_presence() -> tuple[phoenix.Presence, list[tuple[str, str]]]:
    """A presence, and the keys that have joined and left it."""
    log: list[tuple[str, str]] = []

    def on_join(key: str, known: Any, _: Any) -> None:
        if known is None:
            log.append(("+", key))

    def on_leave(key: str, remaining: Any, _: Any) -> None:
        if not remaining["metas"]:
            log.append(("-", key))

    return phoenix.Presence(on_join=on_join, on_leave=on_leave), log


class PresenceRoom(Channel[str]):
    """Tracks its client under the key of the join's payload, and follows its pushes."""

    presence: ClassVar[Presence]

    async def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, str]:
        if payload.get("tracks", True):
            await self.presence.track(self, payload["key"], {"status": "here"})
        await trio.sleep(payload.get("seconds", 0))
        if payload.get("refused"):
            raise JoinRefused({"reason": "full"})
        return {}, payload["key"]

    async def handle_in(self, event: str, payload: Any, state: str) -> Any:
        match event:
            case "track":
                await self.presence.track(self, payload, {"status": "here"})
            case "status":
                await self.presence.update(self, state, {"status": payload})
            case "untrack":
                await self.presence.untrack(self, state)
            case _:
                raise LookupError(event)
        return None, state


class PresenceSite(ChannelsSite):
    """A process with channels and presence."""

    def __init__(
        self, channels: Channels, listener: MemoryListener, server: Server, presence: Presence
    ) -> None:
        super().__init__(channels, listener, server)
        self.presence = presence
        self.url = ""
        """The URL for clients of Phoenix; empty for a server in memory."""

    def keys(self, topic: str = "room:1") -> dict[str, list[str]]:
        """The statuses of each key in the list of this process."""
        return {
            key: [meta["status"] for meta in entry["metas"]]
            for key, entry in self.presence.list(topic).items()
        }


@asynccontextmanager
async def serving_presence(
    hub: Hub | None = None,
    room: type[PresenceRoom] = PresenceRoom,
    *,
    tcp: bool = False,
    **options: Any,
) -> AsyncIterator[PresenceSite]:
    """Serve channels with presence, in memory or on a TCP port."""
    hub, listener = hub or Hub(), MemoryListener()
    own_room = type("Room", (room,), {})
    channels = Channels({"room:*": own_room}, hub=hub)
    presence = Presence(channels, **options)
    own_room.presence = presence  # type: ignore[attr-defined]
    serving = (
        serve(channels.socket, "127.0.0.1", 0)
        if tcp
        else serve(channels.socket, listeners=[listener])
    )
    async with hub, serving as server:
        site = PresenceSite(channels, listener, server, presence)
        site.url = f"ws://127.0.0.1:{server.port}/socket" if tcp else ""
        yield site


async def received(client: RawPhoenix, seconds: float = 1) -> list[Any]:
    """What a client receives within some seconds."""
    messages = []
    with trio.move_on_after(seconds):
        while True:
            messages.append(await client.receive())
    return messages


async def synced(client: RawPhoenix, key: str, ref: str = "1") -> StrictPresence:
    """Join, and return the presence of the client with its state."""
    await client.join(ref=ref, payload={"key": key})
    join_ref, message_ref, topic, event, state = await client.receive()
    assert [join_ref, message_ref, topic, event] == [ref, None, "room:1", "presence_state"]
    return StrictPresence(state)


class CutBroker(Broker):
    """The broker of one process, whose connection to the others can be cut."""

    def __init__(self, shared: MemoryBroker) -> None:
        self.is_cut = False
        self._shared = shared

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Deliver, find_retention: FindRetention | None = None
    ) -> AsyncIterator[BrokerSession]:
        def deliver_if_connected(event: Any) -> bool | None:
            return None if self.is_cut else deliver(event)

        async with self._shared.open(name, deliver_if_connected, find_retention) as session:
            yield CutSession(self, session)


class CutSession(BrokerSession):
    """Publishes nothing while the connection is cut."""

    def __init__(self, broker: CutBroker, session: BrokerSession) -> None:
        self._broker = broker
        self._session = session

    async def publish(self, channel: str, data: Data) -> None:
        if not self._broker.is_cut:
            await self._session.publish(channel, data)
