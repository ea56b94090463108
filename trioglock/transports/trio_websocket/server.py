"""The server's side of a connection of trio-websocket."""

from __future__ import annotations

import trio
from trio_websocket import WebSocketConnection, wrap_server_stream

from ..base import Handshake, LinkBroken
from ..http_requests import Call
from ..negotiation import Upgrade
from .link import NO_LIMIT, Tap, TrioWebsocketLink

__all__ = ["ServerLink"]


class ServerLink(TrioWebsocketLink):
    """A connection that a client has opened.

    Args:
        stream: of the client, its request already read.
        upgrade: what was agreed; the library writes the 101 in its own words.
    """

    def __init__(self, stream: trio.abc.Stream, upgrade: Upgrade) -> None:
        self._server_tap = _ServerTap(stream, upgrade.call)
        super().__init__(self._server_tap)
        self._upgrade_options = upgrade
        self.handshake: Handshake = upgrade.handshake

    async def _upgrade(self, nursery: trio.Nursery) -> WebSocketConnection:
        size = self._upgrade_options.max_size
        request = await wrap_server_stream(
            nursery,
            self._tap,  # type: ignore[arg-type]
            max_message_size=NO_LIMIT if size is None else size,
            receive_buffer_size=2**16,
        )
        websocket = await request.accept(subprotocol=self.handshake.subprotocol)
        self._server_tap.accepted.set()
        return websocket

    def _refused(self, error: Exception) -> Exception:
        if isinstance(error, LinkBroken):
            return error
        broken = LinkBroken(str(error))
        broken.__cause__ = error
        return broken


class _ServerTap(Tap):
    """It gives the library what was read already.

    What came behind the request the library would not look at before more comes: it gets to see
    that when it has accepted.
    """

    def __init__(self, stream: trio.abc.Stream, call: Call) -> None:
        super().__init__(stream)
        self._head = call.head
        self._rest = call.rest
        self.accepted = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head, b""
        elif self._rest:
            await self.accepted.wait()
            data, self._rest = self._rest, b""
        else:
            return await super().receive_some(max_bytes)
        self.bytes_received += len(data)
        return data

    async def aclose(self) -> None:
        await super().aclose()
        if not self.accepted.is_set():
            # What the library refuses by itself it would go on waiting for.
            raise LinkBroken("the library has refused the request")
