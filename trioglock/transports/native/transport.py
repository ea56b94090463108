"""How a native link comes about."""

from __future__ import annotations

import trio

from ...options import DialOptions
from ..addresses import WebSocketURI
from ..base import Link, Transport
from ..connecting import open_stream
from ..negotiation import ServerTransport, Upgrade
from ..redirects import follow_redirects
from ..tcp import closed_on_failure
from .handshake import upgrade as upgrade_client
from .server import accept

__all__ = ["NativeTransport"]


class NativeTransport(Transport, ServerTransport):
    """The default, for clients and servers: can do everything, and fast."""

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the port's signature
        """See :meth:`Transport.connect`."""
        return await follow_redirects(options, self._dial)

    async def _dial(self, uri: WebSocketURI, options: DialOptions) -> Link:
        stream = await open_stream(uri, options)
        async with closed_on_failure(stream):
            return await upgrade_client(stream, uri, options)

    async def upgrade(
        self,
        stream: trio.abc.Stream,
        upgrade: Upgrade,
        nursery: trio.Nursery,  # noqa: ARG002 - the port's signature
    ) -> Link:
        """See :meth:`ServerTransport.upgrade`."""
        return await accept(stream, upgrade)
