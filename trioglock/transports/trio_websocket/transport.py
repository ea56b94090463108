"""The trio-websocket plug: an independent implementation behind the same port.

What it cannot do stands in its :class:`Capabilities`: the library answers pings itself and shows
neither them nor unsolicited pongs, has no compression, and throws away what arrives after our own
Close frame.
"""

from __future__ import annotations

import trio

from ...options import DialOptions
from ..addresses import WebSocketURI
from ..base import Capabilities, Link, Transport
from ..connecting import open_stream
from ..negotiation import ServerTransport, Upgrade
from ..redirects import follow_redirects
from ..tcp import closed_on_failure
from .client import ClientLink
from .server import ServerLink

__all__ = ["TrioWebsocketTransport"]


class TrioWebsocketTransport(Transport, ServerTransport):
    """Speaks through trio-websocket, as a client or as a server."""

    capabilities: Capabilities = Capabilities(
        ping_events=False,
        pong_events=False,
        empty_close=False,
        compression=False,
        drains_after_close=False,
        fast_violations=False,
    )
    compresses: bool = False

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        """See :meth:`Transport.connect`."""

        async def dial(uri: WebSocketURI, options: DialOptions) -> Link:
            stream = await open_stream(uri, options)
            async with closed_on_failure(stream):
                link = ClientLink(stream, uri, options)
                nursery.start_soon(link.host)
                await link.wait_open()
                return link

        return await follow_redirects(options, dial)

    async def upgrade(
        self, stream: trio.abc.Stream, upgrade: Upgrade, nursery: trio.Nursery
    ) -> Link:
        """See :meth:`ServerTransport.upgrade`."""
        link = ServerLink(stream, upgrade)
        nursery.start_soon(link.host)
        await link.wait_open()
        return link
