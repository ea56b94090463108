"""An address in front of Redis servers for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from tests.pubsub.redis_server import RealRedis
from trioglock import Backoff
from trioglock.pubsub import RedisBroker

__all__ = ["Address", "address_of"]


class Address:
    """An address that leads new connections to one of several servers, and keeps the old ones."""

    def __init__(self, target: RealRedis) -> None:
        self.target = target
        self.port = 0
        self._open = trio.Event()
        self._open.set()
        self._scopes = set[trio.CancelScope]()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def broker(self, **options: Any) -> RedisBroker:
        quick = Backoff(initial=0.05, maximum=0.1, max_attempts=None, jitter="none")
        options = {"health_interval": 0.2, "health_timeout": 10, **options}
        return RedisBroker(self.url, backoff=quick, **options)

    def cut(self) -> None:
        """Close all connections; new ones are forwarded after :meth:`release`."""
        self._open = trio.Event()
        for scope in self._scopes:
            scope.cancel()

    def release(self) -> None:
        """Forward connections again."""
        self._open.set()

    async def forward(self, near: trio.SocketStream) -> None:
        async with near:
            await self._open.wait()
            async with (
                await trio.open_tcp_stream("127.0.0.1", self.target.port) as far,
                trio.open_nursery() as nursery,
            ):
                self._scopes.add(nursery.cancel_scope)
                nursery.start_soon(self.copy, near, far, nursery.cancel_scope)
                await self.copy(far, near, nursery.cancel_scope)

    async def copy(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await target.send_all(data)
        scope.cancel()


@asynccontextmanager
async def address_of(target: RealRedis) -> AsyncIterator[Address]:
    address = Address(target)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, address.forward, [listener])
        yield address
        nursery.cancel_scope.cancel()
