"""One client of the mock: the socket process of a Phoenix server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from trio_websocket import ConnectionClosed

from ...frames import Data
from ..server import MockPeer
from . import format as wire
from .channel import MockPhoenixChannel, RefuseJoin

if TYPE_CHECKING:
    from .server import MockPhoenixServer

__all__ = ["MockClient"]

UNMATCHED = {"reason": "unmatched topic"}


class MockClient:
    """Reads what a client sends and answers as a server does.

    Args:
        server: it belongs to.
        peer: its connection.
        params: of its address, without ``vsn``.
        token: its ``auth_token``, if it has one.
    """

    def __init__(
        self,
        server: MockPhoenixServer,
        peer: MockPeer,
        params: dict[str, str],
        token: str | None,
    ) -> None:
        self.server: MockPhoenixServer = server
        self.peer: MockPeer = peer
        self.params: dict[str, str] = params
        self.token: str | None = token
        self.channels: dict[str, MockPhoenixChannel] = {}
        """By topic, those that are alive."""
        self.received: list[wire.ClientMessage] = []
        """Every message, oldest first, heartbeats included."""
        self._tasks: trio.Nursery

    async def send(self, frame: Data) -> None:
        """Send a frame, whatever it is."""
        await self.peer.send(frame)

    def forget(self, channel: MockPhoenixChannel) -> None:
        """It has ended."""
        if self.channels.get(channel.topic) is channel:
            del self.channels[channel.topic]

    async def run(self) -> None:
        """Serve until the client has gone, or sent nonsense."""
        async with trio.open_nursery() as self._tasks:
            try:
                while True:
                    message = wire.read(await self.peer.receive())
                    self.received.append(message)
                    await self._handle(message)
            except wire.Malformed:
                await self.peer.close(1011)
            except (AssertionError, ConnectionClosed):
                pass  # the client has closed
            finally:
                self._tasks.cancel_scope.cancel()
                for channel in list(self.channels.values()):
                    await channel.close()

    async def _handle(self, message: wire.ClientMessage) -> None:
        channel = self.channels.get(message.topic)
        match message:
            case wire.ClientMessage(topic="phoenix", event="heartbeat"):
                await self.server.on_heartbeat(self, message.ref)
            case wire.ClientMessage(event="phx_join"):
                await self._join(message, channel)
            case wire.ClientMessage(event="phx_leave"):
                await self._leave(message, channel)
            case _ if channel is None:
                await self.send(wire.reply(None, message.ref, message.topic, "error", UNMATCHED))
            case _ if self.server.accepts(message.join_ref, channel.join_ref):
                channel.post(message)

    async def _join(self, message: wire.ClientMessage, old: MockPhoenixChannel | None) -> None:
        topic, join_ref, ref = message.topic, message.join_ref, message.ref
        kind = self.server.kind_of(topic)
        if kind is None:
            await self.send(wire.reply(None, ref, topic, "error", UNMATCHED))
            return
        if old is None and len(self.channels) >= self.server.max_channels:
            too_many = {"reason": "too many channels joined"}
            await self.send(wire.reply(join_ref, ref, topic, "error", too_many))
            return
        channel = kind(self, topic, join_ref)
        status, response = await self._ask(channel, message.payload)
        if old is not None:
            await old.close()
        if status == "ok":
            self.channels[topic] = channel
        await self.send(wire.reply(join_ref, ref, topic, status, response))
        if old is not None:
            await self.send(wire.push(old.join_ref, topic, "phx_close", {}, old.join_ref))
        if status == "ok":
            self._tasks.start_soon(self._run, channel)

    async def _ask(self, channel: MockPhoenixChannel, payload: Any) -> tuple[str, Any]:
        try:
            return "ok", await channel.on_join(payload)
        except RefuseJoin as refusal:
            return "error", refusal.response
        except Exception:  # noqa: BLE001 - whatever the script raises, as on a server
            return "error", {"reason": "join crashed"}

    async def _run(self, channel: MockPhoenixChannel) -> None:
        # If the client has gone, the reading side sees to the rest.
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            await channel.run()

    async def _leave(self, message: wire.ClientMessage, channel: MockPhoenixChannel | None) -> None:
        topic, ref = message.topic, message.ref
        if channel is None or not self.server.accepts(message.join_ref, channel.join_ref):
            await self.send(wire.reply(message.join_ref, ref, topic, "ok", {}))
            return
        await channel.close()
        join_ref = channel.join_ref
        await self.send(wire.reply(join_ref, ref, topic, "ok", {}))
        await self.send(wire.push(join_ref, topic, "phx_close", {}, join_ref))

    def alive(self, topic: str) -> Iterator[MockPhoenixChannel]:
        """Its channel of a topic, if there is one."""
        if topic in self.channels:
            yield self.channels[topic]
