"""A transport around a transport: it asks for the token before every attempt."""

from __future__ import annotations

from dataclasses import replace

import trio

from ...options import DialOptions
from ...transports import Capabilities, Link, Transport
from .address import Source, ask, token_subprotocols

__all__ = ["TokenTransport"]


class TokenTransport(Transport):
    """Puts ``auth_token`` into the subprotocols of every opening handshake.

    Args:
        inner: opens the links.
        token: a token, or a function, plain or async, that gives a fresh one.
    """

    def __init__(self, inner: Transport, token: Source[str]) -> None:
        self.capabilities: Capabilities = inner.capabilities
        self._inner = inner
        self._token: Source[str] = token

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        """See :meth:`Transport.connect`."""
        subprotocols = token_subprotocols(await ask(self._token))
        return await self._inner.connect(replace(options, subprotocols=subprotocols), nursery)
